"""Changes of what pixels are: of one picture `[H, W, 3]`, floating-point in [0, 1]; torchvision's formulas."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.augment import AugmentConfig

_LUMINANCE = (0.2989, 0.587, 0.114)  # torchvision's, of ITU-R 601-2


def jitter(config: AugmentConfig, image: jax.Array, key: jax.Array) -> jax.Array:
    """torchvision's `ColorJitter`: its four changes in an order that is drawn too."""
    order_key, factor_key = jax.random.split(key)
    spread = jnp.array([config.brightness, config.contrast, config.saturation])
    draws = jax.random.uniform(factor_key, (4,))
    low = jnp.maximum(0, 1 - spread)
    factors = jnp.append(low + draws[:3] * (1 + spread - low), config.hue * (2 * draws[3] - 1))
    # Those that are not asked for change nothing: a factor of 1, no turn.
    wanted = (config.brightness, config.contrast, config.saturation, config.hue)
    all_changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    changes = [change for change, amount in zip(all_changes, wanted, strict=True) if amount]
    numbers = jnp.array([number for number, amount in enumerate(wanted) if amount])
    for number in jax.random.permutation(order_key, len(changes)):
        image = lax.switch(number, changes, image, factors[numbers[number]])
    return image


def random_grayscale(probability: float, image: jax.Array, key: jax.Array) -> jax.Array:
    """torchvision's `RandomGrayscale`."""
    return jnp.where(jax.random.bernoulli(key, probability), grayscale(image), image)


def grayscale(image: jax.Array) -> jax.Array:
    """`[H, W, 1]`."""
    return jnp.sum(image * jnp.array(_LUMINANCE, image.dtype), axis=-1, keepdims=True)


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
    largest, smallest = jnp.max(image, axis=-1), jnp.min(image, axis=-1)
    chroma = largest - smallest
    divisor = jnp.where(chroma == 0, 1, chroma)
    red, green, blue = (image[..., i] for i in range(3))
    sixth = jnp.where(
        largest == red,
        (green - blue) / divisor % 6,
        jnp.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixth = sixth + 6 * turn
    # Each channel from hue: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    place = (jnp.array([5.0, 3.0, 1.0], image.dtype) + sixth[..., None]) % 6
    share = jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    return largest[..., None] - chroma[..., None] * share
