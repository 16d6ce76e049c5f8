"""From a picture file to an array of bytes: first read, then decoded, so that a failing disk is no broken picture."""

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxfood.data.resize import scaled_while_decoding, to_square
from jaxfood.data.signatures import describe_foreign, readable_format
from jaxfood.data.threads import Budget, return_freed_memory
from jaxfood.files import is_remote, read_bytes, reading

# Pillow's own raster decoders that may see a file, in this order; its content decides, not its name. MPO comes with
# JPEG. Left out are those that start a program or leave the work to a plugin (EPS, WMF, the stubs), that decode in
# Python (QOI, XPM: seconds a picture), whose file tells another size than it decodes to (ICO, ICNS), and what holds no
# photographs. TGA is last: it has no mark at its beginning.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "SGI", "PCX"),
    "TGA",
)

# All that Pillow calls files of these formats (Image.registered_extensions() would load every plugin).
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".avifs", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".sgi", ".rgb", ".rgba", ".bw", ".pcx", ".tga", ".icb", ".vda", ".vst"),
)

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")

# The largest phone camera's pictures have 16,320 x 12,240 pixels. Resizing takes 16 bytes for each pixel of a side.
MAX_PIXELS = 200_000_000
MAX_SIDE = 1_000_000
MAX_FILE_BYTES = 2**30

# What decoding one pixel takes at its peak, measured over 5,000 px squares: Pillow has an RGB pixel in four bytes, and
# what is not RGB twice; progressive JPEG keeps coefficients, WebP and AVIF the whole picture again, JPEG 2000 integers.
_BYTES_A_PIXEL = {"JPEG": 10, "MPO": 10, "WEBP": 17, "AVIF": 16, "JPEG2000": 20}
_BYTES_A_PIXEL_OTHERWISE = 9
_BYTES_A_PIXEL_OF_INTEGERS = 24

# Pictures of up to 12 megapixels (of JPEG) and files of 32 MiB go ahead on every thread; larger ones share a budget.
_decoding = Budget(2 * 2**30, free=120 * 2**20)
_encoded = Budget(2**30, free=32 * 2**20)

