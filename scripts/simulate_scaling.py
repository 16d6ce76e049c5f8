"""Predicts the time of an update on 1 to 1,024 chips: what docs/scaling.md shows and explains.

    python scripts/simulate_scaling.py                              # the tables of the document
    python scripts/simulate_scaling.py --check 16                   # this machine: predicted against measured
    python scripts/simulate_scaling.py --measure_noise DIR [--run RUN]    # the gradient noise scale of photographs

Each operation takes the longer of its arithmetic and its memory traffic (a roofline), no chip waits for another but in
all-reduces, and a gradient's all-reduce starts as soon as it is known. So the times are the shortest that the hardware
allows, not those of a real program. Chips are described by their makers' figures; docs/scaling.md names the pages.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfood.config import load_config
from jaxfood.data.decode import decode_picture
from jaxfood.data.folder import index_pictures
from jaxfood.errors import UserError
from jaxfood.model.classifier import FEATURES, HIDDEN
from jaxfood.training.run import load_run
from jaxfood.training.state import TrainState, init_variables
from jaxfood.training.step import loss_fn, train_step

FLOAT32 = 4  # bytes of a parameter, a gradient and a moment
OPTIMIZER_PASSES = 8  # clipping reads the gradient; Adam reads it, the parameters and two moments, and writes three
CHIP_COUNTS = (1, 8, 64, 1024)
PICTURES = 9866  # of Food-11's training set
NOISE_BATCHES = 24, 32  # how many, and of how many pictures


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip and its network: seconds and bytes a second, one way, as each chip sends.

    Attributes:
        flops: peak a second, in the type that convolutions are computed in.
        memory: bytes a second to and from the chip's own memory.
        width: bytes of an activation.
        group: chips that the fast network joins (a pod, a machine).
        axes: of the fast network: 2 and 3 are tori, 1 is a ring.
        link: bytes a second that a chip sends on all its links of the fast network together.
        hop: seconds for the shortest message to the next chip.
        launch: seconds to begin an all-reduce.
        outer_link, outer_hop: the same between groups.
    """

    flops: float
    memory: float
    width: int = 2
    group: int = 1
    axes: int = 1
    link: float = math.inf
    hop: float = 0.0
    launch: float = 0.0
    outer_link: float = math.inf
    outer_hop: float = 0.0


CHIPS = {
    "TPU v5e": Chip(197e12, 819e9, group=256, axes=2, link=200e9, hop=1e-6, outer_link=3.1e9, outer_hop=20e-6),
    "TPU v6e": Chip(918e12, 1638e9, group=256, axes=2, link=400e9, hop=1e-6, outer_link=3.1e9, outer_hop=20e-6),
    "TPU v5p": Chip(459e12, 2765e9, group=8960, axes=3, link=600e9, hop=1e-6),
    "H100 SXM": Chip(989e12, 3350e9, group=8, link=450e9, hop=0.6e-6, launch=6.8e-6, outer_link=50e9, outer_hop=5e-6),
}


# The work of an update.


class Operation(NamedTuple):
    """Floating-point operations, and bytes read and written."""

    flops: float
    bytes: float


class Layer(NamedTuple):
    """The work of one layer for one chip's share of the batch.

    `parameters` are all; `gradient` those whose gradient is summed over the chips: not the bias of a convolution, which
    BatchNorm takes out again. `normalised` is the number of channels of BatchNorm, 0 without.
    """

    name: str
    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]
    parameters: int
    gradient: int
    normalised: int = 0


def layers(batch: int, image_size: int, num_classes: int = 11, width: int = 2) -> list[Layer]:
    """The classifier's layers for `batch` pictures, with activations of `width` bytes."""
    found, side, channels = [], image_size, 3
    for i, features in enumerate(FEATURES, start=1):
        found.append(_conv_block(f"block{i}", batch, side, channels, features, width))
        side, channels = side // 2, features
    inputs = side * side * channels
    for name, outputs in zip(("dense1", "dense2", "head"), (*HIDDEN, num_classes), strict=True):
        found.append(_dense(name, batch, inputs, outputs, width))
        inputs = outputs
    return found


