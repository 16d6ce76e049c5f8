"""A whole block of the notes' network as one operation: convolution, BatchNorm, ReLU, max pooling.

Pooled first: BatchNorm and ReLU keep the order of values, or turn it around where BatchNorm's scale is negative, so
that pooling finds the same places, and the rest is a quarter of the work. `model.blocks.ConvBlock` has the plain
form.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxfood.model.fused.conv_pool import Pooled, conv3x3_max_pool
from jaxfood.model.fused.forms import by_platform
from jaxfood.model.layers import EPSILON, Moments, Statistics, sum_over

_Read = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def conv_norm_relu_pool(
    x: jax.Array,
    kernel: jax.Array,
    conv_bias: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    statistics: Statistics,
    *,
    train: bool,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, Statistics]:
    """`max_pool(relu(batch_norm(convolution(x))))` and the new running statistics.

    Normalising by the batch takes the convolution's bias out again, so in training it is only ever added to the running
    mean, and its gradient is exactly zero (in PyTorch it is rounding noise around zero).

    Gradients of any kind and forward over reverse (`jvp` of `grad`) work; `jvp` of the function itself does not.

    Args:
        x: `[B, H, W, in]`, H and W even, of the type to compute in.
        kernel: `[3, 3, in, out]`, of the same type.
        conv_bias: `[out]`, the convolution's, if it has one.
        scale: `[out]`, BatchNorm's.
        bias: `[out]`, BatchNorm's.
        statistics: the running ones, which normalise where `train` is false.
        train: normalise by the batch.
        mask: `[B]`, 1 for pictures and 0 for padding, which enters no statistic.
        axis_name: mapped axis over which the batch is split: the moments are the whole batch's.

    Returns:
        `[B, H/2, W/2, out]` of the type of `x`, and the statistics, changed only where `train` is true.
    """
    pooled = conv3x3_max_pool(x, kernel, scale)
    offset = 0 if conv_bias is None else conv_bias
    if train:
        mean, var, size = _moments(pooled, mask, axis_name)
        statistics = statistics.after(Moments(mean + offset, var, size))
    else:
        mean, var = statistics.mean - offset, statistics.var
    factor = scale * lax.rsqrt(var + EPSILON)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return _normalise_relu(pooled.values, mean.astype(wide), factor.astype(wide), bias.astype(wide)), statistics


def _moments(pooled: Pooled, mask: jax.Array | None, axis_name: str | None) -> Moments:
    """Those of each channel over the unmasked pictures, from each picture's own.

    The variance is the mean of the pictures' and the variance of their means (Chan, Golub and LeVeque 1983), which
    loses no digits.
    """
    dtype = pooled.mean.dtype
    weight = jnp.ones(len(pooled.mean), dtype) if mask is None else mask.astype(dtype)
    pictures = sum_over(weight, 0, axis_name)
    fraction = (weight / jnp.maximum(pictures, 1))[:, None]

    def mean_of(values: jax.Array) -> jax.Array:
        return sum_over(jnp.where(fraction > 0, values * fraction, 0), 0, axis_name)

    mean = mean_of(pooled.mean)
    var = mean_of(pooled.var + jnp.square(pooled.mean - mean))
    height, width = pooled.values.shape[1:3]
    return Moments(mean, var, pictures * (4 * height * width))  # each of the pooled stands for four


@jax.custom_vjp
def _normalise_relu(x: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """`relu((x - mean) * factor + offset)`, computed in the type of the last three, returned in that of `x`.

    JAX's own gradient would keep `x - mean` and pass over the arrays once more for each of the sums.
    """
    return _save(x, mean, factor, offset)[0]


def _save(
    x: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    normalised = (x.astype(mean.dtype) - mean) * factor + offset
    return nn.relu(normalised).astype(x.dtype), (x, normalised > 0, mean, factor, offset)


def _read(x: jax.Array, is_positive: jax.Array, mean: jax.Array, factor: jax.Array, _: jax.Array) -> _Read:
    # Without the barrier XLA keeps what it computed of `x`, beside `x`.
    read: _Read = lax.optimization_barrier((x, is_positive, mean, factor))
    return read


def _read_on_tpu(x: jax.Array, _: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array) -> _Read:
    """The same without the marks: to write and to read them costs a TPU more than to find them again."""
    x, mean, factor, offset = lax.optimization_barrier((x, mean, factor, offset))
    return x, (x.astype(mean.dtype) - mean) * factor + offset > 0, mean, factor


def _backward(saved: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, ...]:
    x, is_positive, mean, factor = by_platform(_read, _read, *saved, on_tpu=_read_on_tpu)
    wide_g = jnp.where(is_positive, g.astype(mean.dtype), 0)
    factor_g = jnp.sum(wide_g * (x.astype(mean.dtype) - mean), (0, 1, 2))
    offset_g = jnp.sum(wide_g, (0, 1, 2))
    return (wide_g * factor).astype(x.dtype), -factor * offset_g, factor_g, offset_g


_normalise_relu.defvjp(_save, _backward)
