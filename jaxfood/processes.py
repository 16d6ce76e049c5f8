"""Several processes that train one model: how they start, agree, stop at one step, and end where one of them does.

All of it goes through JAX's coordination service, which process 0 carries, and works in a single process too, where it
costs nothing.
"""

import atexit
import ctypes
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxfood.config.distributed import AUTO, NONE, DistributedConfig
from jaxfood.errors import UserError
from jaxfood.files import is_remote
from jaxfood.version import __version__

LOST = 75  # exit status where another process has ended: sysexits' EX_TEMPFAIL, "try again later"

_INTERVAL = 0.5  # seconds between two looks at the others
_DEAD, _ENDING, _UNREACHABLE = 20, 10, 4  # looks without news from another process, after which this one ends
_HEARTBEAT_SECONDS = 20  # JAX's own; later than ours, for it ends the others by SIGABRT under a C++ stack trace
_LONG = 7 * 24 * 3600 * 1000  # milliseconds for others who are at work; the monitor sees to it that they live
_DONE = "its own work was done"

Result = TypeVar("Result")

_monitor: "_Monitor | None" = None
_starting = False
_handlers: list[Any] = []
_meetings = itertools.count()


def start(config: DistributedConfig) -> None:
    """Join the other processes, if there are any. Before JAX's first computation, in every process.

    From then on this process ends, with exit status `LOST` and one line, when another one does before its time.

    Raises:
        UserError: the others did not come, or another program has the port, or two processes are not alike.
    """
    global _starting
    if config.coordinator == AUTO or (not config.coordinator and _started_together(os.environ)):
        place: dict[str, Any] = {}
    elif config.coordinator in ("", NONE):
        return
    else:
        place = _place(config)
    import jax

    # On CPU: one program at a time, or the collectives of two that run at once take each other's messages (gloo).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", False)  # it would put SIGTERM out of Python's reach
    _starting = True
    _on_abort(_refused)
    place |= {"initialization_timeout": int(config.timeout) + 60, "heartbeat_timeout_seconds": _HEARTBEAT_SECONDS}
    try:  # in a thread, as Ctrl-C would not end it; JAX's own limit comes later, by SIGABRT
        ThreadPoolExecutor(1).submit(partial(jax.distributed.initialize, **place)).result(config.timeout)
    except TimeoutError:
        raise UserError(_absence(config, place)) from None
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"JAX cannot join the processes ({str(error).splitlines()[0]}): set distributed.coordinator to HOST:PORT "
            "of process 0, or to none"
        ) from None
    if count() > 1:
        _joined()
        _check_alike(config.timeout)
    _starting = False


def count() -> int:
    """How many processes train together."""
    return _service().num_processes if _service().client else 1


def index() -> int:
    """Which of them this is, from 0 on."""
    return _service().process_id if _service().client else 0


def is_first() -> bool:
    """Whether this process is the one that writes and shows what all of them know."""
    return index() == 0


def share(text: str) -> list[str]:
    """The texts of all processes, in their order. All must call it, and it waits for all.

    The devices have no part in it, so nothing is compiled and nothing times out.

    Raises:
        UserError: instead of coming here another process raised it, inside the same `together`.
    """
    return [text] if count() == 1 else _share(text)


def barrier() -> None:
    """Wait until all processes have come here; errors as in `share`."""
    share("")


@contextmanager
def together() -> Iterator[None]:
    """Work that all processes do, and after which they wait for each other. It may `share`, and hold others like it.

    Raises:
        UserError: in every process, where it was raised in any; with the text of the first of them.
    """
    problem = None
    try:
        yield
    except _SharedError:  # by now all have it
        raise
    except UserError as error:
        if count() == 1:
            raise
        problem = error
    if count() > 1:
        _share("", str(problem or ""))


def by_first(work: Callable[[], object]) -> None:
    """Work of the first process alone, for which all wait; a mistake in it is raised in all."""
    with together():
        if is_first():
            work()


