"""What the benchmarks share: the machine and versions that a number belongs to, and a process for one measurement."""

import importlib.util
import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy", "scipy")


def machine() -> str:
    """The device and the CPU. JAX takes the device's memory when it is asked, so ask in the process that computes."""
    import jax

    cpu, cpuinfo = platform.processor(), Path("/proc/cpuinfo")  # the first is empty on Linux, which has the second
    if cpuinfo.exists():
        names = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = next(iter(names), cpu)
    return f"{jax.devices()[0].device_kind} ({jax.default_backend()}); CPU {cpu}, {os.cpu_count()} cores"


def versions() -> str:
    """Of Python and the packages that are installed."""
    packages = [name for name in PACKAGES if importlib.util.find_spec(name)]
    return ", ".join([f"python {platform.python_version()}"] + [f"{name} {version(name)}" for name in packages])


def alone(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """`function(...)` in a new process, which has the device for itself and gives its memory back."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **keywords).result()
