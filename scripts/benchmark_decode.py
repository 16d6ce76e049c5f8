"""Photographs decoded and resized a second: a loop over Pillow, as the notes have it, and jaxfood alone and in threads.

    python scripts/benchmark_decode.py --images DIR [--image_size 128] [--limit 500] [--turns 5]

All take turns, whole passes over the same photographs, and the median pass is printed: photographs by the clock, and
by seconds of a core (of all threads together), which hardly change when others use the machine too. Every way's bytes
are compared with Pillow's.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from measuring import machine, versions
from PIL import Image

from jaxfood.data.decode import decode_picture
from jaxfood.data.index import index_pictures
from jaxfood.data.threads import available_cpus, map_in_threads
from jaxfood.errors import UserError

Decode = Callable[[Path, int], np.ndarray]
Way = Callable[[Sequence[Path], int], list[np.ndarray]]

BILINEAR = Image.Resampling.BILINEAR


class Seconds(NamedTuple):
    """Of one pass over all photographs."""

    clock: float
    core: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures, folders inside it included")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--limit", type=int, default=500, help="photographs at most, spread over the folder; 0: all")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    if min(arguments.image_size, arguments.turns) < 1 or arguments.limit < 0:
        parser.error("give positive numbers")
    try:
        paths = index_pictures(arguments.images, labelled=False).paths
    except UserError as error:
        parser.error(str(error))
    if arguments.limit:
        paths = paths[:: -(-len(paths) // arguments.limit)]

    ways = all_ways()
    seconds, differing = measure(ways, paths, arguments.image_size, arguments.turns)
    print(f"{machine()}\n{versions()}, pillow {PIL.__version__}")
    print(f"{len(paths)} photographs of {arguments.images} to {arguments.image_size} px, median of {arguments.turns}\n")
    print("| | photographs/s | a second of a core | ratio | not Pillow's bytes |\n|---|---|---|---|---|")
    baseline = next(iter(seconds.values())).core
    for name, (clock, core) in seconds.items():
        ratio = baseline / core
        print(f"| {name} | {len(paths) / clock:.0f} | {len(paths) / core:.0f} | {ratio:.2f} | {differing[name]} |")
    print_shares(paths, arguments.image_size, arguments.turns)
    sys.exit(1 if any(differing.values()) else 0)


def all_ways() -> dict[str, Way]:
    """The ways to decode a list of photographs; Pillow's is the first."""
    return {
        "Pillow's loop": partial(in_a_loop, decode_by_pillow),
        "jaxfood": partial(in_a_loop, decode_picture),
        f"jaxfood, {available_cpus()} threads": in_threads,
    }


def in_a_loop(decode: Decode, paths: Sequence[Path], image_size: int) -> list[np.ndarray]:
    return [decode(path, image_size) for path in paths]


def in_threads(paths: Sequence[Path], image_size: int) -> list[np.ndarray]:
    """As the cache decodes."""
    with closing(map_in_threads(partial(decode_picture, image_size=image_size), paths)) as decoded:
        return list(decoded)


def decode_by_pillow(path: Path, image_size: int) -> np.ndarray:
    """The notes' `Image.open` and torchvision's `Resize`, with the conversion to RGB that the notes lack."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((image_size, image_size), BILINEAR))


def measure(
    ways: dict[str, Way], paths: Sequence[Path], image_size: int, turns: int
) -> tuple[dict[str, Seconds], dict[str, int]]:
    """Median seconds of a pass, and how many photographs differ from the first way's, all ways taking turns."""
    pictures = {name: way(paths, image_size) for name, way in ways.items()}  # which also fills the system's file cache
    expected = next(iter(pictures.values()))
    differing = {
        name: sum(not np.array_equal(one, other) for one, other in zip(of_way, expected, strict=True))
        for name, of_way in pictures.items()
    }
    passes: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            passes[name].append(timed(lambda way=way: way(paths, image_size)))
    medians = {name: Seconds(*map(statistics.median, zip(*of_way, strict=True))) for name, of_way in passes.items()}
    return medians, differing


def print_shares(paths: Sequence[Path], image_size: int, turns: int) -> None:
    """What a core's second goes to, in Pillow's loop."""
    few = paths[:: -(-len(paths) // 100)]
    decoded = [Image.open(path).convert("RGB") for path in few]
    decoding = statistics.median(timed(lambda: [load(path) for path in few]).core for _ in range(turns))
    resizing = statistics.median(
        timed(lambda: [picture.resize((image_size, image_size), BILINEAR) for picture in decoded]).core
        for _ in range(turns)
    )
    print(f"\nPillow's milliseconds a photograph: decode {decoding / len(few) * 1e3:.2f}, ", end="")
    print(f"resize {resizing / len(few) * 1e3:.2f}")


def load(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def timed(work: Callable[[], object]) -> Seconds:
    clock, core = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - clock, time.process_time() - core)


if __name__ == "__main__":
    main()
