"""Filters: those of the first layer as pictures, and what those of a later layer look for."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.evaluation.explanations.features import check_layer, convolutional_layers, tapped_logits
from jaxfood.evaluation.explanations.scores import Variables
from jaxfood.model.network import Network

_RATE = 0.05  # the root mean square of a step, where values go from 0 to 1
_DECAY = 0.02  # of the distance from grey in a step
_SHIFT = 2  # pixels
_BLUR_EVERY = 4  # steps


class Maximised(NamedTuple):
    """Pictures that channels of a layer answer to.

    Attributes:
        images: `[K, H, W, 3]` in [0, 1].
        activations: `[K]`, the mean over all places of each one's channel.
    """

    images: np.ndarray
    activations: np.ndarray


def first_filters(model: Network, variables: Variables, side: int) -> np.ndarray:
    """The filters of the first layer as it sees pixels, `[F, h, w, 3]`.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        side: height and width of the network's images, in pixels.
    """
    first = next(iter(convolutional_layers(model, variables, side)))
    kernel = np.asarray(variables["params"][first]["kernel"], np.float32)
    height, width, features_in, features = kernel.shape
    # `model.resnet` sees squares of pixels as one with more channels: row and column in the square, then colour.
    square = math.isqrt(features_in // 3)
    parts = kernel.reshape(height, width, square, square, 3, features)
    return parts.transpose(5, 0, 2, 1, 3, 4).reshape(features, height * square, width * square, 3)


def maximise(
    model: Network,
    variables: Variables,
    layer: str,
    channels: np.ndarray,
    side: int,
    *,
    steps: int = 64,
    seed: int = 0,
) -> Maximised:
    """Pictures that make channels of a layer as active as can be, by gradient ascent from noise.

    Erhan et al. 2009, with what keeps out patterns that no picture has: a pull to grey and blurring (Yosinski et al.
    2015, https://arxiv.org/abs/1506.06579) and random shifts (Olah, Mordvintsev and Schubert 2017,
    https://distill.pub/2017/feature-visualization). A step has the same length whatever the channel's scale.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        layer: the name of a convolutional layer.
        channels: `[K]`, the layer's.
        side: height and width of the pictures, in pixels, divisible by 32.
        steps: of the ascent; 0: the noise that it begins with.
        seed: of noise and shifts.

    Raises:
        UserError: the network has no such layer.
    """
    check_layer(model, variables, side, layer)
    key = jax.random.key(seed)
    images = 0.5 + 0.1 * jax.random.normal(key, (len(channels), side, side, 3), jnp.float32)
    for step in range(steps):
        shift = jax.random.randint(jax.random.fold_in(key, step), (2,), -_SHIFT, _SHIFT + 1)
        images = _ascend(model, variables, layer, channels, images, shift, step % _BLUR_EVERY == _BLUR_EVERY - 1)
    images = jnp.clip(images, 0, 1)
    return Maximised(np.asarray(images), np.asarray(_activations(model, variables, layer, channels, images)))


@partial(jax.jit, static_argnames=("model", "layer"))
def _activations(model: Network, variables: Variables, layer: str, channels: jax.Array, images: jax.Array) -> jax.Array:
    """The mean over all places of each picture's channel, `[K]`."""
    seen = []

    def tap(name: str, _: jax.Array, output: jax.Array) -> jax.Array:
        if name == layer:
            seen.append(jnp.take_along_axis(jnp.mean(output, (1, 2)), jnp.asarray(channels)[:, None], axis=1)[:, 0])
        return output

    tapped_logits(model, variables, images, tap)
    return seen[0]


@partial(jax.jit, static_argnames=("model", "layer"))
def _ascend(
    model: Network,
    variables: Variables,
    layer: str,
    channels: jax.Array,
    images: jax.Array,
    shift: jax.Array,
    blurs: bool,
) -> jax.Array:
    """One step."""

    def total(images: jax.Array) -> jax.Array:
        shifted = jnp.roll(images, shift, (1, 2))
        return jnp.sum(_activations(model, variables, layer, channels, shifted))

    gradient = jax.grad(total)(images)
    size = jnp.sqrt(jnp.mean(jnp.square(gradient), (1, 2, 3), keepdims=True))
    moved = images + _RATE * gradient / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    moved = 0.5 + (1 - _DECAY) * (jnp.clip(moved, 0, 1) - 0.5)
    return jnp.where(blurs, _blurred(moved), moved)


def _blurred(images: jax.Array) -> jax.Array:
    """Half of each pixel and a quarter of both neighbours, in both directions; beyond the edge it is as at the edge."""
    for axis in (1, 2):
        pads = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(images, pads, mode="edge")
        before, after = (jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis) for i in (0, 2))
        images = (before + 2 * images + after) / 4
    return images


def telling_channels(means: np.ndarray, count: int) -> np.ndarray:
    """The channels that tell pictures apart most: those of the largest spread between pictures against their mean.

    Args:
        means: `[N, C]`, the mean over all places of each channel, for N pictures.
        count: how many channels to take at most.

    Returns:
        Their numbers, the first first; a channel that is the same in all pictures is none.
    """
    spread = means.std(0) / np.maximum(np.abs(means).mean(0), np.finfo(np.float32).tiny)
    spread = np.where(means.std(0) > 0, spread, 0)
    # Of equal ones the first: the order is the same wherever it is computed.
    order = np.lexsort((np.arange(len(spread)), -spread))[:count]
    return order[spread[order] > 0]


def top_pictures(means: np.ndarray, channels: np.ndarray, count: int) -> np.ndarray:
    """The rows `[K, count]` of the pictures that activate each channel most, the first most, by means `[N, C]`."""
    return np.argsort(-means[:, channels], axis=0, kind="stable")[:count].T
