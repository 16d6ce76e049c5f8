"""How a tensor of PyTorch's and a leaf of ours hold the same numbers.

`Conv2d` keeps its weight as `[out, in, height, width]`, `Linear` as `[out, in]`
(https://docs.pytorch.org/docs/stable/nn.html); Flax has height, width, in, out. What an optimizer keeps for a parameter
has the parameter's layout.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxfood.errors import UserError

Shape = tuple[int, ...]

_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # PyTorch's axes in Flax's order: vectors, linear layers, convolutions


class Array(NamedTuple):
    """A name and a shape, in the terms of one of the two."""

    name: str
    shape: Shape


class Entry(NamedTuple):
    """A tensor of PyTorch's and the leaf of ours that holds the same numbers."""

    torch: Array
    flax: Array
    view: Shape  # how PyTorch's tensor is seen before its axes move: its shape, but for a linear layer on an image

    @classmethod
    def of(cls, torch_name: str, flax_name: str, *shape: int, view: Shape | None = None) -> "Entry":
        """The entry of a tensor of this shape; the leaf's follows from it."""
        return cls(Array(torch_name, shape), Array(flax_name, moved(shape)), view or shape)

    def to_flax(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(self.view).transpose(_AXES[len(self.view)]).reshape(self.flax.shape)

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        back = np.argsort(_AXES[len(self.view)])
        return leaf.reshape(moved(self.view)).transpose(back).reshape(self.torch.shape)


def to_tree(entries: Iterable[Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested JAX arrays, copies of the tensors that the entries name."""
    # `jnp.array` always copies; `jnp.asarray` may share memory with a PyTorch module that goes on training.
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which `not_finite` finds
        leaves = {entry.flax.name: jnp.array(entry.to_flax(tensors[entry.torch.name])) for entry in entries}
    return traverse_util.unflatten_dict(leaves, sep="/")


def to_tensors(entries: Iterable[Entry], tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors that the entries name, in their order: copies of the tree's leaves, of float32 or float64."""
    leaves = flat_leaves(tree)
    arrays = ((entry, floating(entry.flax.name, leaves[entry.flax.name])) for entry in entries)
    return {entry.torch.name: np.array(entry.to_torch(array), order="C") for entry, array in arrays}


def flat_leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by the names that entries have for them."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def floating(name: str, tensor: Any) -> np.ndarray:
    """PyTorch's tensor, or any array, as a NumPy array of float32 or float64; narrower types become float32.

    Raises:
        UserError: it holds no floating-point numbers, or not one for each place of its shape.
    """
    dtype = getattr(tensor, "dtype", None)
    kind = getattr(dtype, "name", str(dtype).removeprefix("torch.")) if dtype is not None else type(tensor).__name__
    if kind not in ("float16", "bfloat16", "float32", "float64"):
        raise UserError(f"{name} has type {kind}: give floating-point weights of 16, 32 or 64 bits")
    wide = np.float64 if kind == "float64" else np.float32
    if hasattr(tensor, "detach"):  # PyTorch's, told without importing it
        try:
            tensor = tensor.detach().cpu()
            if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
                raise UserError(f"{name} repeats few numbers over a large shape: save tensor.contiguous()")
            tensor = (tensor.float() if kind == "bfloat16" else tensor).numpy()  # NumPy has no such type
        except UserError:
            raise
        except Exception as error:  # sparse ones, meta ones, nested ones: PyTorch has an error for each kind
            reason = str(error).partition("\n")[0][:160]
            raise UserError(f"{name} is no plain tensor ({reason}): save dense tensors of the CPU") from error
    return np.asarray(tensor).astype(wide, copy=False)


def not_finite(tensors: Mapping[str, Any]) -> str:
    """In words which of these arrays hold NaN or infinity, and how many; empty: none."""
    counts = {name: int(np.size(array) - np.isfinite(array).sum()) for name, array in tensors.items()}
    bad = {name: count for name, count in counts.items() if count}
    few = ", ".join(f"{name} ({count} of {np.size(tensors[name])})" for name, count in list(bad.items())[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"NaN or infinity in {len(bad)} of {len(tensors)} tensors: {few}{more}" if bad else ""


def moved(shape: Shape) -> Shape:
    """The shape of a leaf of ours, given PyTorch's; one that no parameter has stays as it is."""
    return tuple(shape[axis] for axis in _AXES[len(shape)]) if len(shape) in _AXES else shape
