"""Who of several processes lives, and where all of them stop: a thread in each shows the others how it stands.

It goes through the key-value store of JAX's coordination service, which process 0 carries. Whoever reaches its port can
write there: what is read is believed only where it is what one of these processes could have written, and at most
`LONGEST_VALUE` characters of it are looked at.
"""

import atexit
import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from jaxfood.errors import UserError, bounded, printable
from jaxfood.terminal import end_at_once

LOST = 75  # exit status where another process has ended: sysexits' EX_TEMPFAIL, "try again later"
HEARTBEAT_SECONDS = 20  # JAX's own; later than ours, as JAX ends the others by SIGABRT under a C++ stack trace

# A process counts as dead after 10 s without a sign of its thread. That thread needs the GIL, which whatever takes long
# here (compiling, copying, reading, waiting for others) gives up.
LONGEST_VALUE = 2**16  # characters; ours have some hundreds, a user's mistake up to 4,000
_INTERVAL = 0.5  # seconds between two looks at the others
_DEAD, _ENDING, _UNREACHABLE = 20, 10, 4  # looks without news from another process, after which this one ends
_DIED = "has died or can no longer be reached"
_DONE = "its own work was done"
_REFUSED = (
    b"error: process 0 refused this one, or ended before all had come: give each process its own "
    b"distributed.process_id, and all the same distributed.num_processes\n"
)

_monitor: "Monitor | None" = None


def service() -> Any:
    """JAX's own `client` (None before the start), `num_processes`, `process_id`: private in JAX, 0.10 to 0.12."""
    from jax._src import distributed

    return distributed.global_state


def monitor() -> "Monitor | None":
    """That of this process, where it is one of several.

    It starts when it is first needed, as a program may have called `jax.distributed.initialize` itself.
    """
    global _monitor
    if _monitor is None and service().client and service().num_processes > 1:
        _monitor = Monitor()
        atexit.register(_part)
    return _monitor


@dataclass
class Status:
    """How a process stands, as it shows the others."""

    looks: int = 0  # counts while it lives
    work: int = 0  # which one; each has its own stop
    wants_stop: bool = False
    step: int | None = None  # the last before it waits until all have agreed on a step to stop at
    end: str = ""  # why it ends


def process_of(key: str, count: int) -> int | None:
    """The number of the process whose key this is, one of `count`; None: nobody's."""
    number = key.rpartition("/")[2]
    return int(number) if re.fullmatch("0|[1-9][0-9]{0,8}", number) and int(number) < count else None


def read_status(text: str) -> Status | None:
    """What a process showed; None: no process of this version wrote that."""
    try:
        values = json.loads(text) if len(text) <= LONGEST_VALUE else None
    except (ValueError, RecursionError):
        return None
    kinds = {"looks": int, "work": int, "wants_stop": bool, "step": int | None, "end": str}
    if not isinstance(values, dict) or values.keys() != kinds.keys():
        return None
    if any(
        not isinstance(values[name], kind) or (kind is not bool and isinstance(values[name], bool))
        for name, kind in kinds.items()
    ):
        return None
    if not all(0 <= values[name] < 2**63 for name in ("looks", "work")) or not -1 <= (values["step"] or 0) < 2**63:
        return None
    return Status(**values)


