"""TrivialAugment (Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158): one change of a random kind and strength.

The kinds and their strengths are those of torchvision's `TrivialAugmentWide`, but pixels are interpolated bilinearly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.data.augment import colour, geometry

_STRENGTHS = 31  # of which one is drawn, 0 to 30
_SHEAR, _SHIFT, _DEGREES, _FACTOR, _BITS = 0.99, 32.0, 135.0, 0.99, 6  # at the last one


class Draw(NamedTuple):
    """What is drawn for a picture; each is a number `[]`."""

    kind: jax.Array  # its place in CHANGES
    strength: jax.Array  # 0 to 1
    signed: jax.Array  # the same up or down


def draw(key: jax.Array) -> Draw:
    """A kind, one of 31 strengths and a sign, each as likely as the others."""
    kind_key, strength_key, sign_key = jax.random.split(key, 3)
    strength = jax.random.randint(strength_key, (), 0, _STRENGTHS) / (_STRENGTHS - 1)
    signed = strength * jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    kind = jax.random.randint(kind_key, (), 0, len(CHANGES))
    return Draw(kind, strength, signed)


def trivial_augment(image: jax.Array, drawn: Draw) -> jax.Array:
    """A picture `[3, H, W]` in [0, 1], changed once."""
    return lax.switch(drawn.kind, list(CHANGES.values()), image, drawn.strength, drawn.signed)


def _shear_x(image: jax.Array, _: jax.Array, signed: jax.Array) -> jax.Array:
    return geometry.affine(image, shear=jnp.stack([_degrees(signed), 0 * signed]), centre=(0, 0))


def _shear_y(image: jax.Array, _: jax.Array, signed: jax.Array) -> jax.Array:
    return geometry.affine(image, shear=jnp.stack([0 * signed, _degrees(signed)]), centre=(0, 0))


def _degrees(signed: jax.Array) -> jax.Array:
    return jnp.degrees(jnp.arctan(_SHEAR * signed))


def _translate_x(image: jax.Array, _: jax.Array, signed: jax.Array) -> jax.Array:
    return geometry.affine(image, shift=jnp.stack([jnp.trunc(_SHIFT * signed), 0 * signed]))


def _translate_y(image: jax.Array, _: jax.Array, signed: jax.Array) -> jax.Array:
    return geometry.affine(image, shift=jnp.stack([0 * signed, jnp.trunc(_SHIFT * signed)]))


def _rotate(image: jax.Array, _: jax.Array, signed: jax.Array) -> jax.Array:
    return geometry.affine(image, angle=_DEGREES * signed)


def sharpen(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Towards a smoothed picture, or away from it; the edge stays (`adjust_sharpness`)."""
    kernel = jnp.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], image.dtype) / 13
    _, height, width = image.shape
    shifted = [kernel[i, j] * image[:, i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    return colour.blend(image, image.at[:, 1:-1, 1:-1].set(sum(shifted[1:], shifted[0])), factor)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Of each value of eight bits the first few alone."""
    unit = 2 ** (8 - bits)
    return _bytes(image) // unit * unit / jnp.float32(255)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """What is at least as bright as a threshold becomes its negative."""
    return jnp.where(image >= threshold, 1 - image, image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel from its darkest to its brightest becomes 0 to 1; one of a single value stays."""
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    span = high - low
    return jnp.where(span == 0, image, (image - low) / jnp.where(span == 0, 1, span))


def equalize(image: jax.Array) -> jax.Array:
    """Each channel by the table that Pillow's `ImageOps.equalize` makes of its histogram."""

    def of_channel(values: jax.Array) -> jax.Array:
        histogram = jnp.zeros(256, jnp.int32).at[values.reshape(-1)].add(1)
        last = jnp.max(jnp.where(histogram > 0, jnp.arange(256), 0))
        step = (values.size - histogram[last]) // 255
        table = (jnp.cumsum(histogram) - histogram + step // 2) // jnp.maximum(step, 1)
        return jnp.where(step == 0, values, jnp.clip(table, 0, 255)[values])

    return jax.vmap(of_channel)(_bytes(image)) / jnp.float32(255)


def _bytes(image: jax.Array) -> jax.Array:
    return jnp.round(image * 255).astype(jnp.int32)


CHANGES = {
    "Identity": lambda image, strength, signed: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": lambda image, strength, signed: colour.adjust_brightness(image, 1 + _FACTOR * signed),
    "Color": lambda image, strength, signed: colour.adjust_saturation(image, 1 + _FACTOR * signed),
    "Contrast": lambda image, strength, signed: colour.adjust_contrast(image, 1 + _FACTOR * signed),
    "Sharpness": lambda image, strength, signed: sharpen(image, 1 + _FACTOR * signed),
    "Posterize": lambda image, strength, signed: posterize(image, 8 - jnp.round(_BITS * strength).astype(jnp.int32)),
    "Solarize": lambda image, strength, signed: solarize(image, 1 - strength),
    "AutoContrast": lambda image, strength, signed: autocontrast(image),
    "Equalize": lambda image, strength, signed: equalize(image),
}
