"""PyTorch's files: .ckpt, .pt and .pth (PyTorch reads and writes them) and .safetensors (no PyTorch needed)."""

import contextlib
import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxfood.errors import UserError
from jaxfood.files import is_remote, read_bytes, reading, write_whole
from jaxfood.pytorch.names import listed, shown

PICKLED = (".ckpt", ".pt", ".pth")
_SAFETENSORS = ".safetensors"
WRITABLE = (*PICKLED, _SAFETENSORS)
READABLE = (*PICKLED, ".pth.tar", ".bin", _SAFETENSORS)
_ZIP = b"PK\x03\x04"
_FOLDER = 0x10  # an attribute of a zip archive's member, of which PyTorch gives memory that nobody has written to
_SAFETENSORS_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64}
# What files are that people take for PyTorch's, by how they begin, and the mend.
_OTHERS: Sequence[tuple[bytes, str]] = (
    (b"\x89HDF", "an HDF5 file, as Keras writes them, not PyTorch's: give PyTorch weights"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: git lfs pull"),
    (b"<", "a page of HTML, not a checkpoint: download the file itself"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"\x93NUMPY", "an array of NumPy's: give a checkpoint of PyTorch's"),
    (b"\x08", "no PyTorch checkpoint but ONNX, or another format of protocol buffers: give PyTorch weights"),
)
_MEMBERS = (  # of zip archives, by the end of a member's name
    ("/constants.pkl", "a TorchScript archive, which is a program: save torch.jit.load(FILE).state_dict() instead"),
    (".weights.h5", "a model of Keras': give PyTorch weights"),
    (".npy", "an archive of NumPy arrays: give a checkpoint of PyTorch's"),
)
# Classes that PyTorch refuses and that are beside weights: the list for files in which they cannot be looked up.
_COMMON = (
    *("argparse.Namespace", "collections.defaultdict", "builtins.list", "builtins.dict", "builtins.int"),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
)
# NumPy's numbers and arrays, which are read: making them runs nothing but NumPy.
_NUMPY: Mapping[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.{core}.multiarray._reconstruct": np.zeros(1).__reduce__()[0] for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": np.float64().__reduce__()[0] for core in ("core", "_core")},
    **{f"numpy.dtypes.{type(np.dtype(kind)).__name__}": type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
}


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Puts the file's name before what is said of it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


class Content(NamedTuple):
    """What a file holds; of .safetensors a dictionary of NumPy arrays.

    Attributes:
        tree: the outermost object.
        unread: the classes of which it holds objects that are not read, since that could run code; each of these
            objects is an empty dictionary, or one of its items where it is itself a dictionary.
    """

    tree: Any
    unread: Sequence[str] = ()


def read(path: Path) -> Content:
    """What a file holds, told by its content more than by its name. Pickled code is never run.

    Raises:
        UserError: the suffix is unknown, the file cannot be read, is damaged, or of another kind.
    """
    suffix = _known_suffix(path, READABLE)
    try:
        if not is_remote(path) and path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError("is a pipe or a device: give a file of weights")  # a pipe without a writer never ends
        content = read_bytes(path)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error}): give a file of weights") from error
    if content[8:9] == b"{" or (suffix == _SAFETENSORS and not content.startswith(_ZIP)):
        return Content(_read_safetensors(content))
    return _read_pickled(content)


def check_writable(path: Path, overwrite: bool, with_optimizer: bool = False) -> None:
    """See before the work that a file may be written: its suffix, its folder, and whether there is one already.

    Raises:
        UserError: it may not.
    """
    with named(path), reading(path):
        if with_optimizer and path.suffix.lower() not in PICKLED:
            raise UserError(f"holds no optimizer: give one of {', '.join(PICKLED)}, or leave out --with_optimizer")
        _known_suffix(path, WRITABLE)
        if not is_remote(path) and (path.is_dir() or not path.parent.is_dir()):  # a bucket has no folders
            reason = "Is a directory" if path.is_dir() else "No such file or directory"
            raise UserError(f"cannot be written ({reason}): give a file in an existing folder")
        if path.exists() and not overwrite:
            raise UserError("is there already: give --overwrite to replace it, or another name")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write NumPy arrays by name; what is no array goes into the PyTorch formats as it is.

    The file appears whole or not at all.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    is_safetensors = _known_suffix(path, WRITABLE) == _SAFETENSORS
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


