"""Weights to and from PyTorch: files and state dicts of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxfood.errors import UserError
from jaxfood.files import to_path
from jaxfood.pytorch import files as torch_files
from jaxfood.pytorch.layouts import floating, to_tensors, to_tree
from jaxfood.pytorch.names import fitted_table, make_table, plain_name, table_of_variables

_NESTS = ("model", "state_dict", "model_state_dict")  # where training checkpoints keep the weights


def from_torch(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Variables for `FoodClassifier` from PyTorch weights.

    Args:
        source: a file (.ckpt, .pt and .pth need PyTorch, .safetensors does not), or a state dict: PyTorch tensors or
            NumPy arrays by name. The weights may lie under `model`, `state_dict` or `model_state_dict`, and the names
            may carry `module.` and `_orig_mod.`. Pickled code is never run.

    Returns:
        `{"params": ..., "batch_stats": ...}` of JAX arrays, copies of the source. Types narrower than float32 become
        float32; float64 stays float64 under `jax.enable_x64` and becomes float32 elsewhere.

    Raises:
        UserError: the file cannot be read, or a tensor is missing, unexpected or of the wrong shape or type.
    """
    if isinstance(source, Mapping):
        return from_state_dict(unwrapped(source))
    path = to_path(source)
    with torch_files.named(path):
        return from_state_dict(unwrapped(torch_files.read(path)))


def to_torch(variables: Mapping[str, Any], path: str | Path) -> None:
    """Write `variables` as PyTorch's state dict; the file appears whole or not at all.

    Raises:
        UserError: the suffix is unknown, the file cannot be written, or `variables` are not `FoodClassifier`'s.
    """
    path = to_path(path)
    with torch_files.named(path):
        torch_files.write(path, to_state_dict(variables))


def from_state_dict(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Variables from tensors under exactly PyTorch's names; types and errors as in `from_torch`."""
    counters = set(make_table().counters.values())  # they matter to PyTorch for `momentum=None` alone
    arrays = {name: floating(name, tensor) for name, tensor in tensors.items() if name not in counters}
    return to_tree(fitted_table(arrays, "torch").entries, arrays)


def to_state_dict(variables: Mapping[str, Any], batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """PyTorch's state dict in the PyTorch module's order, as NumPy arrays of their own (float32 or float64).

    Args:
        variables: `FoodClassifier`'s.
        batches_tracked: what BatchNorm says of the batches it has seen; 0 is a new module's value.
    """
    table = table_of_variables(variables)
    tensors = {}
    for name, tensor in to_tensors(table.entries, variables).items():
        tensors[name] = tensor
        if name in table.counters:
            tensors[table.counters[name]] = np.array(batches_tracked, np.int64)
    return tensors


def unwrapped(tensors: Any) -> dict[str, Any]:
    """The innermost dictionary of tensors, under names without the wrappers' prefixes.

    Raises:
        UserError: it is no dictionary, or two tensors would have one name.
    """
    nested = tensors
    while isinstance(nested, Mapping):
        tensors = nested
        nested = next((tensors[key] for key in _NESTS if isinstance(tensors.get(key), Mapping)), None)
    if not isinstance(tensors, Mapping):
        raise UserError(f"holds a {type(tensors).__name__}, not a dictionary of tensors: save model.state_dict()")
    named: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name = plain_name(str(key))
        if name in named:
            raise UserError(f"{name} comes twice, once as {key}: save the state dict of one model")
        named[name] = tensor
    return named
