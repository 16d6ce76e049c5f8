"""Changes of where pixels are: of one picture `[H, W, 3]`, floating-point in [0, 1] unless it says otherwise."""

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


def whole(image: jax.Array) -> Window:
    """All of a picture."""
    height, width = image.shape[:2]
    return Window(*map(jnp.asarray, (0, 0, height, width)))


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


def resize(image: jax.Array, window: Window, size: int) -> jax.Array:
    """A part of a picture as `[size, size, 3]`: bilinear and antialiased, as Pillow's resize of the part.

    Two products with the weights of rows and of columns, which is what accelerators and CPUs are best at.
    """
    rows = _weights(window.top, window.height, image.shape[0], size).astype(image.dtype)
    columns = _weights(window.left, window.width, image.shape[1], size).astype(image.dtype)
    return jnp.einsum("yh,hwc,xw->yxc", rows, image, columns, precision=lax.Precision.HIGHEST)


def _weights(start: jax.Array, length: jax.Array, side: int, size: int) -> jax.Array:
    """`[size, side]`: how much of each pixel of a line goes into each of the new ones."""
    scale = length / size
    centres = start + (jnp.arange(size) + 0.5) * scale
    pixels = jnp.arange(side) + 0.5
    weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres[:, None]) / jnp.maximum(scale, 1))
    weights = jnp.where((pixels > start) & (pixels < start + length), weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def crop(image: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """torchvision's `RandomCrop(size, padding=padding, padding_mode="reflect")`, of any type."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    corner = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)


def random_affine(config: AugmentConfig, image: jax.Array, key: jax.Array) -> jax.Array:
    """torchvision's `RandomAffine`, of what comes in from outside black."""
    height, width = image.shape[:2]
    draws = jax.random.uniform(key, (6,), minval=-1, maxval=1)
    shift = jnp.round(draws[1:3] * config.translate * jnp.array([width, height]))
    shear = draws[3:5] * config.shear
    return affine(image, draws[0] * config.rotation, shift, 1 + draws[5] * config.zoom, shear)


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
        image: `[H, W, 3]`.
        angle: in degrees, clockwise.
        shift: to the right and down, in pixels.
        scale: above 1 enlarges.
        shear: along x and y, in degrees.
        centre: x and y of what stays in its place, in pixels from the upper left corner; None: the middle.
    """
    height, width = image.shape[:2]
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
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    sample = jax.vmap(lambda channel: map_coordinates(channel, [source_y + 1, source_x + 1], order=1), 2, 2)
    return sample(padded)


def random_erasing(probability: float, image: jax.Array, key: jax.Array) -> jax.Array:
    """torchvision's `RandomErasing(p=probability)`: its scale and ratio, and its value 0."""
    chosen_key, rectangle_key, place_key = jax.random.split(key, 3)
    sides = (image.shape[0], image.shape[1])
    low, high = map(math.log, _ERASED_RATIO)
    widths, heights = _draw_rectangles(rectangle_key, sides, _ERASED_SCALE, (low, high))
    fits = (heights < sides[0]) & (widths < sides[1])
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    y, x = jax.random.uniform(place_key, (2,))
    top, left = _place(y, sides[0] - height), _place(x, sides[1] - width)
    rows, columns = jnp.arange(sides[0])[:, None], jnp.arange(sides[1])[None]
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    chosen = jax.random.bernoulli(chosen_key, probability) & fits.any()
    return jnp.where((inside & chosen)[..., None], 0, image)


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
