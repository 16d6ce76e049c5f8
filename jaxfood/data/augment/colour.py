"""Changes of what pixels are: of one picture `[3, H, W]`, floating-point in [0, 1]; torchvision's formulas.

Channels come first because no CPU vectorises over a last axis of three: grey took 240 us of a core at 96 px so, and
takes 20.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.augment import AugmentConfig

_LUMINANCE = (0.2989, 0.587, 0.114)  # torchvision's, of ITU-R 601-2


class Jitter(NamedTuple):
    """What is drawn for `jitter`: its changes by their numbers among those asked for, and their factors; `[n]`."""

    order: jax.Array
    factors: jax.Array


def draw_jitter(config: AugmentConfig, key: jax.Array) -> Jitter:
    """torchvision's `ColorJitter.make_params`: each factor uniform, their order too."""
    order_key, factor_key = jax.random.split(key)
    spread = jnp.array([config.brightness, config.contrast, config.saturation])
    draws = jax.random.uniform(factor_key, (4,))
    low = jnp.maximum(0, 1 - spread)
    factors = jnp.append(low + draws[:3] * (1 + spread - low), config.hue * (2 * draws[3] - 1))
    wanted = [number for number, amount in enumerate(_amounts(config)) if amount]
    order = jax.random.permutation(order_key, len(wanted))
    return Jitter(order, factors[jnp.array(wanted)][order])


def jitter(config: AugmentConfig, image: jax.Array, drawn: Jitter) -> jax.Array:
    """torchvision's `ColorJitter`: its four changes in an order that is drawn too."""
    all_changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    wanted = [change for change, amount in zip(all_changes, _amounts(config), strict=True) if amount]
    for place in range(len(wanted)):
        image = lax.switch(drawn.order[place], wanted, image, drawn.factors[place])
    return image


def _amounts(config: AugmentConfig) -> tuple[float, ...]:
    return (config.brightness, config.contrast, config.saturation, config.hue)


def to_grayscale_if(image: jax.Array, chosen: jax.Array) -> jax.Array:
    """torchvision's `RandomGrayscale`, once drawn."""
    return lax.cond(chosen, lambda image: jnp.broadcast_to(grayscale(image), image.shape), lambda image: image, image)


def grayscale(image: jax.Array) -> jax.Array:
    """`[H, W]`."""
    red, green, blue = (share * plane for share, plane in zip(_LUMINANCE, image, strict=True))
    return red + green + blue


def blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    """A factor of 1 is the image, 0 the other, 2 as far on the other side; values stay in [0, 1]."""
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards black, or away from it."""
    return blend(image, jnp.zeros_like(image), factor)


def adjust_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards the mean grey, or away from it."""
    return blend(image, jnp.mean(grayscale(image)), factor)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards the grey picture, or away from it."""
    return blend(image, grayscale(image), factor)


def adjust_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """The hue of the HSV model turned by a share of the circle."""
    red, green, blue = image
    largest, smallest = (pick(red, pick(green, blue)) for pick in (jnp.maximum, jnp.minimum))
    chroma = largest - smallest
    divisor = jnp.where(chroma == 0, 1, chroma)
    sixth = jnp.where(
        largest == red,
        (green - blue) / divisor,
        jnp.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixth = sixth + 6 * turn
    # Each channel from hue: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    # Not `%`, for which XLA calls a function for each pixel on a CPU: with it all of this takes 400 us, so 40.
    places = [start + sixth - 6 * jnp.floor((start + sixth) / 6) for start in (5, 3, 1)]
    return jnp.stack([largest - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1) for place in places])
