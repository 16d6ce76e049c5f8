"""How a picture of any proportions becomes a square: `data.resize`."""

from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR

# A picture that is longer than so many squares is cut before it is resized: a line of 1,000,000 x 1 pixels, its shorter
# side resized to 128, would take 65 GB.
_LONGEST = 8


def to_square(picture: Image.Image, size: int, how: str) -> Image.Image:
    """A picture resized, by bilinear interpolation with antialiasing, to `size` x `size` pixels.

    Args:
        picture: RGB.
        size: in pixels.
        how: "squash": both sides to `size`, as torchvision's `Resize((S, S))`. "crop": the shorter side to `size`, then
            the middle of the longer one, as `Resize(S)` and `CenterCrop(S)`. "pad": the longer side to `size`, in the
            middle of a black square, as Pillow's `ImageOps.pad`. Each equal to the bit to what it is named after; but
            of pictures over 8 times as long as wide "crop" takes the middle first, to a pixel.
    """
    match how:
        case "squash":
            return picture.resize((size, size), _BILINEAR)
        case "crop":
            return _crop(picture, size)
        case "pad":
            return _pad(picture, size)
    raise ValueError(f"no way to resize is called {how}")


def _crop(picture: Image.Image, size: int) -> Image.Image:
    short, long = sorted(picture.size)
    if long > _LONGEST * short:
        picture = _middle(picture, *(min(side, _LONGEST * short) for side in picture.size))
        long = _LONGEST * short
    scaled = size * long // short  # rounded down, as torchvision does
    width, height = (size, scaled) if picture.width <= picture.height else (scaled, size)
    return _middle(picture.resize((width, height), _BILINEAR), size, size)


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _pad(picture: Image.Image, size: int) -> Image.Image:
    longest = max(picture.size)
    width, height = (max(1, round(side / longest * size)) for side in picture.size)
    square = Image.new("RGB", (size, size))
    square.paste(picture.resize((width, height), _BILINEAR), (round((size - width) / 2), round((size - height) / 2)))
    return square