def _known_suffix(path: Path, known: Sequence[str]) -> str:
    name = path.name.lower()
    suffix = next((suffix for suffix in known if name.endswith(suffix)), None)
    if suffix is None:
        raise UserError(f"unknown suffix {path.suffix!r}: give a file ending in {', '.join(known)}")
    return suffix


def _pickled(content: Mapping[str, Any]) -> bytes:
    torch, buffer = import_torch(), io.BytesIO()
    items = {name: torch.from_numpy(item) if isinstance(item, np.ndarray) else item for name, item in content.items()}
    torch.save(items, buffer)
    return buffer.getvalue()


def _read_safetensors(content: bytes) -> dict[str, Any]:
    # `safetensors.numpy` knows no bfloat16; `deserialize` leaves the types to us.
    try:
        records = safetensors.deserialize(content)
    except Exception as error:  # SafetensorError for most headers, others for some
        raise UserError(f"is no safetensors file or a damaged one ({_reason(error)}): save it again") from error
    tensors: dict[str, Any] = {}
    for name, record in records:
        dtype = _SAFETENSORS_TYPES.get(record["dtype"])
        if dtype is None:  # whether it matters shows when the names are known
            tensors[name] = SimpleNamespace(dtype=record["dtype"], shape=record["shape"])
        else:
            tensors[name] = np.frombuffer(record["data"], dtype).reshape(record["shape"])
    return tensors


class _Unread:
    """In place of a class that is not PyTorch's: what would be made of it is an empty dictionary."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()  # of the few classes to which PyTorch's reader adds items and attributes


def _read_pickled(content: bytes) -> Content:
    torch = import_torch()
    _check_kind(content)
    unread: list[str] = []
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is then refused in a line of our own
            if content.startswith(_ZIP):
                found = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
                unread = sorted(set(found) - set(_NUMPY))
            allowed = {**dict.fromkeys([*_COMMON, *unread], _Unread), **_NUMPY}
            with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in allowed.items()]):
                tree = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "holds a pickled module or other objects, refused because reading them can run code, or is no checkpoint: "
            "save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file fails in PyTorch's reader in many ways
        beside = "".join(listed("; objects not read: ", map(shown, unread), limit=3))
        raise UserError(
            f"is no PyTorch checkpoint or a damaged one ({_reason(error)}{beside}): save it again"
        ) from error
    return Content(tree, unread)


def _check_kind(content: bytes) -> None:
    """Refuses what is not PyTorch's, and what is damaged: PyTorch itself looks at no checksum.

    Raises:
        UserError: it says what the file is, or which part of it is damaged.
    """
    if not content:
        raise UserError("is empty, no PyTorch checkpoint: copy or save it again")
    what = next((what for start, what in _OTHERS if content.startswith(start)), None)
    if what is None and content[257:262] == b"ustar":
        what = "a tar archive, as PyTorch wrote before 2017: unpack it, or load it there and save it again"
    if what is None and content.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = archive.namelist()
                what = next((what for end, what in _MEMBERS if any(name.endswith(end) for name in names)), None)
                if any(info.external_attr & _FOLDER for info in archive.infolist()):
                    raise zipfile.BadZipFile("a folder in place of numbers")
                for info in archive.infolist() if what is None else []:
                    if info.CRC:  # PyTorch can be told to write no checksums, and then writes 0
                        archive.read(info)
        except Exception as error:  # zipfile, zlib and struct have each their own
            raise UserError(f"is no PyTorch checkpoint or a damaged one ({_reason(error)}): save it again") from error
    if what is not None:
        raise UserError(f"is {what}")


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    return shown(text, limit=160)