def _conv_block(name: str, batch: int, side: int, channels: int, features: int, width: int) -> Layer:
    """Convolution, BatchNorm, pooling and ReLU. What goes element by element is fused with its neighbours."""
    pixels = batch * side * side
    kernel = 9 * channels * features
    before, after, pooled = width * pixels * channels, width * pixels * features, width * pixels * features // 4
    flops = 2 * pixels * kernel
    convolve = Operation(flops, before + after + width * kernel)
    normalise = Operation(0, 3 * after + pooled)  # the mean, the variance, and what follows
    unnormalise = Operation(0, 4 * after + 3 * pooled)  # two sums that depend on each other, and the gradient
    kernel_gradient = Operation(flops, before + after + FLOAT32 * kernel)
    # Nobody asks for the gradient of the pictures.
    input_gradient = (convolve,) if name != "block1" else ()
    backward = (unnormalise, kernel_gradient, *input_gradient)
    return Layer(name, (convolve, normalise), backward, kernel + 3 * features, kernel + 2 * features, features)


def _dense(name: str, batch: int, inputs: int, outputs: int, width: int) -> Layer:
    kernel = inputs * outputs
    flops, values = 2 * batch * kernel, width * batch * (inputs + outputs)
    product = Operation(flops, values + width * kernel)
    kernel_gradient = Operation(flops, values + FLOAT32 * kernel)
    return Layer(name, (product,), (kernel_gradient, product), kernel + outputs, kernel + outputs)


def optimizer(network: Sequence[Layer]) -> Operation:
    """Clipping and Adam; their arithmetic is nothing beside their memory traffic."""
    return Operation(0, OPTIMIZER_PASSES * FLOAT32 * sum(layer.parameters for layer in network))


def flops(network: Sequence[Layer]) -> tuple[float, float]:
    """Of the forward pass and of the whole update: products only, as the field counts."""
    forward = sum(operation.flops for layer in network for operation in layer.forward)
    return forward, forward + sum(operation.flops for layer in network for operation in layer.backward)


def reduced_bytes(network: Sequence[Layer]) -> tuple[int, int]:
    """Bytes that an update sums over the chips: of gradients, and of BatchNorm's two sums forward and two backward."""
    gradients = sum(layer.gradient for layer in network)
    return FLOAT32 * gradients, FLOAT32 * 4 * sum(layer.normalised for layer in network)


# The time of an update.


class Times(NamedTuple):
    """Seconds of an update. All but `all_reduce`, of which `gradients` is the part that nothing hides, add up."""

    compute: float  # operations that wait for arithmetic
    memory: float  # operations that wait for memory
    batch_norm: float
    gradients: float
    all_reduce: float

    @property
    def total(self) -> float:
        return self.compute + self.memory + self.batch_norm + self.gradients


def sent_bytes(size: float, chips: float) -> float:
    """Bytes that each chip sends to all-reduce `size` bytes on a ring, the least possible (Patarasuk and Yuan 2009)."""
    return 2 * (chips - 1) / chips * size


def all_reduce_seconds(chip: Chip, size: float, chips: int) -> float:
    """All-reduce of `size` bytes: within each group, and of every chip's own share of it between the groups.

    Messages go through an axis of the fast network one chip after another, there and back, and between groups through
    a tree.
    """
    if chips == 1:
        return 0.0
    inner = min(chips, chip.group)
    outer = chips / inner
    transfer = sent_bytes(size, inner) / chip.link + sent_bytes(size / inner, outer) / chip.outer_link
    hops = chip.axes * (inner ** (1 / chip.axes) - 1)
    return chip.launch + transfer + 2 * (hops * chip.hop + math.log2(outer) * chip.outer_hop)


def simulate(chip: Chip, chips: int, batch_per_chip: int, image_size: int) -> Times:
    """One update of the global batch: parameters and optimizer state on every chip, BatchNorm over the global batch."""
    network = layers(batch_per_chip, image_size, width=chip.width)
    spent = {"compute": 0.0, "memory": 0.0, "batch_norm": 0.0}
    links_free = all_reduce = 0.0

    def run(operations: Sequence[Operation]) -> None:
        for operation in operations:
            arithmetic, traffic = operation.flops / chip.flops, operation.bytes / chip.memory
            spent["compute" if arithmetic > traffic else "memory"] += max(arithmetic, traffic)

    def synchronise(layer: Layer) -> None:
        if layer.normalised:
            spent["batch_norm"] += 2 * all_reduce_seconds(chip, FLOAT32 * layer.normalised, chips)

    for layer in network:
        run(layer.forward)
        synchronise(layer)
    for layer in reversed(network):
        synchronise(layer)
        run(layer.backward)
        seconds = all_reduce_seconds(chip, FLOAT32 * layer.gradient, chips)
        links_free = max(links_free, sum(spent.values())) + seconds
        all_reduce += seconds
    waited = max(0.0, links_free - sum(spent.values()))  # clipping needs every gradient before the first can be used
    run([optimizer(network)])
    return Times(**spent, gradients=waited, all_reduce=all_reduce)