def first_then_all(work: Callable[[], Result], folder: Path) -> Result:
    """Work that leaves its result in a folder, done once where all processes see the same folder, else by each.

    All must call it. The first does the work; then the others call `work` too, which finds it done.
    """
    if count() == 1 or not share_folder(folder):
        return work()
    results = []
    for turn_of_first in (True, False):
        with together():
            if is_first() == turn_of_first:
                results.append(work())
    return results[0]


def share_folder(folder: Path) -> bool:
    """Whether all processes see the same files in a folder, which the first makes if need be; no, if it cannot."""
    if count() == 1 or is_remote(folder):
        return True
    token = folder / f".{secrets.token_hex(8)}.tmp"
    with suppress(OSError):
        if is_first():
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
    of_first, *_ = share(token.name)
    seen = share("seen" if (folder / of_first).exists() else "")
    with suppress(OSError):
        token.unlink(missing_ok=True)
    return all(seen)


def check_same(values: Mapping[str, Any]) -> None:
    """Check that all processes have the same values of the same names, of types that JSON has.

    Raises:
        UserError: in every process, naming the first difference.
    """
    _compare([json.loads(text) for text in share(json.dumps(dict(values)))])


def begin_work() -> None:
    """Work begins that all do step by step, and that a signal to any of them stops, see `reached_stop`."""
    if count() > 1:
        _joined().begin_work()


def end_work(error: BaseException | None) -> None:
    """The work is done, or ends in this process by an error. If that may be another's death, wait for its discovery."""
    if _monitor:
        _monitor.broken = isinstance(error, SystemExit)
        _wait_for_news(error)


def ask_to_stop() -> None:
    """Ask all processes to stop at one step. For signal handlers: takes no lock."""
    if _monitor:
        _monitor.status.wants_stop = True


def reached_stop(step: int) -> bool:
    """Whether the processes have agreed to stop at `step` or before it. All must ask, after the same steps."""
    return _monitor is not None and _monitor.reached(step)


def leave(status: int, reason: str) -> None:
    """Where there are other processes, end this one, which ends them too. It has had its say; they give the reason."""
    if _monitor:
        _monitor.part(reason)
    if _monitor or _starting:  # at once: JAX would wait for the others first
        _end(status)


@dataclass
class _Status:
    """How a process stands, as it shows the others."""

    looks: int = 0  # counts while it lives
    work: int = 0  # which one; each has its own stop
    wants_stop: bool = False
    step: int | None = None  # the last before it waits until all have agreed on a step to stop at
    end: str = ""  # why it ends


