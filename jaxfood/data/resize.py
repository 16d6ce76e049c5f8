"""How a picture of any proportions becomes a square: `data.resize`."""

from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR

# A picture that is longer than so many squares is cut before it is resized: a line of 1,000,000 x 1 pixels, its shorter
# side resized to 128, would take 65 GB.
_LONGEST = 8


Extent = tuple[float, float]


def to_square(picture: Image.Image, size: int, how: str, extent: Extent | None = None) -> Image.Image:
    """A picture resized, by bilinear interpolation with antialiasing, to `size` x `size` pixels.

    Args:
        picture: RGB.
        size: in pixels.
        how: "squash": both sides to `size`, as torchvision's `Resize((S, S))`. "crop": the shorter side to `size`, then
            the middle of the longer one, as `Resize(S)` and `CenterCrop(S)`. "pad": the longer side to `size`, in the
            middle of a black square, as Pillow's `ImageOps.pad`. Each equal to the bit to what it is named after; but
            of pictures over 8 times as long as wide "crop" takes the middle first, to a pixel.
        extent: how much of the picture counts, from its top left corner, in pixels and parts of them; None: all of it.
    """
    if how == "crop" and extent is None and max(picture.size) > _LONGEST * min(picture.size):
        picture = _middle(picture, *(min(side, _LONGEST * min(picture.size)) for side in picture.size))
    extent = extent or picture.size
    resized = picture.resize(resized_size(extent, size, how), _BILINEAR, (0, 0, *extent))
    match how:
        case "crop":
            return _middle(resized, size, size)
        case "pad":
            square = Image.new("RGB", (size, size))
            square.paste(resized, (round((size - resized.width) / 2), round((size - resized.height) / 2)))
            return square
    return resized


def resized_size(extent: Extent, size: int, how: str) -> tuple[int, int]:
    """Width and height that a whole picture of this extent is resized to, before it is cut or gets its bars."""
    short, long = min(extent), max(extent)
    match how:
        case "squash":
            return size, size
        case "crop":
            scaled = int(size * long // short)  # rounded down, as torchvision does
            return (size, scaled) if extent[0] <= extent[1] else (scaled, size)
        case "pad":
            width, height = (max(1, round(side / long * size)) for side in extent)
            return width, height
    raise ValueError(f"no way to resize is called {how}")


def scaled_while_decoding(picture: Image.Image, size: int, how: str) -> Extent | None:
    """Sets a JPEG that is not yet loaded to be decoded at 1/2, 1/4 or 1/8 of its size, where that is still enough.

    The decoder leaves out the higher frequencies of each block of 8 x 8 pixels (libjpeg's scale, Pillow's `draft`).

    Args:
        picture: of any format; all but JPEG stay as they are.
        size: of the square that it will be resized to.
        how: as `to_square` has it.

    Returns:
        What `to_square` takes as `extent`: the last column and row may hold a part of a pixel. None where the picture
        stays as it is.
    """
    if max(picture.size) > _LONGEST * min(picture.size):
        return None
    whole = picture.size
    drafted = picture.draft(None, resized_size(whole, size, how))  # None: the mode stays
    return None if drafted is None or picture.size == whole else drafted[1][2:]


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))
