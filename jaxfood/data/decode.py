"""From a picture file to an array of bytes: first read, then decoded, so that a failing disk is no broken picture."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jaxfood.files import read_bytes, reading

PICTURE_SUFFIXES = (*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),)

# What Pillow's decoders raise on damaged, empty, foreign or monstrous files.
_RAISED_BY_PILLOW = (
    OSError,  # with its UnidentifiedImageError
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    RuntimeError,  # the AVIF decoder's; a .jpg may hold anything
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class DecodingError(Exception):
    """A file's content is no picture that Pillow can decode to its end."""


def decode_picture(path: str | Path, image_size: int) -> np.ndarray:
    """Decodes one picture to uint8 [H, W, 3] with H = W = `image_size`.

    Equal to the bit to `Image.open(path).convert("RGB").resize((S, S), BILINEAR)`, which is what torchvision's
    `Resize((S, S))` in the notes does to a PIL image; like it, this ignores the orientation in the EXIF data. The notes
    do not convert to RGB, so that a CMYK or greyscale picture breaks their batch.

    Raises:
        DecodingError: the file is no picture.
        UserError: the file cannot be read, which says nothing about the picture.
    """
    with reading(path):
        encoded = read_bytes(path)
    return decode_bytes(encoded, image_size)


def decode_bytes(encoded: bytes, image_size: int) -> np.ndarray:
    """As `decode_picture`, of a file's content."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return np.asarray(_to_rgb(picture).resize((image_size, image_size), Image.Resampling.BILINEAR))
    except _RAISED_BY_PILLOW as error:
        raise DecodingError(str(error)) from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        # 16 bits a pixel: keep the upper eight, where convert("RGB") may clip all above 255 to white.
        grey = np.asarray(picture).clip(0, 65535) // 256
        picture = Image.fromarray(grey.astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        # The same RGB, without Pillow's warning about transparency given as bytes.
        picture = picture.convert("RGBA")
    # convert would copy an RGB picture, and where two large ones are freed together malloc gives the memory back to the
    # system: of photographs of 512 px each then costs 115 to 220 page faults, a fifth of the time.
    return picture if picture.mode == "RGB" else picture.convert("RGB")