_ORIENTATION_TAG = 0x0112
_SAY_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # of Image.info
# The tag, a short integer, one of it, 1; in either byte order.
_UPRIGHT = (b"\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_pillows_limit = threading.Lock()


class DecodingError(Exception):
    """A file's content is no picture that Pillow can decode to its end; the text says what it is, in one line."""


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        orientation: as its EXIF data have it, 1 to 8; 1 is upright, and where they are silent or broken.
    """

    pixels: np.ndarray
    orientation: int


class DecodedFile(NamedTuple):
    """A decoded picture file.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        orientation: as in `Decoded`.
        digest: BLAKE2b of the file's bytes, 128 bits in hexadecimal.
    """

    pixels: np.ndarray
    orientation: int
    digest: str


def is_jpeg(path: Path) -> bool:
    """Whether a file is called as JPEG files are."""
    return path.name.lower().endswith(_JPEG_SUFFIXES)


def decode_picture(
    path: str | Path, image_size: int, *, exif_orientation: bool = False, resize: str = "squash", fast: bool = False
) -> np.ndarray:
    """Decodes one picture to uint8 [H, W, 3] with H = W = `image_size`.

    Equal to the bit to `Image.open(path).convert("RGB").resize((S, S), BILINEAR)`, which is what torchvision's
    `Resize((S, S))` in the notes does to a PIL image; like it, this ignores the orientation in the EXIF data unless
    `exif_orientation` is set (`ImageOps.exif_transpose` before it is resized). The notes do not convert to RGB, so that
    a CMYK or greyscale picture breaks their batch. Of several frames the first counts. For another `resize` than that
    see `jaxfood.data.resize`. With `fast` (`data.decode = "fast"`) a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
    where that is still as large as it will be: other pixels, in less than half the time.

    Raises:
        DecodingError: the file is no picture.
        UserError: the file cannot be read, which says nothing about the picture.
    """
    with _reading(path) as encoded:
        return decode_bytes(encoded, image_size, exif_orientation=exif_orientation, resize=resize, fast=fast)


def decode_file(
    path: str | Path, image_size: int, *, exif_orientation: bool = False, resize: str = "squash", fast: bool = False
) -> DecodedFile:
    """As `decode_picture`, with what else the file tells."""
    with _reading(path) as encoded:
        digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
        return DecodedFile(
            *decode(encoded, image_size, exif_orientation=exif_orientation, resize=resize, fast=fast), digest
        )


def decode_file_or_reason(
    path: str | Path, image_size: int, *, exif_orientation: bool = False, resize: str = "squash", fast: bool = False
) -> DecodedFile | str:
    """As `decode_file`, but for a file that is no picture the reason (not the error: it would hold on to the file)."""
    try:
        return decode_file(path, image_size, exif_orientation=exif_orientation, resize=resize, fast=fast)
    except DecodingError as error:
        return str(error)


def decode_bytes(
    encoded: bytes, image_size: int, *, exif_orientation: bool = False, resize: str = "squash", fast: bool = False
) -> np.ndarray:
    """As `decode_picture`, of a file's content."""
    return decode(encoded, image_size, exif_orientation=exif_orientation, resize=resize, fast=fast).pixels


def decode(
    encoded: bytes, image_size: int, *, exif_orientation: bool = False, resize: str = "squash", fast: bool = False
) -> Decoded:
    """As `decode_bytes`, with the orientation.

    However many threads call it, large pictures take turns, so that what they hold together stays within about 2 GiB.
    """
    try:
        with _open(encoded) as picture:
            _check_size(*picture.size)
            needed = _bytes_to_decode(picture)
            with _decoding.holding(needed):
                decoded = _decode(picture, image_size, exif_orientation, resize, fast)
                if needed > _decoding.free:
                    picture.close()
                    return_freed_memory()
            return decoded
    except DecodingError:
        raise
    except Exception as error:  # on mutated bytes Pillow's plugins raise whatever Python knows
        raise DecodingError(_reason(encoded, error)) from error


def _decode(picture: Image.Image, image_size: int, exif_orientation: bool, resize: str, fast: bool) -> Decoded:
    extent = scaled_while_decoding(picture, image_size, resize) if fast else None
    rgb = _to_rgb(picture)
    picture.load()
    orientation = _orientation(picture)
    turn = _TURNS.get(orientation) if exif_orientation else None
    if extent:  # turned last: the parts of pixels are at the right and below
        square = to_square(rgb, image_size, resize, extent)
        return Decoded(np.asarray(square if turn is None else square.transpose(turn)), orientation)
    if turn is not None:
        rgb = rgb.transpose(turn)
    return Decoded(np.asarray(to_square(rgb, image_size, resize)), orientation)


@contextmanager
def _reading(path: str | Path) -> Iterator[bytes]:
    """A file's bytes, of which all threads hold a gigabyte at most.

    Raises:
        DecodingError: it is a device or the like, or larger than any picture.
        UserError: it cannot be read.
    """
    if is_remote(path):
        with reading(path):
            encoded = read_bytes(path)
        yield encoded
        return
    with reading(path):
        file = open(path, "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115  # closed below
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DecodingError("no regular file, but a pipe or a device")
        if status.st_size > MAX_FILE_BYTES:
            most = MAX_FILE_BYTES // 2**30
            raise DecodingError(f"too large: {status.st_size / 2**30:.1f} GiB, where {most} is the most")
        with _encoded.holding(status.st_size):
            with reading(path):
                encoded = file.read()
            yield encoded


def _open_at_once(path: str, flags: int) -> int:
    # A pipe would be waited for until somebody writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open(encoded: bytes) -> Image.Image:
    """Reads the header."""
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's limit, 179 million pixels, is the process's; ours holds in its place, and only here.
        with _pillows_limit_raised():
            return Image.open(io.BytesIO(encoded), formats=FORMATS)


@contextmanager
def _pillows_limit_raised() -> Iterator[None]:
    with _pillows_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DecodingError(
            f"too large: {width} x {height} pixels, where {MAX_PIXELS // 10**6} million, and {MAX_SIDE:,} a side, are "
            "the most"
        )


def _bytes_to_decode(picture: Image.Image) -> int:
    pixel = _BYTES_A_PIXEL.get(picture.format or "", _BYTES_A_PIXEL_OTHERWISE)
    if picture.mode.startswith("I"):
        pixel = max(pixel, _BYTES_A_PIXEL_OF_INTEGERS)
    return pixel * picture.width * picture.height


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


def _orientation(picture: Image.Image) -> int:
    """As `Decoded` has it; of a picture whose pixels are loaded: PNG may have EXIF data after them.

    Of a TIFF it is 1: Pillow itself has turned it.
    """
    if _is_plainly_upright(picture.info):
        return 1
    try:
        found = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  # broken EXIF data say nothing, and the picture is whole
        return 1
    return found if found in _TURNS else 1


def _is_plainly_upright(info: Mapping[Any, Any]) -> bool:
    """Whether each orientation tag in the EXIF data, if any, says upright: known in 2 us, where Pillow takes 34."""
    if not info.keys() & _SAY_ORIENTATION:
        return True
    exif = info.get("exif") or b""
    tags = exif.count(b"\x12\x01") + exif.count(b"\x01\x12")
    return tags == sum(map(exif.count, _UPRIGHT)) and (tags > 0 or info.keys() & _SAY_ORIENTATION == {"exif"})


def _reason(encoded: bytes, error: Exception) -> str:
    """Why `encoded` could not be decoded, in one line: what the file is, and of a picture what Pillow says."""
    name = readable_format(encoded)
    if not name and not isinstance(error, MemoryError):
        return describe_foreign(encoded)
    if isinstance(error, MemoryError):
        return f"a {name or 'picture'} whose decoding takes more memory than there is"
    words = " ".join(str(error).split())[:120]
    if isinstance(error, Image.UnidentifiedImageError) or not words:
        words = type(error).__name__ if not words else "its header is broken"
    return f"a damaged or truncated {name}: {words}"
