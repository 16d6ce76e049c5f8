"""The classifier's layers: PyTorch's meaning, this hardware's speed.

Arrays are `[B, H, W, C]`, kernels `[height, width, in, out]`.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_GROUP = 4  # pictures per kernel-gradient product: enough for a full matrix product, few enough for the cache


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what `nn.Conv2d` and `nn.Linear` start from, weights and biases alike."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution, stride 1, padding 1, without bias: `[B, H, W, in]` and `[3, 3, in, out]` to `[B, H, W, out]`.

    XLA's CPU backend is slow at a kernel gradient written as a convolution, so there it is a sum of matrix products.
    Gradients of any kind and forward over reverse (`jvp` of `grad`) work; `jvp` of the layer itself does not.
    """
    return _convolve(x, kernel)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    if min(x.shape[1:3]) < 3:
        # XLA's CPU backend takes a picture smaller than the kernel for the kernel, and is far slower; padded, and the
        # padding kept apart, it is as large. Matters for the last block at 32 px.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def _conv3x3_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel), (x, kernel)


def _conv3x3_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    x_gradient = _convolve(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    kernel_gradient = lax.platform_dependent(x, g, cpu=_kernel_gradient_products, default=_kernel_gradient)
    return x_gradient, kernel_gradient


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as the backend's own convolution."""
    kernel = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.vjp(lambda k: _convolve(x, k), kernel)[1](g)[0]


def _kernel_gradient_products(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as nine products of the shifted input with `g`, over a few pictures at a time."""
    batch, height, width, features_in = x.shape
    features_out = g.shape[-1]
    group = math.gcd(batch, _GROUP)
    dtype = jnp.promote_types(x.dtype, jnp.float32)  # of the sum over groups

    def add_group(total: jax.Array, pictures: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, g = pictures
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        g = g.reshape(-1, features_out)
        shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        products = [jnp.matmul(s.reshape(-1, features_in).T, g, preferred_element_type=dtype) for s in shifted]
        return total + jnp.stack(products), None

    groups = x.reshape(-1, group, *x.shape[1:]), g.reshape(-1, group, *g.shape[1:])
    total, _ = lax.scan(add_group, jnp.zeros((9, features_in, features_out), dtype), groups)
    return total.reshape(3, 3, features_in, features_out).astype(x.dtype)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """`nn.MaxPool2d(2, 2)`: `[B, H, W, C]` to `[B, H/2, W/2, C]`; a tie's gradient goes to the first, as PyTorch's.

    Strided slices instead of a reduction over windows, whose gradient is slow on CPU, has no deterministic GPU kernel
    and loses precision in the second derivative.
    """
    first, *others = (x[:, i::2, j::2] for i in range(2) for j in range(2))
    for other in others:
        first = jnp.where(other > first, other, first)
    return first


class BatchNorm(nn.Module):
    """`nn.BatchNorm2d`: `[B, H, W, C]` in and out; learned `scale` and `bias`, running `mean` and `var`.

    As in PyTorch the batch is normalised by its biased variance and the running variance takes the unbiased one.
    Mean and variance are taken in two passes in at least float32.
    """

    momentum: float = 0.1  # share of the batch in the running statistics (Flax counts the other share)
    epsilon: float = 1e-5
    axis_name: str | None = None  # mapped axis over which the batch is split: its moments are the whole batch's

    @nn.compact
    def __call__(self, x: jax.Array, *, conv_bias: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise `x + conv_bias`.

        `conv_bias` `[C]` is the convolution's. Normalising by the batch takes it out again, so it is only ever added to
        the running mean, and its gradient in training is exactly zero (in PyTorch it is rounding noise around zero).
        `mask` `[B]` is 1 for pictures and 0 for padding, which enters no statistic.
        """
        channels = (x.shape[-1],)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels)
        offset = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        values = x.astype(dtype)
        if train:
            mean, var, count = _moments(values, mask, self.axis_name)
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                momentum = self.momentum * (count > 0)  # a batch that is all padding has nothing to say
                running_mean.value += momentum * (lax.stop_gradient(mean + conv_bias) - running_mean.value)
                running_var.value += momentum * (lax.stop_gradient(unbiased) - running_var.value)
        else:
            mean, var = running_mean.value - conv_bias, running_var.value
        normalised = (values - mean) * (scale * lax.rsqrt(var + self.epsilon)) + offset
        return normalised.astype(x.dtype)


def _moments(x: jax.Array, mask: jax.Array | None, axis_name: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance of each channel over the unmasked pictures, and how many values that is."""

    def total(values: jax.Array, *axes: int) -> jax.Array:
        here = jnp.sum(values, axes)
        return here if axis_name is None else lax.psum(here, axis_name)

    weight = jnp.ones(x.shape[:1], x.dtype) if mask is None else mask.astype(x.dtype)
    count = total(weight, 0) * (x.shape[1] * x.shape[2])
    weight = weight[:, None, None, None]
    mean = total(x * weight, 0, 1, 2) / jnp.maximum(count, 1)
    var = total(jnp.square(x - mean) * weight, 0, 1, 2) / jnp.maximum(count, 1)
    return mean, var, count
