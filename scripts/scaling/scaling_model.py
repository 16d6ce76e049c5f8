"""The model behind simulate_scaling.py: the work of an update, chips, and the time that it takes them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxfood.model.classifier import FEATURES, HIDDEN

FLOAT32 = 4  # bytes of a parameter, a gradient and a moment
OPTIMIZER_PASSES = 8  # clipping reads the gradient; Adam reads it, the parameters and two moments, and writes three
PICTURES, NUM_CLASSES = 9866, 11  # of Food-11's training set


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


def layers(batch: int, image_size: int, width: int = 2) -> list[Layer]:
    """The classifier's layers for `batch` pictures, with activations of `width` bytes."""
    found, side, channels = [], image_size, 3
    for i, features in enumerate(FEATURES, start=1):
        found.append(_conv_block(f"block{i}", batch, side, channels, features, width))
        side, channels = side // 2, features
    inputs = side * side * channels
    for name, outputs in zip(("dense1", "dense2", "head"), (*HIDDEN, NUM_CLASSES), strict=True):
        found.append(_dense(name, batch, inputs, outputs, width))
        inputs = outputs
    return found


def _conv_block(name: str, batch: int, side: int, channels: int, features: int, width: int) -> Layer:
    """Convolution, pooling, BatchNorm and ReLU. What goes element by element is fused with its neighbours.

    The passes are those of `jaxfood.model`: what BatchNorm normalises, and its sums in the backward pass, are pooled.
    """
    pixels = batch * side * side
    kernel = 9 * channels * features
    before, after, pooled = width * pixels * channels, width * pixels * features, width * pixels * features // 4
    marks = pixels * features // 4  # a byte for each pooled value: which of four it is, or whether ReLU lets it pass
    flops = 2 * pixels * kernel
    convolve = Operation(flops, before + after + width * kernel)
    moments = Operation(0, after)
    normalise = Operation(0, after + 2 * pooled + 2 * marks)  # reads the output; writes it pooled, and normalised
    sums = Operation(0, 2 * pooled + marks)
    output_gradient = Operation(0, 2 * after + 2 * pooled + marks)
    kernel_gradient = Operation(flops, before + after + FLOAT32 * kernel)
    # Nobody asks for the gradient of the pictures.
    input_gradient = (convolve,) if name != "block1" else ()
    backward = (sums, output_gradient, kernel_gradient, *input_gradient)
    return Layer(name, (convolve, moments, normalise), backward, kernel + 3 * features, kernel + 2 * features, features)


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