class Monitor:
    """A thread that shows how this process stands and sees how the others do, whatever the main thread waits for.

    What follows from how all stand, each process works out by itself.
    """

    def __init__(self) -> None:
        self.status = Status()
        self.waits = False  # for what the others have to say
        self.broken = False  # off, before its work was done
        self._own, self._count, self._client = service().process_id, service().num_processes, service().client
        self._seen: dict[int, Status] = {}
        self._heard: set[int] = set()  # of whom the last look found a status
        self._silent: dict[int, int] = {}  # for how many looks each process has shown nothing new
        self._steps = threading.Condition()
        self._step, self._stop_at = -1, -1
        self._parting = threading.Event()
        catch_abort()
        self._look()  # now, so that a death is missed that comes early
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def begin_work(self) -> None:
        """Work begins that all do step by step, and that `ask_to_stop` in any of them stops."""
        with self._steps:
            self.status = Status(self.status.looks, self.status.work + 1)
            self._step, self._stop_at = -1, -1

    def end_work(self, error: BaseException | None) -> None:
        """The work is done, or ends here by an error. Where that may tell of another's death, that is waited for."""
        self.broken = isinstance(error, SystemExit)
        # Gloo meets a death at once: a ValueError where a result is read, else a JaxRuntimeError (jax 0.10, 0.12).
        if isinstance(error, ValueError | RuntimeError) and not isinstance(error, UserError):
            time.sleep((_DEAD + 4) * _INTERVAL)

    def ask_to_stop(self) -> None:
        """For signal handlers: takes no lock."""
        self.status.wants_stop = True

    def reached(self, step: int) -> bool:
        """Whether `step` is the one to stop at, or a later one. All must ask, after the same steps.

        It waits only while the step is being agreed on, which the threads do among themselves.
        """
        with self._steps:
            self._step = step
            self._steps.wait_for(lambda: self.status.step is None or self._stop_at >= 0)
            return 0 <= self._stop_at <= step

    def part(self, reason: str) -> None:
        """Show the others why this process ends, and look no longer."""
        self.status.end = bounded(reason)
        self._parting.set()
        self._thread.join()

    def lose(self, process: int, how: str = _DIED) -> NoReturn:
        """End this process, as another one has ended."""
        self.status.end = f"process {process} {how}"
        end = bounded(printable(self.status.end))
        line = f"error: {end}, so this one stops too; start all again with --resume to go on\n"
        os.write(2, line.encode())
        if (process, how) != (0, _DIED):  # with it the service is gone
            self._take_leave()
        end_at_once(LOST)

    def _watch(self) -> None:
        failures = 0
        while not self._parting.wait(_INTERVAL):
            try:
                self._look()
            except RuntimeError:
                failures += 1
                if service().client is not self._client:  # the program has shut it down
                    return
                if failures == _UNREACHABLE:
                    self.lose(0)
            else:
                failures = 0
                self.status.looks += 1
                self._agree()
                self._miss()
        self._take_leave()

    def _look(self) -> None:
        self._client.key_value_set(f"jaxfood/status/{self._own}", json.dumps(asdict(self.status)), True)
        self._heard = set()
        for key, text in self._client.key_value_dir_get("jaxfood/status/"):
            process, status = process_of(key, self._count), read_status(text)
            if process is None or status is None:  # none of ours; whose it replaces is silent, and missed in time
                continue
            silent = status == self._seen.get(process)
            self._silent[process] = self._silent.get(process, 0) + 1 if silent else 0
            self._seen[process] = status
            self._heard.add(process)

    def _agree(self) -> None:
        """Where some process wants to stop: wait after a step, until all do, then stop one step after the last."""
        with self._steps:
            own, everyone = self.status, self._seen.values()
            if own.step is None and any(other.wants_stop and other.work == own.work for other in everyone):
                own.step = self._step
            elif own.step is not None and any(other.end and other.step is None for other in everyone):
                self._stop_at = sys.maxsize  # the work is done in some process, so it can be in all
            elif len(everyone) == self._count and all(s.work == own.work and s.step is not None for s in everyone):
                self._stop_at = 1 + max(status.step for status in everyone if status.step is not None)
            self._steps.notify_all()

    def _miss(self) -> None:
        for process in self._seen.keys() - self._heard:  # a value that is none of ours stands in its place
            self._silent[process] += 1
        for process, status in self._seen.items():
            if not status.end and self._silent[process] >= _DEAD:
                self.lose(process)
            if status.end and self._silent[process] >= _ENDING and (status.end != _DONE or self.waits):
                self.lose(process, f"has stopped ({bounded(status.end)})")

    def _take_leave(self) -> None:
        """Show why this process ends. Process 0 goes last: without the service JAX would abort the others."""
        with suppress(RuntimeError):
            self._look()
            for _ in range(_DEAD if self._own == 0 and self.status.end != _DONE else 0):
                time.sleep(_INTERVAL)
                self._look()
                if all(status.end or self._silent[process] >= _ENDING for process, status in self._seen.items()):
                    break


def _part() -> None:
    """At the end of Python: part from the others, or leave them if it is an error's."""
    assert _monitor
    if _monitor.broken or hasattr(sys, "last_value"):
        _monitor.part("by a fault that its own output shows")
        end_at_once(1)
    _monitor.part(_DONE)


def catch_abort() -> None:
    """By way of C, where it runs in the thread that aborts: Python would leave it to the main thread, which waits."""
    if os.name != "posix":  # Windows has no such way to the process's own C library
        return
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(signal_number: int) -> None:
    """JAX's C++ gives up: the service refuses this process, or answers no longer. Other faults take their course."""
    if not _monitor:
        os.write(2, _REFUSED)
        end_at_once(2)
    looks = _monitor.status.looks
    time.sleep((_UNREACHABLE + 2) * _INTERVAL)
    if _monitor.status.looks < looks + 2:
        _monitor.lose(0)
