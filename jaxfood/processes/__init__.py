"""Several processes that train one model: how they start, agree on what went wrong, and end.

Everything here works in a single process too, where it costs nothing.
"""

import atexit
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from jaxfood.config.distributed import AUTO, NONE, DistributedConfig
from jaxfood.errors import UserError
from jaxfood.files import is_remote
from jaxfood.processes.links import Links
from jaxfood.processes.meeting import Wire, connect, gather, listen
from jaxfood.version import __version__

_WAIT_MILLISECONDS = 7 * 24 * 3600 * 1000  # for others who are at work; the links see to it that they live

Result = TypeVar("Result")

_links: Links | None = None
_meetings = itertools.count()


def start(config: DistributedConfig) -> None:
    """Join the other processes, if there are any. Before JAX's first computation, in every process.

    From then on this process ends, with exit status `links.LOST` and one line, when another one does before its time.

    Raises:
        UserError: the others did not come, or another program has the port, or two processes are not alike.
    """
    if config.coordinator == AUTO or (not config.coordinator and _started_together(os.environ)):
        process, wires = _start_as_detected(config)
    elif config.coordinator in ("", NONE):
        return
    else:
        process, wires = _start_at(config)
    if wires:
        global _links
        _links = Links(process, wires)
        atexit.register(_part)


def count() -> int:
    """How many processes train together."""
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is, from 0 on."""
    import jax

    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and shows what all of them know."""
    return index() == 0


def share(text: str) -> list[str]:
    """The texts of all processes, in their order. All must call it, and it waits for all.

    It goes through JAX's coordination service, not through the devices, so nothing is compiled and nothing times out.

    Raises:
        UserError: instead of coming here another process raised it, inside the same `together`.
    """
    return [text] if count() == 1 else _share(text, problem="")


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


class _SharedError(UserError):
    """A user's mistake that all processes raise at the same place."""


def _share(text: str, problem: str) -> list[str]:
    client, place = _client(), f"jaxfood/{next(_meetings)}"
    client.key_value_set(f"{place}/{index()}", json.dumps([text, problem]))
    client.wait_at_barrier(f"{place}/all", _WAIT_MILLISECONDS)
    found = {int(key.rpartition("/")[2]): json.loads(value) for key, value in client.key_value_dir_get(place)}
    problems = [found[process][1] for process in range(count())]
    for process, said in enumerate(problems):
        if said:
            everywhere = all(other == said for other in problems)
            raise _SharedError(said if everywhere else f"process {process}: {said}")
    return [found[process][0] for process in range(count())]


def check_same(values: Mapping[str, Any]) -> None:
    """Check that all processes have the same values of the same names, of types that JSON has.

    Raises:
        UserError: in every process, naming the first difference.
    """
    first, *others = map(json.loads, share(json.dumps(dict(values))))
    for process, theirs in enumerate(others, start=1):
        for name, value in first.items():
            if theirs.get(name) != value:
                raise UserError(
                    f"{name} is {value} in process 0 and {theirs.get(name)} in process {process}: "
                    "start all processes with the same"
                )


def share_folder(folder: Path) -> bool:
    """Whether all processes see the same files in a folder, which the first makes if need be; no, if it cannot."""
    if count() == 1 or is_remote(folder):
        return True
    token = folder / f".{share(secrets.token_hex(8))[0]}.tmp"
    if is_first():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
    barrier()
    seen = share("seen" if token.exists() else "")
    if is_first():
        with suppress(OSError):
            token.unlink(missing_ok=True)
    return all(seen)


def first_then_all(work: Callable[[], Result], folder: Path) -> Result:
    """Work that leaves its result in a folder, done once where all processes see the same folder, else by each.

    All must call it. The first does the work; then the others call `work` too, which finds it done.
    """
    if count() == 1 or not share_folder(folder):
        return work()
    result: Result | None = None
    with together():
        if is_first():
            result = work()
    with together():
        if not is_first():
            result = work()
    return cast(Result, result)


