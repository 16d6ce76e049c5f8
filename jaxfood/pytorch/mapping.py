"""PyTorch's tensors and our leaves: the one table, for both directions.

PyTorch's names and layouts are those of the notes' `Classifier`: `Conv2d` keeps its weight `[out, in, height, width]`
and `Linear` `[out, in]`; `BatchNorm2d` keeps the unbiased running variance, and so does ours
(https://docs.pytorch.org/docs/stable/nn.html). What an optimizer keeps for each parameter, its moments, is mapped as
the parameter is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxfood.errors import UserError
from jaxfood.model.classifier import FEATURES, HIDDEN

Shape = tuple[int, ...]

_WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put before the names inside them
_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # PyTorch's axes in Flax's order: vectors, linear layers, convolutions


class Array(NamedTuple):
    """A name and a shape, in the terms of one of the two."""

    name: str
    shape: Shape


class Entry(NamedTuple):
    """One line of the table: a tensor of PyTorch's and the leaf of ours that holds the same numbers."""

    torch: Array
    flax: Array
    view: Shape  # how PyTorch's tensor is seen before its axes move: its shape, but for the first linear layer

    def to_flax(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(self.view).transpose(_AXES[len(self.view)]).reshape(self.flax.shape)

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        back = np.argsort(_AXES[len(self.view)])
        return leaf.reshape(_moved(self.view)).transpose(back).reshape(self.torch.shape)


def torch_side(entry: Entry) -> Array:
    """The tensor's name and shape."""
    return entry.torch


def flax_side(entry: Entry) -> Array:
    """The leaf's name and shape."""
    return entry.flax


def make_table(inputs: int = FEATURES[-1], num_classes: int = 1) -> list[Entry]:
    """The table in the PyTorch module's order, for a model of these sizes. The names depend on neither.

    Args:
        inputs: of the first linear layer; where no image size has that number, the next smaller one that has.
        num_classes: outputs of the last linear layer.
    """
    entries: list[Entry] = []

    def add(torch_name: str, flax_name: str, *shape: int, view: Shape | None = None) -> None:
        entries.append(Entry(Array(torch_name, shape), Array(flax_name, _moved(shape)), view or shape))

    channels = 3
    for i, features in enumerate(FEATURES):
        conv, norm, block = f"cnn.{4 * i}", f"cnn.{4 * i + 1}", f"block{i + 1}"
        add(f"{conv}.weight", f"params/{block}/kernel", features, channels, 3, 3)
        add(f"{conv}.bias", f"params/{block}/bias", features)
        add(f"{norm}.weight", f"params/{block}/norm/scale", features)
        add(f"{norm}.bias", f"params/{block}/norm/bias", features)
        add(f"{norm}.running_mean", f"batch_stats/{block}/norm/mean", features)
        add(f"{norm}.running_var", f"batch_stats/{block}/norm/var", features)
        channels = features

    # PyTorch flattens channel, height, width and Flax height, width, channel. Seen as a convolution over all the cells
    # it is given, the first linear layer has its axes moved as any convolution.
    side = cells_along(inputs)
    cells = (HIDDEN[0], channels, side, side)
    add("fc.0.weight", "params/dense1/kernel", HIDDEN[0], channels * side * side, view=cells)
    add("fc.0.bias", "params/dense1/bias", HIDDEN[0])
    add("fc.2.weight", "params/dense2/kernel", HIDDEN[1], HIDDEN[0])
    add("fc.2.bias", "params/dense2/bias", HIDDEN[1])
    add("fc.4.weight", "params/head/kernel", num_classes, HIDDEN[1])
    add("fc.4.bias", "params/head/bias", num_classes)
    return entries


def parameters(table: Sequence[Entry]) -> list[Entry]:
    """The part that `model.parameters()` has, in its order: all but the running statistics."""
    return [entry for entry in table if entry.flax.name.startswith("params/")]


def parameters_of(variables: Mapping[str, Any]) -> list[Entry]:
    """The same of a table that has the sizes of `variables`."""
    return parameters(fitted_table(flat_leaves(variables), flax_side))


def fitted_table(arrays: Mapping[str, Any], side: Callable[[Entry], Array]) -> list[Entry]:
    """The table of the arrays' own sizes.

    Args:
        arrays: all tensors or all leaves of a model, by name.
        side: `torch_side` or `flax_side`, the one that the arrays are of.

    Raises:
        UserError: an array is missing, unexpected or of the wrong shape.
    """
    names = {entry.flax.name: side(entry).name for entry in make_table()}
    problems = _listed("missing ", [name for name in names.values() if name not in arrays])
    problems += _listed("unexpected ", sorted(set(arrays) - set(names.values())))
    table = []
    if not problems:
        inputs = arrays[names["params/dense1/kernel"]].size // HIDDEN[0]
        num_classes = arrays[names["params/head/kernel"]].size // HIDDEN[1]
        table = make_table(inputs, max(1, num_classes))
        shapes = [(name, arrays[name].shape, shape) for name, shape in map(side, table)]
        wrong = [f"{name} has shape {list(has)}, expected {list(right)}" for name, has, right in shapes if has != right]
        problems = _listed("", wrong)
    if problems:
        raise UserError(f"{'; '.join(problems)}: give the weights of the notes' Classifier")
    return table


def to_tree(table: Sequence[Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested JAX arrays, copies of the tensors that the table names."""
    # `jnp.array` always copies; `jnp.asarray` may share memory with a PyTorch module that goes on training.
    leaves = {entry.flax.name: jnp.array(entry.to_flax(tensors[entry.torch.name])) for entry in table}
    return traverse_util.unflatten_dict(leaves, sep="/")


def to_tensors(table: Sequence[Entry], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that the table names, in its order, copies of the leaves that `flat_arrays` gives."""
    return {entry.torch.name: np.array(entry.to_torch(arrays[entry.flax.name]), order="C") for entry in table}


def flat_leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by the names that the table has for them."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def flat_arrays(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The same as NumPy arrays of float32 or float64."""
    return {name: floating(name, leaf) for name, leaf in flat_leaves(tree).items()}


def cells_along(inputs: int) -> int:
    """Cells along the height, which is the width, of what the first linear layer sees; at least 1."""
    return max(1, math.isqrt(inputs // FEATURES[-1]))


def plain_name(name: str) -> str:
    """A tensor's name without what DataParallel and torch.compile put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def floating(name: str, tensor: Any) -> np.ndarray:
    """PyTorch's tensor, or any array, as a NumPy array of float32 or float64; narrower types become float32.

    Raises:
        UserError: it holds no floating-point numbers.
    """
    if hasattr(tensor, "detach"):  # PyTorch's, told without importing it
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point() and tensor.dtype.itemsize < 4:  # NumPy may have no such type
            tensor = tensor.float()
        tensor = tensor.numpy()
    array = np.asarray(tensor)
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} has type {array.dtype}: give floating-point weights")
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _moved(shape: Shape) -> Shape:
    return tuple(shape[axis] for axis in _AXES[len(shape)])


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [what + ", ".join(items[:limit]) + more] if items else []
