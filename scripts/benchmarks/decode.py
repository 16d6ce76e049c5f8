"""Photographs decoded and resized a second: a loop over Pillow, as the notes have it, and jaxfood alone and in threads.

    python scripts/benchmarks/decode.py --images DIR [--image_size 128] [--limit 500] [--turns 5]

All take turns, whole passes over the same photographs, and the median pass is printed. Every decoder's bytes are
compared with Pillow's; `data.decode = "fast"` changes them, and how much is printed.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from measuring import Parser, Seconds, in_turns, positive, print_setting, print_table
from PIL import Image

from jaxfood import UserError
from jaxfood.data.decode import decode_picture
from jaxfood.data.index import index_pictures
from jaxfood.data.threads import available_cpus, map_in_threads

Decoder = Callable[[Sequence[Path], int], list[np.ndarray]]

FAST = "jaxfood, fast"
BILINEAR = Image.Resampling.BILINEAR


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="a folder of pictures, folders inside it included")
    parser.add_argument("--image_size", type=positive, default=128)
    parser.add_argument("--limit", type=int, default=500, help="photographs at most, spread over the folder; 0: all")
    parser.add_numbers(turns=5)
    arguments = parser.parse_args()
    if arguments.limit < 0:
        parser.error("--limit takes a number of photographs, or 0 for all")
    try:
        paths = index_pictures(arguments.images, labelled=False).paths
    except UserError as error:
        parser.error(str(error))
    if arguments.limit:
        paths = paths[:: -(-len(paths) // arguments.limit)]

    seconds, pictures = measure(all_decoders(), paths, arguments.image_size, arguments.turns)
    size = f"{len(paths)} photographs of {arguments.images} to {arguments.image_size} px"
    print_setting(f"{size}, median of {arguments.turns}\n")
    expected = next(iter(pictures.values()))
    differing = {name: count_differing(decoded, expected) for name, decoded in pictures.items()}
    baseline = next(iter(seconds.values())).core
    print_table(
        ("", "photographs/s", "a second of a core", "ratio", "not Pillow's bytes"),
        (
            (name, f"{len(paths) / clock:.0f}", f"{len(paths) / core:.0f}", f"{baseline / core:.2f}", differing[name])
            for name, (clock, core) in seconds.items()
        ),
    )
    changes = [np.abs(np.subtract(*pair, dtype=int)) for pair in zip(pictures[FAST], expected, strict=True)]
    print(f"\nfast: bytes change by {np.mean(changes):.2f} in the mean, by {np.max(changes)} at most")
    print_parts(paths[:: -(-len(paths) // 100)], arguments.image_size, arguments.turns)
    sys.exit(1 if any(count for name, count in differing.items() if name != FAST) else 0)


def all_decoders() -> dict[str, Decoder]:
    """The ways to decode a list of photographs; Pillow's is the first."""
    return {
        "Pillow's loop": lambda paths, size: [decode_by_pillow(path, size) for path in paths],
        "jaxfood": lambda paths, size: [decode_picture(path, size) for path in paths],
        f"jaxfood, {available_cpus()} threads": in_threads,
        FAST: lambda paths, size: [decode_picture(path, size, fast=True) for path in paths],
    }


def in_threads(paths: Sequence[Path], image_size: int) -> list[np.ndarray]:
    """As the cache decodes."""
    with closing(map_in_threads(partial(decode_picture, image_size=image_size), paths)) as decoded:
        return list(decoded)


def decode_by_pillow(path: Path, image_size: int) -> np.ndarray:
    """The notes' `Image.open` and torchvision's `Resize`, with the conversion to RGB that the notes lack."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((image_size, image_size), BILINEAR))


def measure(
    decoders: dict[str, Decoder], paths: Sequence[Path], image_size: int, turns: int
) -> tuple[dict[str, Seconds], dict[str, list[np.ndarray]]]:
    """Median seconds of a pass of each decoder, and its photographs."""
    pictures = {name: decode(paths, image_size) for name, decode in decoders.items()}  # fills the system's file cache
    works = {name: partial(decode, paths, image_size) for name, decode in decoders.items()}
    return in_turns(works, turns, warm_up=0), pictures


def count_differing(decoded: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> int:
    """How many photographs are not the same to the bit."""
    return sum(not np.array_equal(*pair) for pair in zip(decoded, expected, strict=True))


def print_parts(paths: Sequence[Path], image_size: int, turns: int) -> None:
    """What a core's second goes to, in Pillow's loop."""
    decoded = [Image.open(path).convert("RGB") for path in paths]
    works = {
        "decode": lambda: [load(path) for path in paths],
        "resize": lambda: [picture.resize((image_size, image_size), BILINEAR) for picture in decoded],
    }
    parts = [f"{name} {core / len(paths) * 1e3:.2f}" for name, (_, core) in in_turns(works, turns).items()]
    print(f"\nPillow's milliseconds a photograph: {', '.join(parts)}")


def load(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


if __name__ == "__main__":
    main()
