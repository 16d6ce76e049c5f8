"""BatchNorm with ReLU, and what weights start from: PyTorch's meaning."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

from jaxfood.model.convolution import Pooled


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what `nn.Conv2d` and `nn.Linear` start from, weights and biases alike."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BatchNormReLU(nn.Module):
    """`nn.BatchNorm2d` and `nn.ReLU`, after max pooling: learned `scale`, `bias`, running `mean`, `var`, all `[C]`.

    It is given what pooling took, by `scale`, and the moments of all values (`conv3x3_max_pool`). As in PyTorch the
    batch is normalised by its biased variance, and the running variance takes the unbiased one.
    """

    features: int
    momentum: float = 0.1  # share of the batch in the running statistics (Flax counts the other share)
    epsilon: float = 1e-5
    axis_name: str | None = None  # mapped axis over which the batch is split: its moments are the whole batch's

    def setup(self) -> None:
        channels = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, channels)
        self.bias = self.param("bias", nn.initializers.zeros, channels)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        self.var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

    def __call__(
        self, pooled: Pooled, *, conv_bias: jax.Array, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalise `pooled.values + conv_bias`, in at least float32, then ReLU: `[B, H, W, C]` in and out.

        `conv_bias` `[C]` is the convolution's. Normalising by the batch takes it out again, so it is only ever added to
        the running mean, and its gradient in training is exactly zero (in PyTorch it is rounding noise around zero).
        `mask` `[B]` is 1 for pictures and 0 for padding, which enters no statistic.
        """
        x = pooled.values
        if train:
            mean, var, pictures = _moments(pooled, mask, self.axis_name)
            if not self.is_initializing():
                count = pictures * (4 * x.shape[1] * x.shape[2])  # each of the pooled stands for four
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                momentum = self.momentum * (count > 0)  # a batch that is all padding has nothing to say
                self.mean.value += momentum * (lax.stop_gradient(mean + conv_bias) - self.mean.value)
                self.var.value += momentum * (lax.stop_gradient(unbiased) - self.var.value)
        else:
            mean, var = self.mean.value - conv_bias, self.var.value
        factor = self.scale * lax.rsqrt(var + self.epsilon)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return _normalise_relu(x, mean.astype(wide), factor.astype(wide), self.bias.astype(wide))


@jax.custom_vjp
def _normalise_relu(x: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """`relu((x - mean) * factor + offset)`, computed in the type of the last three, returned in that of `x`.

    JAX's own gradient would keep `x - mean` and pass over the arrays once more for each of the sums. As with
    `conv3x3_max_pool`, `jvp` of the gradient works, `jvp` of the function itself does not.
    """
    return _save(x, mean, factor, offset)[0]


def _save(
    x: jax.Array, mean: jax.Array, factor: jax.Array, offset: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    normalised = (x.astype(mean.dtype) - mean) * factor + offset
    return nn.relu(normalised).astype(x.dtype), (x, normalised > 0, mean, factor)


def _backward(saved: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, ...]:
    # Without the barrier XLA keeps what it computed of `x`, beside `x`.
    x, is_positive, mean, factor = lax.optimization_barrier(saved)
    wide_g = jnp.where(is_positive, g.astype(mean.dtype), 0)
    factor_g = jnp.sum(wide_g * (x.astype(mean.dtype) - mean), (0, 1, 2))
    offset_g = jnp.sum(wide_g, (0, 1, 2))
    return (wide_g * factor).astype(x.dtype), -factor * offset_g, factor_g, offset_g


_normalise_relu.defvjp(_save, _backward)


def _moments(pooled: Pooled, mask: jax.Array | None, axis_name: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance of each channel over the unmasked pictures, and how many pictures these are.

    The variance is the mean of the pictures' and the variance of their means (Chan, Golub and LeVeque 1983), which
    loses no digits.
    """

    def total(values: jax.Array) -> jax.Array:
        here = jnp.sum(values, 0)
        return here if axis_name is None else lax.psum(here, axis_name)

    dtype = pooled.mean.dtype
    weight = jnp.ones(len(pooled.mean), dtype) if mask is None else mask.astype(dtype)
    pictures = total(weight)
    share = (weight / jnp.maximum(pictures, 1))[:, None]
    mean = total(pooled.mean * share)
    var = total((pooled.var + jnp.square(pooled.mean - mean)) * share)
    return mean, var, pictures
