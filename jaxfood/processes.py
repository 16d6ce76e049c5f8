"""Several processes that train one model: how they start, agree on what went wrong, and end.

Everything here works in a single process too, where it costs nothing.
"""

import errno
import itertools
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jaxfood.config.distributed import AUTO, NONE, DistributedConfig
from jaxfood.errors import UserError, bounded, printable, written_otherwise
from jaxfood.files import is_remote
from jaxfood.monitor import HEARTBEAT_SECONDS, catch_abort, monitor, service
from jaxfood.terminal import end_at_once
from jaxfood.version import __version__

_LONG = 7 * 24 * 3600 * 1000  # milliseconds for others who are at work; the monitor sees to it that they live
_LONGEST_TOLD = 2**24  # characters: settings of a run, a mistake's line, a digest; a bound on a stranger's
_STRANGER = (
    "what process {} is to tell the others was told by somebody else, or by another jaxfood: start all processes with "
    "the same, and let nobody else reach the port of distributed.coordinator"
)

Result = TypeVar("Result")

_joining = False  # in a thread that nothing stops
_meetings = itertools.count()


def start(config: DistributedConfig) -> None:
    """Join the other processes, if there are any. Before JAX's first computation, in every process.

    From then on this process ends, with exit status `monitor.LOST` and one line, when another one does before its time.

    Raises:
        UserError: the others did not come, or another program has the port, or two processes are not alike.
    """
    global _joining
    place: dict[str, Any] = {}
    if config.coordinator not in ("", AUTO, NONE):
        place = _place(config)
    elif config.coordinator == NONE or (not config.coordinator and not _started_together(os.environ)):
        return
    import jax

    # On CPU: one program at a time, or the collectives of two that run at once take each other's messages (gloo).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM out of Python's reach
    place |= {"initialization_timeout": int(config.timeout) + 60, "heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    _joining = True
    if config.process_id > 0:
        catch_abort()
    try:  # in a thread, as Ctrl-C would not end it, and within our time, as JAX aborts at the end of its own
        _within(config.timeout, partial(jax.distributed.initialize, **place))
    except TimeoutError:
        raise UserError(_absence(config, place)) from None
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"JAX cannot join the processes ({str(error).splitlines()[0]}): set distributed.coordinator to HOST:PORT "
            "of process 0, or to none"
        ) from None
    _joining = False
    if monitor():
        service().client.key_value_set(f"jaxfood/count/{index()}", str(count()))
        of_first = _read_count(service().client.blocking_key_value_get("jaxfood/count/0", _LONG))
        alike = {"distributed.num_processes": count(), "jaxfood": __version__, "jax": jax.__version__}
        _check_same(_share(json.dumps(alike), among=of_first))


def count() -> int:
    """How many processes train together."""
    return service().num_processes if service().client else 1


def index() -> int:
    """Which of them this is, from 0 on."""
    return service().process_id if service().client else 0


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
        _share("", bounded(str(problem or "")))


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
    _check_same(share(json.dumps(dict(values))))


def leave(status: int, reason: str) -> None:
    """Where there are other processes, end this one, which ends them too. It has had its say; they give the reason."""
    if _joining:
        end_at_once(status)
    if watcher := monitor():
        watcher.part(reason)
        end_at_once(status)  # at once: JAX would wait for the others first


class _SharedError(UserError):
    """A user's mistake that all processes raise at the same place."""


def _share(text: str, problem: str = "", among: int | None = None) -> list[str]:
    watcher, client, place = monitor(), service().client, f"jaxfood/{next(_meetings)}"
    assert watcher
    watcher.waits = True
    try:
        client.key_value_set(f"{place}/{index()}", json.dumps([text, problem]))
        every = range(among or count())
        told = [_read_told(client.blocking_key_value_get(f"{place}/{process}", _LONG), process) for process in every]
    except RuntimeError as error:
        if "ALREADY_EXISTS" in str(error):
            raise UserError(_STRANGER.format(index())) from None
        watcher.end_work(error)
        raise
    finally:
        watcher.waits = False
    problems = [problem for _, problem in told]
    for process, said in enumerate(problems):
        if said:
            everywhere = all(other == said for other in problems)
            raise _SharedError(said if everywhere else f"process {process}: {said}")
    return [text for text, _ in told]


def _read_told(text: str, process: int) -> tuple[str, str]:
    """The two texts that a process told; whoever reaches the port of the coordinator can write there too."""
    try:
        told = json.loads(text) if len(text) <= _LONGEST_TOLD else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, list) or len(told) != 2 or not all(isinstance(part, str) for part in told):
        raise UserError(_STRANGER.format(process))
    return told[0], told[1]


def _read_count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,4}", text):
        raise UserError("process 0 tells no number of processes: start all processes with the same jaxfood")
    return int(text)


def _check_same(texts: list[str]) -> None:
    first, *others = map(_read_values, texts)
    for process, theirs in enumerate(others, start=1):
        for name, value in first.items():
            if theirs.get(name) != value:
                one, other = (bounded(printable(each), 1000) for each in (value, theirs.get(name)))
                alike = written_otherwise(str(value), str(theirs.get(name)))
                raise UserError(
                    f"{name} is {one} in process 0 and {other} in process {process}{alike}: "
                    "start all processes with the same"
                )


def _read_values(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    return values if isinstance(values, dict) else {}


def _started_together(environment: Mapping[str, str]) -> bool:
    """Whether Slurm or a TPU pod started this process as one of several."""
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "")
    return (tasks.isdecimal() and int(tasks[:9]) > 1) or "," in workers


def _place(config: DistributedConfig) -> dict[str, Any]:
    """What JAX takes of it. Process 0 listens at the coordinator's address, where JAX would at all of the machine."""
    place = {"coordinator_address": config.coordinator, "num_processes": config.num_processes}
    if config.process_id == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        try:
            found = _within(config.timeout, partial(socket.getaddrinfo, *config.host_and_port, type=socket.SOCK_STREAM))
            family, *_, address = found[0]
            socket.create_server(address, family=family).close()  # JAX's own error does not say what is wrong
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"distributed.coordinator = {config.coordinator}: process 0 cannot listen there ({why}); "
                "take another port, or as HOST an address of this machine"
            ) from None
        host, port = map(str, address[:2])
        place["coordinator_bind_address"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return place | {"process_id": config.process_id}


def _within(seconds: float, ask: Callable[[], Result]) -> Result:
    """What a function returns that waits for the network and hears neither a deadline nor Ctrl-C.

    Raises:
        TimeoutError: it has not returned in time, and stays in its thread.
        Exception: what the function raises.
    """
    answer: Future[Result] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001  # raised below
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    deadline = time.monotonic() + seconds
    # Again and again: Python hears a signal that came just before it began to wait only when it ends waiting.
    while not answer.done() and (left := deadline - time.monotonic()) > 0:
        futures.wait([answer], min(left, 0.2))
    if not answer.done():
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    return answer.result()


def _absence(config: DistributedConfig, place: Mapping[str, Any]) -> str:
    """What is wrong where not all processes came in time."""
    problem, where = "not all processes came to", place.get("coordinator_bind_address", config.coordinator)
    if config.process_id > 0:
        try:
            _within(2, lambda: socket.create_connection(config.host_and_port, timeout=1).close())
        except (OSError, UnicodeError):
            problem = "process 0 does not answer at"
    return (
        f"{problem} {where} within {config.timeout:g} s: start all with the same distributed.num_processes, and with "
        "the address of process 0 as distributed.coordinator"
    )