def best_batch(chip: Chip, chips: int, image_size: int, noise_scale: float) -> tuple[int, float]:
    """The global batch with which `chips` learn the fastest, and the seconds for the progress of one noiseless update.

    A batch of B needs 1 + noise_scale / B updates for it (McCandlish et al. 2018, section 2.2), each at the best
    learning rate for that batch.
    """

    def seconds(batch: int) -> float:
        return (1 + noise_scale / batch) * simulate(chip, chips, batch // chips, image_size).total

    batches = [chips * 2**i for i in range(14) if chips * 2**i <= PICTURES]
    best = min(batches, key=seconds)
    return best, seconds(best)


# Tables.


def tables(image_size: int, batch_per_chip: int, global_batch: int, noise_scale: float) -> Iterator[str]:
    """The document's tables, in Markdown."""
    yield f"## The work: one picture of {image_size} px\n"
    yield from _table(("layer", "parameters", "MFLOP forward", "MFLOP update"), _work_rows(image_size))
    network = layers(1, image_size)
    gradients, moments = reduced_bytes(network)
    yield f"\nall-reduced in an update: {gradients / 1e6:.2f} MB of gradients, {moments / 1e3:.1f} kB for BatchNorm"
    yield f"memory traffic of the optimizer: {optimizer(network).bytes / 1e6:.0f} MB an update"
    header = ("chip", "chips", "global batch", "step", "compute", "memory", "BatchNorm", "gradients", "(all-reduce)")
    for name, share in (
        (f"Weak scaling: {batch_per_chip} pictures a chip", lambda chips: batch_per_chip),
        (f"Strong scaling: {global_batch} pictures", lambda chips: global_batch // chips),
    ):
        yield f"\n## {name}, times in milliseconds\n"
        yield from _table((*header, "images/s", "efficiency"), _scaling_rows(image_size, share))
    yield f"\n## Learning: the best batch for a noise scale of {noise_scale:g}\n"
    learning = ("chip", "chips", "best global batch", "step, ms", "times as fast", "times the pictures")
    yield from _table(learning, _learning_rows(image_size, noise_scale))


def _work_rows(image_size: int) -> Iterator[tuple[str, ...]]:
    network = layers(1, image_size)
    for name, part in [*((layer.name, [layer]) for layer in network), ("all", network)]:
        parameters = sum(layer.parameters for layer in part)
        yield name, f"{parameters:,}", *(f"{count / 1e6:,.1f}" for count in flops(part))


def _scaling_rows(image_size: int, share: Callable[[int], int]) -> Iterator[tuple[str, ...]]:
    for name, chip in CHIPS.items():
        alone = simulate(chip, 1, share(1), image_size).total / share(1)
        for chips in CHIP_COUNTS:
            batch = share(chips) * chips
            if not batch:
                continue
            times = simulate(chip, chips, share(chips), image_size)
            rate = batch / times.total
            columns = [f"{1e3 * seconds:.3f}" for seconds in (times.total, *times)]
            yield name, f"{chips:,}", f"{batch:,}", *columns, f"{rate:,.0f}", f"{rate * alone / chips:.0%}"


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


# Measurements on this machine.


class Check(NamedTuple):
    """This device as a chip, and an update predicted for it and measured, in seconds."""

    chip: Chip
    predicted: Times
    measured: float


def check(batch: int, image_size: int, repeats: int = 7, side: int = 4096) -> Check:
    """An update predicted from this device's own FLOP/s and bytes a second, and measured.

    A product of two matrices of `side` rows, passes over as much memory as 4 of them take, and updates take turns, so
    that a machine whose speed drifts slows them all; the medians count.
    """
    rng = np.random.default_rng(0)
    config = load_config(overrides=(f"data.image_size={image_size}",))
    images = jnp.asarray(rng.integers(0, 256, (batch, image_size, image_size, 3), np.uint8))
    pictures = {"image": images, "label": jnp.asarray(rng.integers(0, 11, batch, np.int32))}
    state = TrainState.create(config, init_variables(config), total_steps=1000)
    matrix = jnp.asarray(rng.normal(size=(side, side)), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # fresh memory would measure the operating system
    numbers = jnp.zeros(4 * side**2, jnp.float32)
    passes = 8

    def use_memory() -> jax.Array:
        nonlocal numbers
        for _ in range(passes):
            numbers = add(numbers)
        return numbers

    def update() -> TrainState:
        nonlocal state
        state, _ = train_step(state, pictures)
        return state

    works = (lambda: multiply(matrix, matrix), use_memory, update)
    seconds = np.array([[_seconds(work) for work in works] for _ in range(repeats + 1)])[1:]  # the first compiles
    product, memory, measured = np.median(seconds, axis=0)
    chip = Chip(2 * side**3 / product, 2 * passes * numbers.nbytes / memory, width=FLOAT32)
    times = simulate(chip, 1, batch, image_size)
    return Check(chip, times, measured)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def measure_noise(folder: Path, run: Path | None, batches: int, batch_size: int) -> tuple[float, float]:
    """The gradient noise scale at a run's best weights, or at new ones, and its standard error (jackknife).

    BatchNorm sees `batch_size` pictures at a time, as in a training with batches of that size.
    """
    index = index_pictures(folder)
    if run:
        _, variables, config = load_run(run)
    else:
        config = load_config("hw3")
        variables = init_variables(config)
    chosen = np.random.default_rng(0).permutation(len(index.paths))[: batches * batch_size]
    state = TrainState.create(config, variables, total_steps=1)
    gradient = jax.jit(
        jax.grad(lambda params, batch: loss_fn(state.model, state.loss, params, state.batch_stats, batch)[0])
    )

    def of(rows: np.ndarray) -> np.ndarray:
        images = np.stack([decode_picture(index.paths[row], config.data.image_size) for row in rows])
        return np.asarray(ravel_pytree(gradient(state.params, {"image": images, "label": index.labels[rows]}))[0])

    found = np.stack([of(rows) for rows in chosen.reshape(batches, batch_size)])
    gram = found @ found.T
    kept = [np.delete(np.arange(batches), left_out) for left_out in range(batches)]
    estimates = np.array([noise_scale(gram[np.ix_(rows, rows)], batch_size) for rows in kept])
    error = math.sqrt((batches - 1) * np.mean(np.square(estimates - estimates.mean())))
    return noise_scale(gram, batch_size), error


def noise_scale(gram: np.ndarray, batch_size: int) -> float:
    """tr(covariance of a picture's gradient) / |mean gradient|^2 (McCandlish et al. 2018, B_simple).

    `gram` `[N, N]` has the inner products of the gradients of N independent batches: on its diagonal is on average
    |mean|^2 + tr / batch_size, elsewhere |mean|^2.
    """
    count = len(gram)
    diagonal = np.trace(gram) / count
    elsewhere = (gram.sum() - np.trace(gram)) / (count * (count - 1))
    return batch_size * (diagonal / elsewhere - 1)


def _check_lines(batch: int, image_size: int) -> Iterator[str]:
    chip, predicted, measured = check(batch, image_size)
    yield f"{jax.devices()[0].device_kind}: {chip.flops / 1e9:.0f} GFLOP/s, {chip.memory / 1e9:.1f} GB/s"
    yield f"an update of {batch} pictures of {image_size} px, float32:"
    yield f"predicted {predicted.total:.3f} s ({predicted.compute:.3f} arithmetic, {predicted.memory:.3f} memory)"
    yield f"measured {measured:.3f} s, {measured / predicted.total:.2f} times as long"


def _noise_lines(folder: Path, run: Path | None) -> Iterator[str]:
    scale, error = measure_noise(folder, run, *NOISE_BATCHES)
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
    sizes = (arguments.image_size, arguments.batch_per_chip, arguments.global_batch, arguments.check or 1)
    if min(sizes) < 1 or arguments.image_size % 32 or arguments.noise_scale < 0:
        parser.error("give positive numbers, and an --image_size divisible by 32")
    try:
        if arguments.check:
            lines = _check_lines(arguments.check, arguments.image_size)
        elif arguments.measure_noise:
            lines = _noise_lines(arguments.measure_noise, arguments.run)
        else:
            lines = tables(*sizes[:3], arguments.noise_scale)
        for line in lines:
            print(line, flush=True)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
