"""Weights to and from PyTorch: one table for both directions.

PyTorch's names and layouts are those of the notes' `Classifier`: `Conv2d` keeps its weight `[out, in, height, width]`
and `Linear` `[out, in]`; `BatchNorm2d` keeps the unbiased running variance, and so does ours
(https://docs.pytorch.org/docs/stable/nn.html). Its `num_batches_tracked` matters for `momentum=None` only: it is
ignored on the way in and written as 0, a new module's value.
"""

import io
import math
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from jaxfood.errors import UserError
from jaxfood.files import write_whole
from jaxfood.model.classifier import FEATURES, HIDDEN

Shape = tuple[int, ...]

_PICKLED = (".ckpt", ".pt", ".pth")
_SAFETENSORS = ".safetensors"
_NESTS = ("model", "state_dict", "model_state_dict")  # where training checkpoints keep the weights
_WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put before the names inside them
_SHRINK = 2 ** len(FEATURES)  # pixels along a side of the image for one cell of the last block's output
_COUNTERS = tuple(f"cnn.{4 * i + 1}.num_batches_tracked" for i in range(len(FEATURES)))
_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # PyTorch's axes in Flax's order: vectors, linear layers, convolutions


class _Array(NamedTuple):
    name: str
    shape: Shape


class _Entry(NamedTuple):
    """One line of the table: a tensor of PyTorch's and the leaf of ours that holds the same numbers."""

    torch: _Array
    flax: _Array
    view: Shape  # how PyTorch's tensor is seen before its axes move: its shape, but for the first linear layer

    def to_flax(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(self.view).transpose(_AXES[len(self.view)]).reshape(self.flax.shape)

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        back = np.argsort(_AXES[len(self.view)])
        return leaf.reshape(_moved(self.view)).transpose(back).reshape(self.torch.shape)


def _moved(shape: Shape) -> Shape:
    return tuple(shape[axis] for axis in _AXES[len(shape)])


def _table(inputs: int = FEATURES[-1], num_classes: int = 1) -> list[_Entry]:
    """The mapping for so many inputs of the first linear layer (or the next smaller possible number) and classes.

    The names depend on neither.
    """
    entries: list[_Entry] = []

    def add(torch_name: str, flax_name: str, *shape: int, view: Shape | None = None) -> None:
        entries.append(_Entry(_Array(torch_name, shape), _Array(flax_name, _moved(shape)), view or shape))

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
    side = _side(inputs)
    cells = (HIDDEN[0], channels, side, side)
    add("fc.0.weight", "params/dense1/kernel", HIDDEN[0], channels * side * side, view=cells)
    add("fc.0.bias", "params/dense1/bias", HIDDEN[0])
    add("fc.2.weight", "params/dense2/kernel", HIDDEN[1], HIDDEN[0])
    add("fc.2.bias", "params/dense2/bias", HIDDEN[1])
    add("fc.4.weight", "params/head/kernel", num_classes, HIDDEN[1])
    add("fc.4.bias", "params/head/bias", num_classes)
    return entries


def _side(inputs: int) -> int:
    """Cells along the height, which is the width, of what the first linear layer sees; at least 1."""
    return max(1, math.isqrt(inputs // FEATURES[-1]))


def _fitted_table(arrays: Mapping[str, Any], framework: Callable[[_Entry], _Array]) -> list[_Entry]:
    """The table of the arrays' own sizes; their names and shapes, in that framework's terms, are checked."""
    names = {entry.flax.name: framework(entry).name for entry in _table()}
    problems = _listed("missing ", [name for name in names.values() if name not in arrays])
    problems += _listed("unexpected ", sorted(set(arrays) - set(names.values())))
    table = []
    if not problems:
        inputs = arrays[names["params/dense1/kernel"]].size // HIDDEN[0]
        num_classes = arrays[names["params/head/kernel"]].size // HIDDEN[1]
        table = _table(inputs, max(1, num_classes))
        shapes = [(name, arrays[name].shape, shape) for name, shape in map(framework, table)]
        wrong = [f"{name} has shape {list(has)}, expected {list(right)}" for name, has, right in shapes if has != right]
        problems = _listed("", wrong)
    if problems:
        raise UserError(f"{'; '.join(problems)}: give the weights of the notes' Classifier")
    return table


def _listed(what: str, items: list[str], limit: int = 6) -> list[str]:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [what + ", ".join(items[:limit]) + more] if items else []


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
        return from_state_dict(_unwrapped(source))
    path = Path(source)
    try:
        return from_state_dict(_unwrapped(_read(path)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def to_torch(variables: Mapping[str, Any], path: str | Path) -> None:
    """Write `variables` as PyTorch's state dict; the file appears whole or not at all.

    Raises:
        UserError: the suffix is unknown, the file cannot be written, or `variables` are not `FoodClassifier`'s.
    """
    path = Path(path)
    try:
        write_whole(path, _encoded(to_state_dict(variables), _known_suffix(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): give a file in an existing folder") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def from_state_dict(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Variables from tensors under exactly PyTorch's names; types and errors as in `from_torch`."""
    arrays = {name: _floating(name, tensor) for name, tensor in tensors.items() if name not in _COUNTERS}
    # `jnp.array` always copies; `jnp.asarray` may share memory with a PyTorch module that goes on training.
    leaves = {
        entry.flax.name: jnp.array(entry.to_flax(arrays[entry.torch.name]))
        for entry in _fitted_table(arrays, lambda entry: entry.torch)
    }
    return traverse_util.unflatten_dict(leaves, sep="/")


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """PyTorch's state dict in the PyTorch module's order, as NumPy arrays of their own (float32 or float64)."""
    arrays = {name: _floating(name, leaf) for name, leaf in _leaves(variables).items()}
    tensors = {}
    for entry in _fitted_table(arrays, lambda entry: entry.flax):
        tensors[entry.torch.name] = np.array(entry.to_torch(arrays[entry.flax.name]), order="C")
        if entry.torch.name.endswith("running_var"):
            tensors[entry.torch.name.replace("running_var", "num_batches_tracked")] = np.array(0, np.int64)
    return tensors


def image_size_of(variables: Mapping[str, Any]) -> int:
    """Height and width of the square images that `variables` were made for."""
    leaves = _leaves(variables)
    _fitted_table(leaves, lambda entry: entry.flax)
    return _SHRINK * _side(leaves["params/dense1/kernel"].shape[0])


def num_classes_of(variables: Mapping[str, Any]) -> int:
    """Number of classes that `variables` tell apart."""
    leaves = _leaves(variables)
    _fitted_table(leaves, lambda entry: entry.flax)
    return leaves["params/head/kernel"].shape[1]


def _leaves(variables: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(variables), sep="/")


def _unwrapped(tensors: Any) -> dict[str, Any]:
    """The innermost dictionary of tensors, under names without the wrappers' prefixes."""
    nested = tensors
    while isinstance(nested, Mapping):
        tensors = nested
        nested = next((tensors[key] for key in _NESTS if isinstance(tensors.get(key), Mapping)), None)
    if not isinstance(tensors, Mapping):
        raise UserError(f"holds a {type(tensors).__name__}, not a dictionary of tensors: save model.state_dict()")
    named: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name = ".".join(part for part in str(key).split(".") if part not in _WRAPPERS)
        if name in named:
            raise UserError(f"{name} comes twice, once as {key}: save the state dict of one model")
        named[name] = tensor
    return named


def _floating(name: str, tensor: Any) -> np.ndarray:
    """The tensor as a NumPy array of float32 or float64."""
    if hasattr(tensor, "detach"):  # PyTorch's, told without importing it
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point() and tensor.dtype.itemsize < 4:  # NumPy may have no such type
            tensor = tensor.float()
        tensor = tensor.numpy()
    array = np.asarray(tensor)
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} has type {array.dtype}: give floating-point weights")
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _known_suffix(path: Path) -> str:
    suffix, known = path.suffix.lower(), (*_PICKLED, _SAFETENSORS)
    if suffix not in known:
        raise UserError(f"unknown suffix {suffix!r}: give a file ending in {', '.join(known)}")
    return suffix


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError("this format needs PyTorch: pip install torch, or use a .safetensors file") from error
    return torch


def _encoded(tensors: Mapping[str, np.ndarray], suffix: str) -> bytes:
    if suffix == _SAFETENSORS:
        return safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    torch = _torch()
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, buffer)
    return buffer.getvalue()


def _read(path: Path) -> Any:
    suffix = _known_suffix(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}): give a file of weights") from error
    return _read_safetensors(content) if suffix == _SAFETENSORS else _read_pickled(content)


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    # `safetensors.numpy` knows no bfloat16; `deserialize` leaves the types to us.
    types = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64}
    try:
        records = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise UserError(f"is no safetensors file or a damaged one ({error}): save it again") from error
    tensors = {}
    for name, record in records:
        if record["dtype"] not in types:
            raise UserError(f"{name} has type {record['dtype']}: give floating-point weights")
        tensors[name] = np.frombuffer(record["data"], types[record["dtype"]]).reshape(record["shape"])
    return tensors


def _read_pickled(content: bytes) -> Any:
    torch = _torch()
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is then refused in a line of our own
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "holds a pickled module or other objects, refused because reading them can run code, or is no checkpoint: "
            "save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file fails in PyTorch's reader in many ways
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"is no PyTorch checkpoint or a damaged one ({reason}): save it again") from error