def ask_to_stop() -> None:
    """Ask all processes to stop at one step, see `reached_stop`. For signal handlers."""
    if _links:
        _links.ask_to_stop()


def reached_stop(step: int) -> bool:
    """Whether the processes have agreed to stop at `step` or before it. All must ask, after the same steps."""
    return _links is not None and _links.reached(step)


def leave(status: int, reason: str) -> None:
    """Where there are other processes, end this one, which ends them too. It has had its say; they give the reason."""
    if _links:
        sys.stderr.flush()
        _links.leave(status, reason)


def wait_for_news() -> None:
    """Wait a second where another process' death may be what is wrong here: the links then end this one."""
    if _links:
        time.sleep(1)


def _part() -> None:
    """At the end of Python: part from the others, or leave them if it is an error's."""
    if _links and hasattr(sys, "last_value"):
        _links.leave(1, "by a fault that its own output shows")
    if _links:
        _links.part()


def _started_together(environment: Mapping[str, str]) -> bool:
    """Whether Slurm or a TPU pod started this process as one of several."""
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1 or "," in workers


def _start_at(config: DistributedConfig) -> tuple[int, dict[int, Wire]]:
    """Meet at the coordinator's address, then start JAX's service at another port."""
    host, _, port = config.coordinator.rpartition(":")
    seconds, process = config.timeout, config.process_id
    if process:
        wire, service_port = connect(host, int(port), process, _greeting(config.num_processes), seconds)
        wires = {0: wire}
    else:
        try:
            listener = listen(int(port))
        except OSError as error:
            raise UserError(
                f"distributed.coordinator = {config.coordinator}: process 0 cannot listen there ({error.strerror}); "
                "take another port"
            ) from None
        with listener:
            wires = gather(listener, config.num_processes, _greeting(config.num_processes), seconds)
        with listen(0) as free:
            service_port = free.getsockname()[1]
        for wire in wires.values():
            wire.send("welcome", service_port)
    _initialize(coordinator_address=f"{host}:{service_port}", num_processes=config.num_processes, process_id=process)
    return process, wires


def _start_as_detected(config: DistributedConfig) -> tuple[int, dict[int, Wire]]:
    """Start JAX as the cluster says, then meet where process 0 lets the others know."""
    import jax

    try:
        _initialize(initialization_timeout=int(config.timeout))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"JAX finds no other processes ({str(error).splitlines()[0]}): set distributed.coordinator to HOST:PORT of "
            "process 0, or to none"
        ) from None
    processes, process = jax.process_count(), jax.process_index()
    if processes == 1:
        return 0, {}
    client = _client()
    if process:
        host, port = json.loads(client.blocking_key_value_get("jaxfood/meeting", int(config.timeout * 1000)))
        wire, _ = connect(host, port, process, _greeting(processes), config.timeout)
        return process, {0: wire}
    with listen(0) as listener:
        client.key_value_set("jaxfood/meeting", json.dumps([_own_address(), listener.getsockname()[1]]))
        wires = gather(listener, processes, _greeting(processes), config.timeout)
    for wire in wires.values():
        wire.send("welcome")
    return process, wires


def _initialize(**arguments: Any) -> None:
    import jax

    # On CPU: one program at a time, or the collectives of two that run at once take each other's messages (gloo).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.distributed.initialize(**arguments)
    if threading.current_thread() is threading.main_thread():
        # JAX has put a handler of its own in place of the system's, behind Python's back: SIGTERM would do nothing.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _greeting(processes: int) -> dict[str, Any]:
    """What must be alike in all processes."""
    import jax

    return {"distributed.num_processes =": processes, "jaxfood": __version__, "jax": jax.__version__}


def _own_address() -> str:
    """This machine's address in the network that its default route leads to. (Connecting by UDP sends nothing.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737)
        except OSError:
            return socket.gethostname()
        return probe.getsockname()[0]


def _client() -> Any:
    """The client of JAX's coordination service; JAX itself has no public name for it."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()
