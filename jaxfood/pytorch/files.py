"""PyTorch's files: .ckpt, .pt and .pth (PyTorch reads and writes them) and .safetensors (no PyTorch needed)."""

import contextlib
import io
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxfood.errors import UserError
from jaxfood.files import read_bytes, write_whole

PICKLED = (".ckpt", ".pt", ".pth")
_SAFETENSORS = ".safetensors"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is said of it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read(path: Path) -> Any:
    """What a file holds; of .safetensors a dictionary of NumPy arrays. Pickled code is never run.

    Raises:
        UserError: the suffix is unknown, the file cannot be read, is damaged or holds other objects than tensors.
    """
    suffix = _known_suffix(path)
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error}): give a file of weights") from error
    return _read_safetensors(content) if suffix == _SAFETENSORS else _read_pickled(content)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write NumPy arrays by name; what is no array goes into the PyTorch formats as it is.

    The file appears whole or not at all.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    is_safetensors = _known_suffix(path) == _SAFETENSORS
    encoded = safetensors.numpy.save(dict(content), {"format": "pt"}) if is_safetensors else _pickled(content)
    try:
        write_whole(path, encoded)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error}): give a file in an existing folder") from error


def import_torch() -> Any:
    """The module `torch`.

    Raises:
        UserError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "this format needs PyTorch: pip install torch, or use a .safetensors file, which holds weights alone"
        ) from error
    return torch


def _known_suffix(path: Path) -> str:
    suffix, known = path.suffix.lower(), (*PICKLED, _SAFETENSORS)
    if suffix not in known:
        raise UserError(f"unknown suffix {suffix!r}: give a file ending in {', '.join(known)}")
    return suffix


def _pickled(content: Mapping[str, Any]) -> bytes:
    torch, buffer = import_torch(), io.BytesIO()
    items = {name: torch.from_numpy(item) if isinstance(item, np.ndarray) else item for name, item in content.items()}
    torch.save(items, buffer)
    return buffer.getvalue()


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
    torch = import_torch()
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
