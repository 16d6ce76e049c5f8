"""The networks that PyTorch has too: their tensors' names and shapes there and here."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxfood.model import torchvision_resnet
from jaxfood.model.classifier import FEATURES, HIDDEN, WIDTH
from jaxfood.pytorch.layouts import Entry, Shape

_FIRST, _DENSE, _HEAD = "params/block1/kernel", "params/dense1/kernel", "params/head/kernel"  # these tell the sizes


@dataclasses.dataclass(frozen=True)
class Table:
    """A network's tensors, in the PyTorch module's order.

    Attributes:
        network: what it is, in words.
        model: the settings that make ours.
        entries: a line for each tensor that we have too.
        image_size: height and width of the square images that it takes; None: any.
    """

    network: str
    model: Mapping[str, Any]
    entries: Sequence[Entry]
    image_size: int | None = None

    @property
    def num_classes(self) -> int:
        """How many it tells apart."""
        return int(self.model["num_classes"])

    @property
    def parameters(self) -> list[Entry]:
        """What `model.parameters()` has, in its order: all but the running statistics."""
        return [entry for entry in self.entries if entry.flax.name.startswith("params/")]

    @property
    def parameter_names(self) -> list[str]:
        """Their names in PyTorch."""
        return [entry.torch.name for entry in self.parameters]

    @property
    def decay_groups(self) -> tuple[list[str], list[str]]:
        """The same in two groups, of which an optimizer may decay the first alone: weight matrices, and the rest."""
        matrices = [entry.torch.name for entry in self.parameters if len(entry.torch.shape) > 1]
        return matrices, [name for name in self.parameter_names if name not in matrices]

    @property
    def counters(self) -> dict[str, str]:
        """By each running variance's name that of BatchNorm's count of batches, which no leaf of ours has."""
        names = (entry.torch.name for entry in self.entries)
        return {name: name.replace("running_var", "num_batches_tracked") for name in names if "running_var" in name}


def classifier_table(shapes: Mapping[str, Shape]) -> Table:
    """The table of the notes' `Classifier`, of any width, image size and number of classes.

    Args:
        shapes: of our leaves, by name: their sizes tell the network's; where no image size has so many, the next
            smaller one is taken. Where some are missing, those of the smallest network.
    """
    width = (shapes.get(_FIRST) or (0,))[-1] * WIDTH // FEATURES[0] or WIDTH
    table = _classifier_table(width, shapes)
    if any(shapes.get(entry.flax.name) != entry.flax.shape for entry in table.entries):
        return _classifier_table(WIDTH, shapes)  # a mistake in a network of the notes' width rather than another
    return table


def _classifier_table(width: int, shapes: Mapping[str, Shape]) -> Table:
    scaled = [features * width // WIDTH for features in FEATURES]
    hidden = [max(1, features * width // WIDTH) for features in HIDDEN]
    entries: list[Entry] = []
    for i, (features_in, features) in enumerate(zip((3, *scaled), scaled, strict=False)):
        block = f"block{i + 1}"
        entries += _convolution(f"cnn.{4 * i}", block, features_in, features, 3)
        entries.append(Entry.of(f"cnn.{4 * i}.bias", f"params/{block}/bias", features))
        entries += _batch_norm(f"cnn.{4 * i + 1}", f"{block}/norm", features)

    # PyTorch flattens channel, height, width and Flax height, width, channel. Seen as a convolution over all the cells
    # it is given, the first linear layer has its axes moved as any convolution.
    channels = scaled[-1]
    side = max(1, math.isqrt(math.prod(shapes.get(_DENSE, (0,))) // hidden[0] // channels))
    num_classes = max(1, math.prod(shapes.get(_HEAD, (0,))) // hidden[1])
    cells = (hidden[0], channels, side, side)
    entries += [
        Entry.of("fc.0.weight", _DENSE, hidden[0], channels * side * side, view=cells),
        Entry.of("fc.0.bias", "params/dense1/bias", hidden[0]),
        *_linear("fc.2", "dense2", hidden[0], hidden[1]),
        *_linear("fc.4", "head", hidden[1], num_classes),
    ]
    model = {"name": "classifier", "num_classes": num_classes, "width": width}
    image_size = side * 2 ** len(FEATURES)  # each block halves it
    return Table("the notes' Classifier", model, entries, image_size)


def resnet_table(depth: int, shapes: Mapping[str, Shape]) -> Table:
    """The table of torchvision's residual network, of either stem; arguments as in `classifier_table`."""
    stem_size = 3 if shapes.get("params/conv1/kernel", ())[:2] == (3, 3) else 7
    features = torchvision_resnet.FEATURES
    entries = [*_convolution("conv1", "conv1", 3, features[0], stem_size), *_batch_norm("bn1", "bn1", features[0])]
    for name, before, after, stride in torchvision_resnet.blocks(depth):
        torch_name = name.replace("_", ".")
        for i, features_in in ((1, before), (2, after)):
            entries += _convolution(f"{torch_name}.conv{i}", f"{name}/conv{i}", features_in, after, 3)
            entries += _batch_norm(f"{torch_name}.bn{i}", f"{name}/bn{i}", after)
        if stride > 1 or before != after:
            entries += _convolution(f"{torch_name}.downsample.0", f"{name}/downsample_conv", before, after, 1)
            entries += _batch_norm(f"{torch_name}.downsample.1", f"{name}/downsample_bn", after)
    num_classes = max(1, math.prod(shapes.get(_HEAD, (0,))) // features[-1])
    entries += _linear("fc", "head", features[-1], num_classes)
    name, stem = f"resnet{depth}", "small" if stem_size == 3 else "imagenet"
    return Table(name, {"name": name, "num_classes": num_classes, "stem": stem}, entries)


MAKERS: Mapping[str, Callable[[Mapping[str, Shape]], Table]] = {  # by model.name
    "classifier": classifier_table,
    "resnet18": lambda shapes: resnet_table(18, shapes),
    "resnet34": lambda shapes: resnet_table(34, shapes),
}


def smallest_tables() -> list[Table]:
    """A table of each network, whose names depend on no size."""
    return [make({}) for make in MAKERS.values()]


def _convolution(torch_name: str, name: str, features_in: int, features: int, size: int) -> list[Entry]:
    return [Entry.of(f"{torch_name}.weight", f"params/{name}/kernel", features, features_in, size, size)]


def _batch_norm(torch_name: str, name: str, features: int) -> list[Entry]:
    # `BatchNorm2d` keeps the unbiased running variance, and so does ours.
    return [
        Entry.of(f"{torch_name}.weight", f"params/{name}/scale", features),
        Entry.of(f"{torch_name}.bias", f"params/{name}/bias", features),
        Entry.of(f"{torch_name}.running_mean", f"batch_stats/{name}/mean", features),
        Entry.of(f"{torch_name}.running_var", f"batch_stats/{name}/var", features),
    ]


def _linear(torch_name: str, name: str, features_in: int, features: int) -> list[Entry]:
    return [
        Entry.of(f"{torch_name}.weight", f"params/{name}/kernel", features, features_in),
        Entry.of(f"{torch_name}.bias", f"params/{name}/bias", features),
    ]
