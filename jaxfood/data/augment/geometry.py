"""Changes of where pixels are: of one picture `[3, H, W]`, floating-point in [0, 1] unless it says otherwise."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxfood.config.augment import AugmentConfig

_ATTEMPTS = 10  # torchvision's, to draw a rectangle that fits
_ERASED_SCALE, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # torchvision's


class Window(NamedTuple):
    """A part of a picture, in whole pixels; each is a number `[]`."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


def draw_window(key: jax.Array, sides: tuple[int, int], least_area: float, most_ratio: float) -> Window:
    """What torchvision's `RandomResizedCrop(scale=(least_area, 1), ratio=(1 / most_ratio, most_ratio))` cuts out.

    The area is uniform, the logarithm of width over height too. Of ten attempts the first that fits is taken; if none
    does, the whole picture, which is a square here.
    """
    rectangle_key, place_key = jax.random.split(key)
    limit = math.log(most_ratio)
    heights, widths = _draw_rectangles(rectangle_key, sides, (least_area, 1.0), (-limit, limit))
    fits = (heights > 0) & (heights <= sides[0]) & (widths > 0) & (widths <= sides[1])
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    y, x = jax.random.uniform(place_key, (2,))
    drawn = Window(_place(y, sides[0] - height), _place(x, sides[1] - width), height, width)
    everything = (0, 0, *sides)
    return Window(*(jnp.where(fits.any(), a, b) for a, b in zip(drawn, everything, strict=True)))


class Weights(NamedTuple):
    """How much of each pixel of a line goes into each of the new ones: `[size, H]` and `[size, W]`."""

    rows: jax.Array
    columns: jax.Array


def draw_resize(config: AugmentConfig, sides: tuple[int, int], size: int, key: jax.Array) -> Weights:
    """torchvision's `RandomResizedCrop.make_params`, or the whole picture, as the weights that resize it."""
    window = Window(*map(jnp.asarray, (0, 0, *sides)))
    if config.resized_crop:
        window = draw_window(key, sides, config.resized_crop, config.resized_crop_ratio)
    return weights(window, sides, size)


def weights(window: Window, sides: tuple[int, int], size: int) -> Weights:
    """Those of a part of a picture, bilinear and antialiased, as Pillow's resize of the part."""
    return Weights(
        _weights(window.top, window.height, sides[0], size), _weights(window.left, window.width, sides[1], size)
    )


def resize(image: jax.Array, weights: Weights) -> jax.Array:
    """A part of a picture as `[3, size, size]`.

    Two products with the weights of rows and of columns, which is what accelerators and CPUs are best at.
    """
    rows, columns = (each.astype(image.dtype) for each in weights)
    narrow = jnp.einsum("chw,xw->chx", image, columns, precision=lax.Precision.HIGHEST)
    return jnp.einsum("yh,chx->cyx", rows, narrow, precision=lax.Precision.HIGHEST)


def _weights(start: jax.Array, length: jax.Array, side: int, size: int) -> jax.Array:
    """`[size, side]`."""
    scale = length / size
    centres = start + (jnp.arange(size) + 0.5) * scale
    pixels = jnp.arange(side) + 0.5
    found = jnp.maximum(0, 1 - jnp.abs(pixels - centres[:, None]) / jnp.maximum(scale, 1))
    found = jnp.where((pixels > start) & (pixels < start + length), found, 0)
    return found / found.sum(axis=1, keepdims=True)


def flip(image: jax.Array, chosen: jax.Array, *, axis: int) -> jax.Array:
    """torchvision's `RandomHorizontalFlip` (axis 2) and `RandomVerticalFlip` (axis 1), once drawn; of any type."""
    return lax.cond(chosen, lambda image: jnp.flip(image, axis), lambda image: image, image)


def draw_corner(padding: int, key: jax.Array) -> jax.Array:
    """The upper left corner of what `crop` cuts out, `[2]`."""
    return jax.random.randint(key, (2,), 0, 2 * padding + 1)


def crop(padding: int, image: jax.Array, corner: jax.Array) -> jax.Array:
    """torchvision's `RandomCrop(size, padding=padding, padding_mode="reflect")`, once drawn; of any type."""
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    return lax.dynamic_slice(padded, (0, corner[0], corner[1]), image.shape)


class Affine(NamedTuple):
    """The arguments of `affine`."""

    angle: jax.Array
    shift: jax.Array
    scale: jax.Array
    shear: jax.Array


