"""Which tensor of PyTorch's is which leaf of ours: a network's table of names and shapes, for both directions."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

from jaxfood.errors import UserError
from jaxfood.model.classifier import FEATURES, HIDDEN
from jaxfood.pytorch.layouts import Entry, Shape, flat_leaves

# What DataParallel, torch.compile, FSDP and activation checkpointing put before the names inside them.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_DENSE, _HEAD = "params/dense1/kernel", "params/head/kernel"  # their sizes tell the image's, and the classes' number


@dataclasses.dataclass(frozen=True)
class Table:
    """A network's tensors, in the PyTorch module's order.

    Attributes:
        network: what it is, in words.
        entries: a line for each tensor that we have too.
        image_size: height and width of the square images that it takes.
        num_classes: how many it tells apart.
    """

    network: str
    entries: Sequence[Entry]
    image_size: int
    num_classes: int

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


def make_table(sizes: Mapping[str, int] | None = None) -> Table:
    """The table of the notes' `Classifier`. Its names depend on no size.

    `BatchNorm2d` keeps the unbiased running variance, and so does ours.

    Args:
        sizes: how many numbers our leaves hold, by name; where no image size has so many, the next smaller one is
            taken. None: of the smallest model.
    """
    sizes = sizes or {}
    entries, channels = [], 3
    for i, features in enumerate(FEATURES):
        conv, norm, block = f"cnn.{4 * i}", f"cnn.{4 * i + 1}", f"block{i + 1}"
        entries += [
            Entry.of(f"{conv}.weight", f"params/{block}/kernel", features, channels, 3, 3),
            Entry.of(f"{conv}.bias", f"params/{block}/bias", features),
            Entry.of(f"{norm}.weight", f"params/{block}/norm/scale", features),
            Entry.of(f"{norm}.bias", f"params/{block}/norm/bias", features),
            Entry.of(f"{norm}.running_mean", f"batch_stats/{block}/norm/mean", features),
            Entry.of(f"{norm}.running_var", f"batch_stats/{block}/norm/var", features),
        ]
        channels = features

    # PyTorch flattens channel, height, width and Flax height, width, channel. Seen as a convolution over all the cells
    # it is given, the first linear layer has its axes moved as any convolution.
    side = max(1, math.isqrt(sizes.get(_DENSE, 0) // HIDDEN[0] // channels))
    num_classes = max(1, sizes.get(_HEAD, 0) // HIDDEN[1])
    cells = (HIDDEN[0], channels, side, side)
    entries += [
        Entry.of("fc.0.weight", _DENSE, HIDDEN[0], channels * side * side, view=cells),
        Entry.of("fc.0.bias", "params/dense1/bias", HIDDEN[0]),
        Entry.of("fc.2.weight", "params/dense2/kernel", HIDDEN[1], HIDDEN[0]),
        Entry.of("fc.2.bias", "params/dense2/bias", HIDDEN[1]),
        Entry.of("fc.4.weight", _HEAD, num_classes, HIDDEN[1]),
        Entry.of("fc.4.bias", "params/head/bias", num_classes),
    ]
    image_size = side * 2 ** len(FEATURES)  # each block halves it
    return Table("the notes' Classifier", entries, image_size, num_classes)


def table_of_variables(variables: Mapping[str, Any]) -> Table:
    """`fitted_table` of `{"params": ..., "batch_stats": ...}`."""
    return fitted_table({name: leaf.shape for name, leaf in flat_leaves(variables).items()}, "flax")


def plain_name(name: str) -> str:
    """A tensor's name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def fitted_table(shapes: Mapping[str, Shape], side: Literal["torch", "flax"]) -> Table:
    """The table of the sizes that arrays have, given their shapes under the names of one side.

    Raises:
        UserError: an array is missing, unexpected or of the wrong shape.
    """
    array_of = attrgetter(side)
    table = make_table()
    names = {array_of(entry).name: entry.flax.name for entry in table.entries}
    problems = listed("missing ", (name for name in names if name not in shapes))
    problems += listed("unexpected ", (shown(name) for name in sorted(set(shapes) - set(names))))
    if not problems:
        table = make_table({names[name]: math.prod(shape) for name, shape in shapes.items()})
        pairs = ((name, shapes[name], right) for name, right in map(array_of, table.entries))
        wrong = (f"{name} has shape {list(has)}, expected {list(right)}" for name, has, right in pairs if has != right)
        problems = listed("", wrong)
    if problems:
        raise UserError(f"{'; '.join(problems)}: give the weights of {table.network}")
    return table


def listed(what: str, names: Iterable[str], limit: int = 6) -> list[str]:
    """One line of the first few names and how many more there are; none for none."""
    items = list(names)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [what + ", ".join(items[:limit]) + more] if items else []


def shown(text: str, limit: int = 80) -> str:
    """What a stranger's file calls something, fit for a line: nothing unprintable, and not long."""
    text = text if text.isprintable() and text else repr(text)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} letters)"
