"""Weights to and from PyTorch: files and state dicts of a network."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.files import to_path
from jaxfood.pytorch import files as torch_files
from jaxfood.pytorch.layouts import flat_leaves, floating, not_finite, to_tensors, to_tree
from jaxfood.pytorch.names import fitted_table, table_of_variables
from jaxfood.pytorch.search import find
from jaxfood.pytorch.tables import smallest_tables


def from_torch(source: str | Path | Mapping[str, Any], part: str = "") -> dict[str, Any]:
    """Variables from PyTorch weights: of the notes' `Classifier`, or torchvision's or timm's `resnet18` or `resnet34`.

    Args:
        source: a file (.ckpt, .pt, .pth, .pth.tar and .bin need PyTorch, .safetensors does not), or what one holds:
            PyTorch tensors or NumPy arrays by name. They may lie in dictionaries and have prefixes to their names, as
            trainers and wrappers give them (`jaxfood.pytorch.search`). Pickled code is never run.
        part: what the weights' names begin with, where several fit: `"model_ema"`.

    Returns:
        `{"params": ..., "batch_stats": ...}` of JAX arrays, copies of the source. Types narrower than float32 become
        float32; float64 stays float64 under `jax.enable_x64` and becomes float32 elsewhere.

    Warns:
        UserWarning: something had to be chosen or guessed, or was passed over.

    Raises:
        UserError: the file cannot be read, or a tensor is missing, unexpected, of the wrong shape or type or not
            finite.
    """
    if isinstance(source, Mapping):
        found = find(source, part)
        variables = from_state_dict(found.tensors)
    else:
        path = to_path(source)
        with torch_files.named(path):
            content = torch_files.read(path)
            found = find(content.tree, part, content.unread)
            variables = from_state_dict(found.tensors)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    return variables


def normalize_note(config: Config) -> str:
    """What is to be said of weights of a PyTorch file in a residual network; empty: nothing.

    The file does not say what pictures it expects, and torchvision's transforms normalise outside of the network
    (https://docs.pytorch.org/vision/stable/models.html).
    """
    if config.model.name not in ("resnet18", "resnet34") or config.model.normalize:
        return ""
    return (
        "torchvision's ImageNet weights expect --model.normalize 0.485,0.456,0.406,0.229,0.224,0.225, which is not set"
    )


def to_torch(variables: Mapping[str, Any], path: str | Path) -> None:
    """Write `variables` as PyTorch's state dict; the file appears whole or not at all.

    Raises:
        UserError: the suffix is unknown, the file cannot be written, or `variables` are of no network that PyTorch has.
    """
    path = to_path(path)
    with torch_files.named(path):
        torch_files.write(path, to_state_dict(variables))


def from_state_dict(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Variables from tensors under exactly PyTorch's names; types and errors as in `from_torch`."""
    # BatchNorm's counts of batches matter to PyTorch for `momentum=None` alone.
    counters = {name for table in smallest_tables() for name in table.counters.values()}
    arrays = {name: floating(name, tensor) for name, tensor in tensors.items() if name not in counters}
    table = fitted_table({name: array.shape for name, array in arrays.items()}, "torch")
    variables = to_tree(table.entries, arrays)
    leaves = flat_leaves(variables)  # where float64 became float32 a number may have become infinite
    if wrong := not_finite({entry.torch.name: leaves[entry.flax.name] for entry in table.entries}):
        raise UserError(f"has {wrong}: give weights of before the training failed")
    return variables


def to_state_dict(variables: Mapping[str, Any], batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """PyTorch's state dict in the PyTorch module's order, as NumPy arrays of their own (float32 or float64).

    Args:
        variables: of a network that PyTorch has too.
        batches_tracked: what BatchNorm says of the batches it has seen; 0 is a new module's value.
    """
    table = table_of_variables(variables)
    tensors = {}
    for name, tensor in to_tensors(table.entries, variables).items():
        tensors[name] = tensor
        if name in table.counters:
            tensors[table.counters[name]] = np.array(batches_tracked, np.int64)
    return tensors