class _Monitor:
    """A thread that shows how this process stands and sees how the others do, whatever the main thread waits for.

    What follows from how all stand, each process works out by itself.
    """

    def __init__(self) -> None:
        self.status = _Status()
        self.waits = False  # for what the others have to say
        self.broken = False  # its work ended before it was done
        self._own, self._count, self._client = index(), count(), _service().client
        self._seen: dict[int, _Status] = {}
        self._silent: dict[int, int] = {}  # for how many looks each process has shown nothing new
        self._steps = threading.Condition()
        self._step, self._stop_at = -1, -1
        self._parting = threading.Event()
        _on_abort(self._aborted)
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def begin_work(self) -> None:
        with self._steps:
            self.status = _Status(self.status.looks, self.status.work + 1)
            self._step, self._stop_at = -1, -1

    def reached(self, step: int) -> bool:
        """Waits only while the step to stop at is being agreed on, which the threads do among themselves."""
        with self._steps:
            self._step = step
            self._steps.wait_for(lambda: self.status.step is None or self._stop_at >= 0)
            return 0 <= self._stop_at <= step

    def part(self, reason: str) -> None:
        """Tell the others that this process ends, and why."""
        self.status.end = reason
        self._parting.set()
        self._thread.join()

    def _watch(self) -> None:
        failures = 0
        while not self._parting.wait(_INTERVAL):
            try:
                self._look()
            except RuntimeError:
                failures += 1
                if _service().client is not self._client:  # the program has shut the service down
                    return
                if failures == _UNREACHABLE:
                    self._lose(_unreachable(0))
            else:
                failures = 0
                self.status.looks += 1
                self._agree()
                self._miss()
        self._take_leave()

    def _look(self) -> None:
        self._client.key_value_set(f"jaxfood/status/{self._own}", json.dumps(vars(self.status)), True)
        for key, text in self._client.key_value_dir_get("jaxfood/status/"):
            process, status = int(key.rpartition("/")[2]), _Status(**json.loads(text))
            silent = status == self._seen.get(process)
            self._silent[process] = self._silent.get(process, 0) + 1 if silent else 0
            self._seen[process] = status

    def _agree(self) -> None:
        """Where some process wants to stop: wait after a step, until all do, then stop one step after the last."""
        own, everyone = self.status, self._seen.values()
        with self._steps:
            if own.step is None and any(status.wants_stop and status.work == own.work for status in everyone):
                own.step = self._step
            elif own.step is not None and any(s.work > own.work or (s.end and s.step is None) for s in everyone):
                self._stop_at = sys.maxsize  # the work is done in some process, so it can be in all
            elif len(everyone) == self._count and all(s.work == own.work and s.step is not None for s in everyone):
                self._stop_at = 1 + max(status.step for status in everyone if status.step is not None)
            self._steps.notify_all()

    def _miss(self) -> None:
        for process, status in self._seen.items():
            if self._silent[process] >= _DEAD and not status.end:
                self._lose(_unreachable(process))
            if self._silent[process] >= _ENDING and status.end and (status.end != _DONE or self.waits):
                self._lose(f"process {process} has stopped ({status.end})")

    def _lose(self, problem: str) -> NoReturn:
        self.status.end = problem
        _say_lost(problem)
        if problem != _unreachable(0):
            self._take_leave()
        _end(LOST)

    def _take_leave(self) -> None:
        """Show why this process ends. Process 0 goes last: without the service JAX would abort the others."""
        with suppress(RuntimeError):
            self._look()
            for _ in range(_DEAD if self._own == 0 and self.status.end != _DONE else 0):
                time.sleep(_INTERVAL)
                self._look()
                if all(status.end or self._silent[process] >= _ENDING for process, status in self._seen.items()):
                    break

    def _aborted(self) -> None:
        """JAX gives up: as the service does not answer, or for a fault of its own, which takes its course."""
        looks = self.status.looks
        time.sleep((_UNREACHABLE + 2) * _INTERVAL)
        if self.status.looks < looks + 2:
            _say_lost(_unreachable(0))
            _end(LOST)


class _SharedError(UserError):
    """A user's mistake that all processes raise at the same place."""


def _share(text: str, problem: str = "") -> list[str]:
    monitor, client, place = _joined(), _service().client, f"jaxfood/{next(_meetings)}"
    client.key_value_set(f"{place}/{index()}", json.dumps([text, problem]))
    monitor.waits = True
    try:
        told = [json.loads(client.blocking_key_value_get(f"{place}/{process}", _LONG)) for process in range(count())]
    except RuntimeError as error:
        _wait_for_news(error)
        raise
    monitor.waits = False
    problems = [problem for _, problem in told]
    for process, said in enumerate(problems):
        if said:
            everywhere = all(other == said for other in problems)
            raise _SharedError(said if everywhere else f"process {process}: {said}")
    return [text for text, _ in told]


def _compare(values: Sequence[Mapping[str, Any]]) -> None:
    first, *others = values
    for process, theirs in enumerate(others, start=1):
        for name, value in first.items():
            if theirs.get(name) != value:
                raise UserError(
                    f"{name} is {value} in process 0 and {theirs.get(name)} in process {process}: "
                    "start all processes with the same"
                )


def _service() -> Any:
    """JAX's own `client` (None before the start), `num_processes`, `process_id`: private in JAX, 0.10 to 0.12."""
    from jax._src import distributed

    return distributed.global_state


