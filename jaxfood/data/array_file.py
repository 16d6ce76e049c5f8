"""An array of pictures in a .npy file, written by plain writes, one after the other."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np


def write_header(file: BinaryIO, count: int, image_size: int) -> None:
    """The header of uint8 [count, image_size, image_size, 3], in as many bytes for any count."""
    # NumPy pads the header so that the first dimension can change in place.
    shape = (count, image_size, image_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def append(path: Path, others: Sequence[Path]) -> None:
    """Append the pictures of other such files, of the same size, to those in `path`."""
    with path.open("r+b") as file:
        count, image_size, *_ = _read_header(file)
        file.seek(0, 2)
        for other in others:
            with other.open("rb") as part:
                count += _read_header(part)[0]
                shutil.copyfileobj(part, file, length=2**20)
        file.seek(0)
        write_header(file, count, image_size)


def _read_header(file: BinaryIO) -> tuple[int, ...]:
    np.lib.format.read_magic(file)
    shape, _, _ = np.lib.format.read_array_header_1_0(file)
    return shape
