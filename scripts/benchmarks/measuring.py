"""What the benchmarks share: their arguments, random pictures, the machine, measuring in turns, tables."""

import argparse
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
Work = Callable[[], object]  # ends when the device has done it

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy", "scipy", "pillow")
GIB = 2**30


# Arguments.


class Parser(argparse.ArgumentParser):
    """The arguments of a script, whose docstring is its help."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_numbers(self, **defaults: int | tuple[int, ...]) -> None:
        """Options of positive numbers; a tuple is given with commas. `image_size` is what the network can halve."""
        for name, default in defaults.items():
            kind = divisible_by_32 if name == "image_size" else numbers if isinstance(default, tuple) else positive
            self.add_argument(f"--{name}", type=kind, default=default, help="divisible by 32" * (name == "image_size"))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"give a positive number, not {text}")
    return number


def divisible_by_32(text: str) -> int:
    number = positive(text)
    if number % 32:
        raise argparse.ArgumentTypeError(f"give a size divisible by 32, not {text}")
    return number


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


def need_torch() -> None:
    if not find_spec("torch"):
        sys.exit("torch is missing, and the comparison is with PyTorch: pip install torch")


def random_pictures(count: int, image_size: int, num_classes: int = 11) -> dict[str, np.ndarray]:
    """A batch, uint8: the speed does not depend on what pictures show."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, image_size, image_size, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, num_classes, count, np.int32)}


# What a number belongs to.


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
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def print_setting(*more: str) -> None:
    print(machine(), versions(), *more, sep="\n", flush=True)


# Measuring.


class Seconds(NamedTuple):
    """By the clock, and of a core: of all threads together, which hardly change when others use the machine too."""

    clock: float
    core: float

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.clock - other.clock, self.core - other.core)


def timed(work: Work) -> Seconds:
    clock, core = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - clock, time.process_time() - core)


def in_turns(works: Mapping[str, Work], turns: int, warm_up: int = 1) -> dict[str, Seconds]:
    """Median seconds of each work. All take turns, so that a machine whose speed drifts slows them all."""
    for work in works.values():
        for _ in range(warm_up):
            work()
    measured = [[timed(work) for work in works.values()] for _ in range(turns)]
    return {name: median(of_work) for name, of_work in zip(works, zip(*measured, strict=True), strict=True)}


def median(measured: Iterable[Seconds]) -> Seconds:
    return Seconds(*map(statistics.median, zip(*measured, strict=True)))


def peak_memory() -> int:
    """Bytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alone(function: Callable[..., T], *arguments: Any, seconds: float | None = None) -> T:
    """`function(*arguments)` in a new process, which has the device for itself and gives its memory back.

    Raises:
        TimeoutError: it takes more than so many seconds, and was killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result(seconds)
        except TimeoutError:
            for process in active_children():
                process.kill()
            raise


# Tables.


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines of Markdown, each as soon as its row is there."""
    yield _line(header)
    yield f"|{'---|' * len(header)}"
    yield from map(_line, rows)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for line in table(header, rows):
        print(line, flush=True)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
