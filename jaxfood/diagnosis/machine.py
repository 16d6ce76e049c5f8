"""Versions, memory, caches, and whether a training step works."""

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from jaxfood.diagnosis import in_words, lines_on
from jaxfood.places import is_folder
from jaxfood.version import __version__

_NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
_OPTIONAL = {  # and what for
    "torch": "PyTorch's .ckpt, .pt and .pth",
    "matplotlib": "pictures of lessons, landscape, preview",
    "scikit-learn": "evaluate",
    "tensorboardX": "logging.tensorboard",
    "tensorflow-datasets": "data.source = tfds:NAME",
    "onnx": "export",
    "starlette": "serve",
    "wandb": "logging.wandb",
    "mlflow-skinny": "logging.mlflow",
    "gcsfs": "gs:// buckets",
}
_PRODUCT_SIDE = 2048
_SECONDS = 1.0  # of matrix products


def describe_versions() -> Iterator[str]:
    """jaxfood, Python, system, packages."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield f"jaxfood {__version__}, Python {platform.python_version()}, {system}"
    there = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    lines = [", ".join(f"{name} {version or 'MISSING'}" for name, version in there.items() if name in _NEEDED)]
    if has := [f"{name} {there[name]}" for name in _OPTIONAL if there[name]]:
        lines.append(f"optional: {', '.join(has)}")
    if lacks := [f"{name} ({use})" for name, use in _OPTIONAL.items() if not there[name]]:
        lines.append(f"not installed, and needed only for: {', '.join(lacks)}")
    yield from lines_on("packages", lines)


def describe_memory() -> Iterator[str]:
    """Cores and memory."""
    memory = _free_and_all_memory()
    told = f"{in_words(memory[0])} free of {in_words(memory[1])}" if memory else "not told by this system"
    yield from lines_on("memory", [f"{told}; {_cores()} CPU cores for this process"])


def describe_caches() -> Iterator[str]:
    """Where decoded pictures and compiled steps are kept, how much they take, and the room that is left."""
    from jaxfood.data.cache_folder import default_cache_dir

    folder = default_cache_dir()
    if not is_folder(folder):
        yield from lines_on("cache", [f"{folder}: not there yet; the first training makes it"])
        return
    sizes = {path.name: _size(path) for path in sorted(folder.iterdir())}
    compiled = sizes.pop("compiled", 0)
    free = shutil.disk_usage(folder).free
    lines = [
        f"{folder}: decoded pictures {in_words(sum(sizes.values()))} in {len(sizes)} files and folders, compiled steps "
        f"{in_words(compiled)}; {in_words(free)} free on that disk",
        "all of it can be deleted while nothing trains: it is made again",
    ]
    yield from lines_on("cache", lines)


def describe_step() -> Iterator[str]:
    """An update of a small network, and how fast a matrix product is: this takes some seconds."""
    import jax
    import numpy as np

    from jaxfood.config import load_config
    from jaxfood.model.fused import onednn
    from jaxfood.model.networks import init_variables
    from jaxfood.training.state import TrainState
    from jaxfood.training.step import train_step

    config = load_config(None, ("model.width=8", "model.num_classes=3", "data.image_size=32"))
    batch = {"image": np.zeros((8, 32, 32, 3), np.uint8), "label": np.arange(8) % 3}
    state = TrainState.create(config, init_variables(config), total_steps=2)
    start = time.perf_counter()
    state, metrics = train_step(state, batch)
    first, loss = time.perf_counter() - start, float(metrics["loss"])
    start = time.perf_counter()
    state, metrics = train_step(state, batch)
    jax.block_until_ready(metrics)
    second = time.perf_counter() - start
    verdict = "works" if np.isfinite(loss) else f"does NOT work: its loss is {loss}"
    lines = [
        f"an update of a small network {verdict} (compiled or found compiled in {first:.1f} s, then {1e3 * second:.0f} "
        "ms)",
        f"a matrix product reaches {_product_speed() / 1e9:,.0f} GFLOP/s in float32 on one device",
    ]
    yield from lines_on("step", [*lines, *filter(None, [onednn.describe()])])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_and_all_memory() -> tuple[int, int] | None:
    """Bytes, of the container where that has less than the machine; None: the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    told = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    free, everything = told["MemAvailable"], told["MemTotal"]
    limits = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    try:
        most, used = (int(path.read_text(encoding="utf-8")) for path in limits)
    except (OSError, ValueError):  # no such limit, or "max"
        return free, everything
    return min(free, most - used), min(everything, most)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())


def _product_speed() -> float:
    """FLOP/s of a product of two matrices, the best within a second."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((_PRODUCT_SIDE, _PRODUCT_SIDE), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    seconds, end = list[float](), time.perf_counter() + _SECONDS
    while not seconds or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return 2 * _PRODUCT_SIDE**3 / min(seconds)
