"""Predicts the time of an update on 1 to 1,024 chips: what docs/scaling.md shows and explains.

    python scripts/scaling/simulate_scaling.py               # the tables of the document
    python scripts/scaling/simulate_scaling.py --check 16    # this machine: predicted against measured
    python scripts/scaling/simulate_scaling.py --measure_noise DIR [--run RUN]    # gradient noise scale of photographs

Each operation takes the longer of its arithmetic and its memory traffic (a roofline), no chip waits for another but in
all-reduces, and a gradient's all-reduce starts as soon as it is known. So the times are the shortest that the hardware
allows, not those of a real program. Chips are described by their makers' figures; docs/scaling.md names the pages.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
from scaling_measurements import check, measure_noise
from scaling_model import CHIPS, best_batch, flops, layers, optimizer, reduced_bytes, simulate

from jaxfood import UserError, load_config, load_run
from jaxfood.data.index import index_pictures
from jaxfood.model.networks import init_variables

CHIP_COUNTS = (1, 8, 64, 1024)
NOISE_BATCHES = 24, 32  # how many, and of how many pictures


def tables(image_size: int, batch_per_chip: int, global_batch: int, noise_scale: float) -> Iterator[str]:
    """The document's tables, in Markdown."""
    yield f"## The work: one picture of {image_size} px\n"
    yield from _table(("layer", "parameters", "MFLOP forward", "MFLOP update"), _work_rows(image_size))
    network = layers(1, image_size)
    gradients, moments = reduced_bytes(network)
    yield f"\nall-reduced in an update: {gradients / 1e6:.2f} MB of gradients, {moments / 1e3:.1f} kB for BatchNorm"
    yield f"memory traffic of the optimizer: {optimizer(network).bytes / 1e6:.0f} MB an update"
    header = ("chip", "chips", "global batch", "step", "compute", "memory", "BatchNorm", "gradients", "(all-reduce)")
    for name, batch_of_a_chip in (
        (f"Weak scaling: {batch_per_chip} pictures a chip", lambda chips: batch_per_chip),
        (f"Strong scaling: {global_batch} pictures", lambda chips: global_batch // chips),
    ):
        yield f"\n## {name}, times in milliseconds\n"
        yield from _table((*header, "images/s", "efficiency"), _scaling_rows(image_size, batch_of_a_chip))
    yield f"\n## Learning: the best batch for a noise scale of {noise_scale:g}\n"
    learning = ("chip", "chips", "best global batch", "step, ms", "times as fast", "times the pictures")
    yield from _table(learning, _learning_rows(image_size, noise_scale))


def _work_rows(image_size: int) -> Iterator[tuple[str, ...]]:
    network = layers(1, image_size)
    for name, part in [*((layer.name, [layer]) for layer in network), ("all", network)]:
        parameters = sum(layer.parameters for layer in part)
        yield name, f"{parameters:,}", *(f"{count / 1e6:,.1f}" for count in flops(part))


def _scaling_rows(image_size: int, batch_of_a_chip: Callable[[int], int]) -> Iterator[tuple[str, ...]]:
    for name, chip in CHIPS.items():
        alone = simulate(chip, 1, batch_of_a_chip(1), image_size).total / batch_of_a_chip(1)
        for chips in CHIP_COUNTS:
            batch = batch_of_a_chip(chips)
            if not batch:
                continue
            times = simulate(chip, chips, batch, image_size)
            rate = batch * chips / times.total
            columns = [f"{1e3 * seconds:.3f}" for seconds in (times.total, *times)]
            yield name, f"{chips:,}", f"{batch * chips:,}", *columns, f"{rate:,.0f}", f"{rate * alone / chips:.0%}"


def _learning_rows(image_size: int, noise_scale: float) -> Iterator[tuple[str, ...]]:
    for name, chip in CHIPS.items():
        first, alone = best_batch(chip, 1, image_size, noise_scale)
        for chips in (1, 2, 4, 8, 16, 64, 1024):
            batch, seconds = best_batch(chip, chips, image_size, noise_scale)
            step = 1e3 * simulate(chip, chips, batch // chips, image_size).total
            pictures = (batch + noise_scale) / (first + noise_scale)
            yield name, f"{chips:,}", f"{batch:,}", f"{step:.3f}", f"{alone / seconds:.2f}", f"{pictures:.2f}"


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for line in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(line)} |"


def _check_lines(batch: int, image_size: int) -> Iterator[str]:
    chip, predicted, measured = check(batch, image_size)
    yield f"{jax.devices()[0].device_kind}: {chip.flops / 1e9:.0f} GFLOP/s, {chip.memory / 1e9:.1f} GB/s"
    yield f"an update of {batch} pictures of {image_size} px, float32:"
    yield f"predicted {predicted.total:.3f} s ({predicted.compute:.3f} arithmetic, {predicted.memory:.3f} memory)"
    yield f"measured {measured:.3f} s, {measured / predicted.total:.2f} times as long"


def _noise_lines(folder: Path, run: Path | None) -> Iterator[str]:
    index = index_pictures(folder)
    if run:
        _, variables, config = load_run(run)
    else:
        config = load_config("hw3")
        variables = init_variables(config)
    scale, error = measure_noise(index, config, variables, *NOISE_BATCHES)
    yield f"gradient noise scale {scale:.0f} +- {error:.0f} pictures ({NOISE_BATCHES[0]} batches of {NOISE_BATCHES[1]})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    parser.add_argument("--batch_per_chip", type=int, default=64, help="of weak scaling")
    parser.add_argument("--global_batch", type=int, default=1024, help="of strong scaling")
    parser.add_argument("--noise_scale", type=float, default=200, help="pictures")
    parser.add_argument("--check", type=int, metavar="BATCH", help="measure an update of so many pictures here")
    parser.add_argument("--measure_noise", type=Path, metavar="DIR", help="labelled photographs")
    parser.add_argument("--run", type=Path, help="weights for --measure_noise; by default new ones")
    arguments = parser.parse_args()
    sizes = (arguments.image_size, arguments.batch_per_chip, arguments.global_batch)
    positive = sizes if arguments.check is None else (*sizes, arguments.check)
    if min(positive) < 1 or arguments.image_size % 32 or arguments.noise_scale < 0:
        parser.error("give positive numbers, and an --image_size divisible by 32")
    try:
        if arguments.check:
            lines = _check_lines(arguments.check, arguments.image_size)
        elif arguments.measure_noise:
            lines = _noise_lines(arguments.measure_noise, arguments.run)
        else:
            lines = tables(*sizes, arguments.noise_scale)
        for line in lines:
            print(line, flush=True)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
