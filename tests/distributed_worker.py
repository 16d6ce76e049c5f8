"""What the processes of test_processes.py do: `python distributed_worker.py SCENARIO ARGUMENT ...`."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def links(port: str, count: str, process: str, behaviour: str) -> None:
    """Meet without JAX, then count steps until all stop, or do something worse before."""
    from jaxfood.processes.links import Links
    from jaxfood.processes.meeting import connect, gather, listen

    own, wires = int(process), {}
    if own:
        wires[0], _ = connect("127.0.0.1", int(port), own, {}, seconds=30)
    else:
        wires = gather(listen(int(port)), int(count), {}, seconds=30)
        for wire in wires.values():
            wire.send("welcome")
    held = Links(own, wires)
    for step in range(100_000):
        time.sleep(0.002 * (own + 1))
        if held.reached(step):
            print(step)
            held.part()
            return
        if step == 20 and behaviour == "ask":
            held.ask_to_stop()
        if step == 20 and behaviour == "leave":
            held.leave(2, "error: a mistake")
        if step == 20 and behaviour == "die":
            os.kill(os.getpid(), signal.SIGKILL)


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
    decode = cache.decode_picture

    def decode_and_tell(path: Path, image_size: int) -> object:
        decoded.append(path.name)
        return decode(path, image_size)

    cache.decode_picture = decode_and_tell  # type: ignore[assignment]

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
    cli.run(lambda _: {"links": links, "api": api}[scenario](*given))