def draw_affine(config: AugmentConfig, sides: tuple[int, int], key: jax.Array) -> Affine:
    """torchvision's `RandomAffine.make_params`: each uniform, the shift in whole pixels."""
    draws = jax.random.uniform(key, (6,), minval=-1, maxval=1)
    shift = jnp.round(draws[1:3] * config.translate * jnp.array(sides[::-1]))
    return Affine(draws[0] * config.rotation, shift, 1 + draws[5] * config.zoom, draws[3:5] * config.shear)


def transform(image: jax.Array, drawn: Affine) -> jax.Array:
    """torchvision's `RandomAffine`, once drawn; of what comes in from outside black."""
    return affine(image, *drawn)


def affine(
    image: jax.Array,
    angle: jax.Array | float = 0.0,
    shift: jax.Array | tuple[float, float] = (0.0, 0.0),
    scale: jax.Array | float = 1.0,
    shear: jax.Array | tuple[float, float] = (0.0, 0.0),
    centre: tuple[float, float] | None = None,
) -> jax.Array:
    """torchvision's `functional.affine`, bilinear, black outside.

    Args:
        image: `[3, H, W]`.
        angle: in degrees, clockwise.
        shift: to the right and down, in pixels.
        scale: above 1 enlarges.
        shear: along x and y, in degrees.
        centre: x and y of what stays in its place, in pixels from the upper left corner; None: the middle.
    """
    _, height, width = image.shape
    turn, (shear_x, shear_y) = jnp.radians(angle), jnp.radians(jnp.asarray(shear))
    a, c = jnp.cos(turn - shear_y) / jnp.cos(shear_y), jnp.sin(turn - shear_y) / jnp.cos(shear_y)
    b, d = -a * jnp.tan(shear_x) - jnp.sin(turn), -c * jnp.tan(shear_x) + jnp.cos(turn)
    centre_x, centre_y = (width / 2, height / 2) if centre is None else centre
    x = jnp.arange(width)[None] + 0.5 - centre_x - shift[0]
    y = jnp.arange(height)[:, None] + 0.5 - centre_y - shift[1]
    # The inverse: where each new pixel comes from. Rotation, scale and shear have the determinant scale^2.
    source_x = (d * x - b * y) / scale + centre_x - 0.5
    source_y = (-c * x + a * y) / scale + centre_y - 0.5
    # Beyond the edges lies black, into which `map_coordinates` fades as PyTorch's `grid_sample` does.
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1)))
    sample = jax.vmap(lambda channel: map_coordinates(channel, [source_y + 1, source_x + 1], order=1))
    return sample(padded)


def draw_erased(probability: float, sides: tuple[int, int], key: jax.Array) -> Window:
    """What torchvision's `RandomErasing(p=probability)` makes black; without height and width where it does not."""
    chosen_key, rectangle_key, place_key = jax.random.split(key, 3)
    low, high = map(math.log, _ERASED_RATIO)
    widths, heights = _draw_rectangles(rectangle_key, sides, _ERASED_SCALE, (low, high))
    fits = (heights < sides[0]) & (widths < sides[1])
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    y, x = jax.random.uniform(place_key, (2,))
    chosen = jax.random.bernoulli(chosen_key, probability) & fits.any()
    return Window(_place(y, sides[0] - height), _place(x, sides[1] - width), height * chosen, width * chosen)


def erase(image: jax.Array, window: Window) -> jax.Array:
    """A picture with a part made black, of any type."""
    rows, columns = jnp.arange(image.shape[1])[:, None], jnp.arange(image.shape[2])[None]
    inside_rows = (rows >= window.top) & (rows < window.top + window.height)
    inside_columns = (columns >= window.left) & (columns < window.left + window.width)
    return jnp.where(inside_rows & inside_columns, 0, image)


def _draw_rectangles(
    key: jax.Array, sides: tuple[int, int], areas: tuple[float, float], log_ratios: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Heights and widths of several rectangles, in whole pixels: areas uniform, as shares; ratios width by height."""
    area_key, ratio_key = jax.random.split(key)
    area = math.prod(sides) * jax.random.uniform(area_key, (_ATTEMPTS,), minval=areas[0], maxval=areas[1])
    ratio = jnp.exp(jax.random.uniform(ratio_key, (_ATTEMPTS,), minval=log_ratios[0], maxval=log_ratios[1]))
    return jnp.round(jnp.sqrt(area / ratio)).astype(int), jnp.round(jnp.sqrt(area * ratio)).astype(int)


def _place(share: jax.Array, room: jax.Array) -> jax.Array:
    """One of `room` + 1 places, all as likely."""
    return jnp.minimum(jnp.floor(share * (room + 1)), room).astype(int)
