"""What holds the processes of a run together beside JAX: they miss each other, and they agree when to stop.

JAX learns of a death by its heartbeats after 100 seconds, or at once if it is that of process 0, which carries JAX's
service; it then ends the others by SIGABRT under a C++ stack trace. Here every process keeps a connection to process 0,
which a thread of its own listens to, whatever the main thread waits for. A connection that closes unannounced is a
death.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from jaxfood.processes.meeting import Wire, readable

LOST = 75  # exit status where another process has ended: sysexits' EX_TEMPFAIL, "try again later"

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # for a process that is on its way out by itself


class Links:
    """The wires of one process, and the thread that listens to them until the process ends.

    Process 0 has a wire to each other process; the others have one, to process 0.
    """

    def __init__(self, process: int, wires: Mapping[int, Wire]) -> None:
        self._process = process
        self._wires = dict(wires)
        self._count = len(wires) + 1
        self._parted: set[int] = set()  # those whose end will be no surprise
        self._give_up: tuple[float, str] | None = None  # when this process ends unless it does by itself, and why
        self._status: int | None = None  # with which the main thread wants to leave
        self._reason = ""
        self._wanted = self._asked = False  # a stop
        self._answers: dict[int, int] = {}  # process 0: the step that each process has come to
        self._steps = threading.Condition()
        self._step, self._held, self._stop_at = -1, False, sys.maxsize
        self._thread = threading.Thread(target=self._listen, name="links", daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask all processes to stop, at a step that none has passed. For signal handlers: takes no lock."""
        self._wanted = True

    def reached(self, step: int) -> bool:
        """Whether `step` is the one to stop at, or a later one: the same answer in every process.

        All processes must ask, after the same steps. It waits only while the step is being agreed on, which the threads
        do among themselves.
        """
        with self._steps:
            self._step = step
            while self._held:
                self._steps.wait()
            return step >= self._stop_at

    def part(self) -> None:
        """The work is done: the others shall not miss this process any more."""
        self._tell_all("parted")

    def leave(self, status: int, reason: str) -> NoReturn:
        """End this process before the work is done; the others end too, and say the reason."""
        self._reason, self._status = reason, status
        self._thread.join()
        raise AssertionError("the thread ends the process")

    def _listen(self) -> None:
        while self._status is None:
            if self._wanted and not self._asked:
                self._asked = True
                if self._process == 0:
                    self._hear(0, "stop?", None)
                else:
                    self._tell_all("stop?")
            if self._give_up and time.monotonic() > self._give_up[0]:
                self._end(LOST, self._give_up[1])
            self._receive()
        self._end(self._status)

    def _receive(self) -> None:
        ready = readable(self._wires.values(), _POLL_SECONDS)
        for process, wire in [(process, wire) for process, wire in self._wires.items() if wire in ready]:
            messages = wire.receive()
            if messages is None:
                del self._wires[process]
                wire.close()
                if process not in self._parted:
                    self._end(LOST, f"process {process} has died or can no longer be reached")
            for word, value in messages or ():
                self._hear(process, word, value)

    def _hear(self, process: int, word: str, value: Any) -> None:
        match word:
            case "parted":
                self._parted.add(process)
            case "leaving":  # perhaps for a reason that ends this process too
                self._parted.add(process)
                problem = f"process {process} has stopped ({value})"
                self._give_up = self._give_up or (time.monotonic() + _GRACE_SECONDS, problem)
            case "lost":
                self._end(LOST, value)
            case "stop?" if not self._answers:
                self._answers[0] = self._hold()
                self._tell_all("where?")
            case "where?":
                self._tell_all("at", self._hold())
            case "at":
                self._answers[process] = value
                if len(self._answers) == self._count:
                    stop_at = max(self._answers.values()) + 1
                    self._tell_all("stop", stop_at)
                    self._release(stop_at)
            case "stop":
                self._release(value)

    def _hold(self) -> int:
        with self._steps:
            self._held = True
            return self._step

    def _release(self, stop_at: int) -> None:
        with self._steps:
            self._held, self._stop_at = False, stop_at
            self._steps.notify_all()

    def _tell_all(self, word: str, value: Any = None) -> None:
        for wire in list(self._wires.values()):
            wire.send(word, value)

    def _end(self, status: int, problem: str = "") -> NoReturn:
        """End this process at once, though its main thread may wait for others for ever."""
        if problem:
            os.write(2, f"error: {problem}, so this one stops too; start all again with --resume to go on\n".encode())
            self._tell_all("lost", problem)
        else:
            self._tell_all("leaving", self._reason)
        if self._process == 0:
            self._see_off()
        sys.stdout.flush()
        os._exit(status)

    def _see_off(self) -> None:
        """Wait until the others are gone: without JAX's service, which runs here, they would be aborted."""
        deadline = time.monotonic() + 2 * _GRACE_SECONDS
        open_wires = list(self._wires.values())
        while open_wires and time.monotonic() < deadline:
            ready = readable(open_wires, _POLL_SECONDS)
            open_wires = [wire for wire in open_wires if wire not in ready or wire.receive() is not None]
