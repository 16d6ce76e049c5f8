"""What the processes of test_processes.py do: `python distributed_worker.py SCENARIO ARGUMENT ...`."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def join(coordinator: str, count: str, process: str, timeout: str, version: str = "") -> None:
    """Start as one of several, perhaps of another jaxfood's processes, and tell the others so."""
    from jaxfood import processes
    from jaxfood.config.distributed import DistributedConfig

    processes.__version__ = version or processes.__version__
    processes.start(DistributedConfig(coordinator, int(count), int(process), float(timeout)))
    print(processes.share(f"from {process}"))


def steps(coordinator: str, count: str, process: str, behaviour: str) -> None:
    """Count steps until all stop, or do something worse before; slower by process."""
    from jaxfood import processes
    from jaxfood.config.distributed import DistributedConfig
    from jaxfood.errors import UserError
    from jaxfood.training.interrupt import StopRequest

    if "own" in behaviour:  # a program of the user's that starts JAX itself
        import jax

        jax.distributed.initialize(coordinator, int(count), int(process))
    else:
        processes.start(DistributedConfig(coordinator, int(count), int(process), timeout=60))
    for _ in range(2 if "twice" in behaviour else 1):
        with StopRequest() as stop:
            for step in range(100_000):
                time.sleep(0.002 * (int(process) + 1))
                if stop.reached(step):
                    print(step)
                    break
                if step == 20 and "signal" in behaviour:
                    os.kill(os.getpid(), signal.SIGTERM)
                if step == 20 and "die" in behaviour:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step == 20 and behaviour == "mistake":
                    raise UserError("a mistake")
                if step == 20 and behaviour == "fault":
                    raise TypeError("a fault")
                if step == 20 and behaviour == "gloo":
                    raise ValueError("UNKNOWN: Gloo all-reduce failed")  # so it says where another has died
                if step == 20 and behaviour == "exit":
                    sys.exit(3)
                if step == 20 and behaviour in ("end", "end late", "end and wait"):
                    break
    if behaviour == "end late":
        time.sleep(8)
    if behaviour == "end and wait":
        processes.barrier()


def own_training(coordinator: str, count: str, process: str, root: str, workdir: str) -> None:
    """Train in a program that starts JAX itself and keeps its preemption service."""
    import jax

    import jaxfood

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.distributed.initialize(coordinator, int(count), int(process))
    settings = {"data.root": root, "data.image_size": 32, "data.cache_dir": f"{root}.cache", "model.num_classes": 3}
    settings |= {"train.batch_size": 8, "train.epochs": 100, "logging.progress": "false"}
    config = jaxfood.load_config(None, tuple(f"{name}={value}" for name, value in settings.items()))
    try:
        jaxfood.train_and_evaluate(config, workdir)
    except KeyboardInterrupt as interrupt:
        print(interrupt)


def api(folder: str, pictures: str) -> None:
    """What `jaxfood.processes` and the cache do, written to `folder/PROCESS.json`."""
    from jaxfood import processes
    from jaxfood.config.distributed import DistributedConfig

    processes.start(DistributedConfig())
    own = processes.index()
    found: dict[str, object] = {"count": processes.count(), "first": processes.is_first()}
    found["shared"] = [processes.share(f"from {own}"), processes.share("")]
    found["mistakes"] = [mistakes_of(), mistakes_of(0), mistakes_of(1), mistakes_of(0, 1)]
    found["difference"] = difference_found()
    found["folders"] = [processes.share_folder(Path(folder) / name) for name in ("everybody's", f"{own}'s")]
    found |= caching(Path(folder), pictures, own)
    found["stopped"] = stopped_at(asked=own == 1)
    (Path(folder) / f"{own}.json").write_text(json.dumps(found))


def mistakes_of(*those: int) -> str:
    """What this process is told where those make a mistake."""
    from jaxfood import processes
    from jaxfood.errors import UserError

    try:
        with processes.together():
            if processes.index() in those:
                raise UserError("no such disk")
            with processes.together():  # where others wait meanwhile
                processes.barrier()
    except UserError as error:
        return str(error)
    return ""


def difference_found() -> str:
    """What is said of a value that is another one in each process."""
    from jaxfood import processes
    from jaxfood.errors import UserError

    try:
        processes.check_same({"same": [1.5], "other": processes.index()})
    except UserError as error:
        return str(error)
    return ""


def caching(folder: Path, pictures: str, own: int) -> dict[str, object]:
    """What each way to load the pictures gives, and which of them this process decoded."""
    from jaxfood import processes
    from jaxfood.data import cache
    from jaxfood.data.index import index_pictures
    from jaxfood.errors import UserError

    decoded: list[str] = []
    decode = cache.decode_file_or_reason

    def decode_and_tell(path: Path, **options: Any) -> object:
        decoded.append(path.name)
        return decode(path, **options)

    cache.decode_file_or_reason = decode_and_tell  # type: ignore[assignment]

    def load(cache_dir: str, skip_corrupt: bool) -> object:
        decoded.clear()
        index, where = index_pictures(pictures), folder / cache_dir
        try:
            options = {"cache_dir": where, "skip_corrupt": skip_corrupt, "progress": False}
            loaded = processes.first_then_all(lambda: cache.load_pictures(index, 16, **options), where)
        except UserError as error:
            return str(error)
        skipped = [path.name for path in loaded.skipped]
        return {"decoded": sorted(decoded), "skipped": skipped, "images": loaded.images.tolist()}

    return {
        "strict": load("cache", skip_corrupt=False),
        "decoding": load("cache", skip_corrupt=True),
        "cached": load("cache", skip_corrupt=True),
        "own cache": load(f"cache of {own}", skip_corrupt=True),
    }


def stopped_at(*, asked: bool) -> int | None:
    """The step that the processes stop at; one of them gets Ctrl-C at step 20."""
    from jaxfood.training.interrupt import StopRequest

    with StopRequest() as stop:
        for step in range(100_000):
            time.sleep(0.001)
            if step == 20 and asked:
                os.kill(os.getpid(), signal.SIGINT)
            if stop.reached(step):
                return step
    return None


if __name__ == "__main__":
    from jaxfood import cli

    scenario, *given = sys.argv[1:]
    cli.run(lambda _: {"join": join, "steps": steps, "own_training": own_training, "api": api}[scenario](*given))
