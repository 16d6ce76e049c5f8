"""How the processes of a run find each other: each connects to process 0, which waits until all have come.

Beside JAX's own meeting, which tells what goes wrong by a C++ stack trace and SIGABRT.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterable, Mapping
from multiprocessing import connection
from typing import Any

from jaxfood.errors import UserError

_RETRY_SECONDS = 0.2
_HELLO_SECONDS = 5.0
# A peer that vanished without a word (power, network) is given up after 10 + 4 * 5 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}

Message = tuple[str, Any]


class Wire:
    """Messages to and from one other process, each a line of JSON: a word and a value."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._unread = b""
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, word: str, value: Any = None) -> None:
        """Send a message; on a broken connection it is lost, which `receive` will tell."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps([word, value]).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """The messages that have come, after waiting for some; None once the other end is closed."""
        try:
            received = self._socket.recv(65536)
        except OSError:
            received = b""
        if not received:
            return None
        *lines, self._unread = (self._unread + received).split(b"\n")
        return [(word, value) for word, value in map(json.loads, lines)]

    def expect(self, seconds: float) -> Message | None:
        """The first message; None if the other end closes before, sends something else or takes longer."""
        deadline = time.monotonic() + seconds
        line = b""
        try:
            while not line.endswith(b"\n"):
                self._socket.settimeout(_until(deadline))
                byte = self._socket.recv(1)  # one by one: what comes after the line is for `receive`
                if not byte:
                    return None
                line += byte
            self._socket.settimeout(None)
            word, value = json.loads(line)
        except (OSError, ValueError, TypeError):
            return None
        return word, value


def readable(wires: Iterable[Wire], seconds: float) -> list[Wire]:
    """Those from which something has come, or which are closed, after waiting for it up to so many seconds."""
    by_number = {wire.fileno(): wire for wire in wires}
    ready = connection.wait(by_number, timeout=seconds)
    return [wire for number, wire in by_number.items() if number in ready]


def listen(port: int) -> socket.socket:
    """A socket for the others to connect to, at every address of this machine; port 0 takes a free one.

    Raises:
        OSError: another program has the port.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)


def gather(listener: socket.socket, count: int, greeting: Mapping[str, Any], seconds: float) -> dict[int, Wire]:
    """Process 0: the wires to the `count` - 1 others, by process, once all have come with the same greeting.

    Raises:
        UserError: some did not come in time, two say that they are the same, or a greeting differs. Those who came are
            told so too.
    """
    wires: dict[int, Wire] = {}
    try:
        _welcome(wires, listener, count, greeting, time.monotonic() + seconds)
    except TimeoutError:
        missing = ", ".join(str(process) for process in range(1, count) if process not in wires)
        problem = (
            f"process {missing} did not come within {seconds:g} s: start all with the same distributed.coordinator"
        )
    except UserError as error:
        problem = str(error)
    else:
        return wires
    for wire in wires.values():
        _refuse(wire, problem)
    raise UserError(problem)


def _welcome(
    wires: dict[int, Wire], listener: socket.socket, count: int, greeting: Mapping[str, Any], deadline: float
) -> None:
    while len(wires) < count - 1:
        listener.settimeout(_until(deadline))
        wire = Wire(listener.accept()[0])
        match wire.expect(_HELLO_SECONDS):
            case ("hello", [int() as process, dict() as theirs]):
                if process in wires or process == 0:
                    problem = f"two processes have distributed.process_id = {process}: give each its own"
                    _refuse(wire, problem)
                    raise UserError(problem)
                wires[process] = wire
                for name, value in greeting.items():
                    if theirs.get(name) != value:
                        raise UserError(
                            f"process {process} has {name} {theirs.get(name)} and process 0 has {value}: start all "
                            "processes with the same"
                        )
            case _:  # no process of ours
                wire.close()


def _refuse(wire: Wire, problem: str) -> None:
    wire.send("refused", problem)
    wire.close()


def connect(host: str, port: int, process: int, greeting: Mapping[str, Any], seconds: float) -> tuple[Wire, Any]:
    """Another process than 0: the wire to process 0, once all have come, and what process 0 tells them then.

    Raises:
        UserError: nobody answers there in time, or process 0 refuses.
    """
    deadline = time.monotonic() + seconds
    wire = _knock(host, port, deadline, seconds)
    wire.send("hello", [process, greeting])
    match wire.expect(seconds):  # process 0 waits as long for the last of the others
        case ("welcome", told):
            return wire, told
        case ("refused", problem):
            wire.close()
            raise UserError(problem)
    wire.close()
    raise UserError(f"process 0 at {host}:{port} ended before all had come: look at its output")


def _knock(host: str, port: int, deadline: float, seconds: float) -> Wire:
    while True:
        try:
            return Wire(socket.create_connection((host.strip("[]"), port), timeout=_until(deadline)))
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process 0 does not answer at {host}:{port} within {seconds:g} s ({error.strerror or error}): "
                    "start it there, or set distributed.coordinator to where it runs"
                ) from None
        time.sleep(_RETRY_SECONDS)


def _until(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)