def _joined() -> _Monitor:
    """Started where it is first needed, as a program may have called `jax.distributed.initialize` itself."""
    global _monitor
    if _monitor is None:
        _monitor = _Monitor()
        atexit.register(_part)
    return _monitor


def _part() -> None:
    """At the end of Python: part from the others, or leave them if it is an error's."""
    if _monitor and (_monitor.broken or hasattr(sys, "last_value")):
        leave(1, "by a fault that its own output shows")
    if _monitor:
        _monitor.part(_DONE)


def _wait_for_news(error: BaseException | None) -> None:
    """The monitor ends this process if the error tells of another's death, which gloo sees before it."""
    import jax

    if isinstance(error, jax.errors.JaxRuntimeError):
        time.sleep((_DEAD + 4) * _INTERVAL)


def _unreachable(process: int) -> str:
    return f"process {process} has died or can no longer be reached"


def _say_lost(problem: str) -> None:
    os.write(2, f"error: {problem}, so this one stops too; start all again with --resume to go on\n".encode())


def _end(status: int) -> NoReturn:
    """End this process at once, though other threads of it may wait for ever."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def _on_abort(act: Callable[[], None]) -> None:
    """Act before SIGABRT ends this process, with which JAX's C++ answers whatever it has no other answer to.

    In the thread that aborts, by way of C: Python's own handlers run in the main thread, which waits elsewhere.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: act())
    _handlers.append(handler)  # C does not keep it
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


def _refused() -> None:
    os.write(
        2,
        b"error: process 0 refused this one, or has ended: give each its own distributed.process_id, and all the "
        b"same distributed.num_processes\n",
    )
    _end(2)


def _started_together(environment: Mapping[str, str]) -> bool:
    """Whether Slurm or a TPU pod started this process as one of several."""
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1 or "," in workers


def _place(config: DistributedConfig) -> dict[str, Any]:
    """What JAX takes of it. Process 0 then listens at the coordinator's own address alone, not at every address."""
    place = {"coordinator_address": config.coordinator, "num_processes": config.num_processes}
    if config.process_id == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        host, _, port = config.coordinator.rpartition(":")
        try:
            family, *_, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
            socket.create_server(address, family=family).close()  # JAX says less of what is wrong
        except OSError as error:
            raise UserError(
                f"distributed.coordinator = {config.coordinator}: process 0 cannot listen there ({error.strerror}); "
                "take another port, or HOST as this machine's own address"
            ) from None
        place["coordinator_bind_address"] = f"[{address[0]}]:{port}" if ":" in address[0] else f"{address[0]}:{port}"
    return place | {"process_id": config.process_id}


def _absence(config: DistributedConfig, place: Mapping[str, Any]) -> str:
    """What is wrong where not all have come in time."""
    host, _, port = config.coordinator.rpartition(":")
    if config.process_id > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError as error:
            return (
                f"process 0 does not answer at {config.coordinator} within {config.timeout:g} s "
                f"({error.strerror or error}): start it there, or set distributed.coordinator to where it runs"
            )
    listens = (
        f"; process 0 listens at {place['coordinator_bind_address']}" if "coordinator_bind_address" in place else ""
    )
    return (
        f"not all processes came within {config.timeout:g} s: start all with the same distributed.coordinator and "
        f"distributed.num_processes{listens}"
    )


def _check_alike(seconds: float) -> None:
    """Check what must be alike before all else works; by the count of process 0, as theirs may differ."""
    import jax

    client, milliseconds = _service().client, int(seconds * 1000)
    own = {"distributed.num_processes": count(), "jaxfood": __version__, "jax": jax.__version__}
    client.key_value_set(f"jaxfood/start/{index()}", json.dumps(own))
    first = json.loads(client.blocking_key_value_get("jaxfood/start/0", milliseconds))
    others = range(1, first["distributed.num_processes"])
    told = [client.blocking_key_value_get(f"jaxfood/start/{process}", milliseconds) for process in others]
    _compare([first, *map(json.loads, told)])
