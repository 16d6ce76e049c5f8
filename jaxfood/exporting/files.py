"""The exported file: its format, told by its suffix, what is checked before the work, and how it is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxfood.errors import UserError
from jaxfood.extras import require
from jaxfood.files import reason, write_whole
from jaxfood.places import check_writable_file, exists


class Format(NamedTuple):
    """A file format.

    Attributes:
        name: as people call it.
        package: what it is written with.
        has_sidecar: it has no place for metadata, so that these go into FILE.json.
    """

    name: str
    package: str
    has_sidecar: bool


FORMATS = {  # by suffix
    ".stablehlo": Format("StableHLO", "flatbuffers", has_sidecar=True),
    ".onnx": Format("ONNX", "onnx", has_sidecar=False),
}
CHOICES = ".stablehlo (JAX on cpu, cuda, tpu) or .onnx (ONNX Runtime, browsers and others)"


def format_of(file: Path) -> Format:
    """The format that a file's suffix asks for.

    Raises:
        UserError: it is none of them.
    """
    found = FORMATS.get(file.suffix.lower())
    if found is None:
        also = "; safetensors and PyTorch's are written by python -m jaxfood.convert to-torch"
        raise UserError(f"FILE {file}: its suffix is to be {CHOICES}{also}")
    return found


def sidecar_of(file: Path) -> Path:
    """Where the metadata of a format without a place for them stand."""
    return file.with_name(f"{file.name}.json")


def files_of(file: Path) -> list[Path]:
    """What is written for a file: itself, last, as it marks the export as whole."""
    return [sidecar_of(file), file] if format_of(file).has_sidecar else [file]


def check_writable(file: Path, *, overwrite: bool) -> None:
    """Check before the work that a file can be written.

    Raises:
        UserError: its suffix is unknown, the package for it missing, the place not to be written to, or a file there.
    """
    require(format_of(file).package, str(file), extra="export")
    for path in files_of(file):
        check_writable_file(path, "FILE")
        if not overwrite and exists(path):
            raise UserError(f"{path} is there already: give --overwrite to replace it, or another name")


def write(file: Path, content: bytes, metadata: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all, and before it the metadata that its format has no place for.

    Raises:
        UserError: it cannot be written.
    """
    try:
        for path in files_of(file):
            write_whole(path, content if path == file else json.dumps(metadata, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {file} ({reason(error)}): mend that, or choose another FILE") from error
