"""The layers that image classifiers are made of, with PyTorch's meaning, in plain JAX.

They serve any network, size and stride, run anywhere, and are what `model.fused` is compared with. Arrays are
`[B, H, W, C]`, kernels `[height, width, in, out]`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype
from jax import lax

from jaxfood.model.fused.convolution import conv3x3
from jaxfood.model.fused.strided import conv_stride2

MOMENTUM = 0.1  # share of the batch in the running statistics, as PyTorch counts it (Flax counts the other share)
EPSILON = 1e-5


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what `nn.Conv2d` and `nn.Linear` start from, weights and biases alike."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def identity_normal(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """A kernel `[k, k, in, out]` that passes on what enters it, as `nn.init.dirac_`, as far as it has channels for it.

    Channels out beyond those in start from He et al.'s normal distribution. Zagoruyko and Komodakis 2017, "DiracNets",
    https://arxiv.org/abs/1706.00388.
    """
    passed = min(shape[2:])
    centre = jnp.zeros(shape[:2], dtype).at[shape[0] // 2, shape[1] // 2].set(1)
    identity = centre[..., None, None] * jnp.eye(shape[2], passed, dtype=dtype)
    return nn.initializers.he_normal()(key, shape, dtype).at[..., :passed].set(identity)


class Conv(nn.Module):
    """`nn.Conv2d(features_in, features, size, stride, padding)`: learned `kernel`, and `bias` if asked for.

    Attributes:
        dtype: type to compute in; None is that of input and kernel together.
        fused: 3x3 with stride 1, and any odd size with stride 2, padded by half their size, in the form of the platform
            (`model.fused.convolution`, `model.fused.strided`); false: by XLA's convolution always, which also has
            `jvp`.
        kernel_init: what the kernel starts from; None: as PyTorch's layer.
    """

    features_in: int
    features: int
    size: int = 3
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Dtype | None = None
    fused: bool = True
    kernel_init: nn.initializers.Initializer | None = None

    def setup(self) -> None:
        init = torch_uniform(fan_in=self.size**2 * self.features_in)
        self.kernel = self.param(
            "kernel", self.kernel_init or init, (self.size, self.size, self.features_in, self.features)
        )
        self.bias = self.param("bias", init, (self.features,)) if self.use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in]` to `[B, (H + 2 padding - size) / stride + 1, ..., features]`."""
        x, kernel, bias = promote_dtype(x, self.kernel, self.bias, dtype=self.dtype)
        x = self._convolve(x, kernel)
        return x if bias is None else x + bias

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        is_same = self.size % 2 == 1 and self.padding == self.size // 2
        if self.fused and is_same and self.size == 3 and self.stride == 1:
            return conv3x3(x, kernel)
        if self.fused and is_same and self.stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
            if self.size > 1:
                return conv_stride2(x, kernel)
            return lax.slice(x, (0, 0, 0, 0), x.shape, (1, 2, 2, 1)) @ kernel[0, 0]
        return convolution(x, kernel, self.stride, self.padding)


def convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """A convolution by XLA's own, the same in both directions, without bias."""
    strides, pads = (stride, stride), ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Moments(NamedTuple):
    """Mean and biased variance of each channel `[C]`, and of how many values they are."""

    mean: jax.Array
    var: jax.Array
    size: jax.Array


class Statistics(NamedTuple):
    """BatchNorm's running mean and variance `[C]`."""

    mean: jax.Array
    var: jax.Array

    def after(self, batch: Moments) -> "Statistics":
        """The next ones: a step towards the batch's mean and unbiased variance; none if the batch is all padding."""
        unbiased = batch.var * (batch.size / jnp.maximum(batch.size - 1, 1))
        momentum = MOMENTUM * (batch.size > 0)
        targets = lax.stop_gradient((batch.mean, unbiased))
        return Statistics(*(old + momentum * (new - old) for old, new in zip(self, targets, strict=True)))


class BatchNorm(nn.Module):
    """`nn.BatchNorm2d`: learned `scale`, `bias`, running `mean`, `var`, all `[features]`.

    As in PyTorch the batch is normalised by its biased variance, and the running variance takes the unbiased one.

    Attributes:
        axis_name: mapped axis over which the batch is split: its moments are the whole batch's.
    """

    features: int
    axis_name: str | None = None

    def setup(self) -> None:
        channels = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, channels)
        self.bias = self.param("bias", nn.initializers.zeros, channels)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        self.var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """`[B, H, W, C]` normalised, in at least float32, and returned in its own type.

        With `train` by the batch, and the running statistics follow it; else by these. `mask` `[B]` is 1 for pictures
        and 0 for padding, which enters no statistic.
        """
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = self.statistics
        if train:
            batch = batch_moments(wide, mask, self.axis_name)
            mean, var, _ = batch
            self.keep(self.statistics.after(batch))
        normalised = (wide - mean) * (self.scale * lax.rsqrt(var + EPSILON)) + self.bias
        return normalised.astype(x.dtype)

    @property
    def statistics(self) -> Statistics:
        """The running statistics."""
        return Statistics(self.mean.value, self.var.value)

    def keep(self, statistics: Statistics) -> None:
        """Make these the running statistics."""
        if not self.is_initializing():
            self.mean.value, self.var.value = statistics


def batch_moments(x: jax.Array, mask: jax.Array | None, axis_name: str | None) -> Moments:
    """The moments of the unmasked pictures' values `[B, H, W, C]`."""
    weight = jnp.ones(len(x), x.dtype) if mask is None else mask.astype(x.dtype)
    count = sum_over(weight, 0, axis_name) * (x.shape[1] * x.shape[2])
    weight = weight[:, None, None, None]

    def mean_of(values: jax.Array) -> jax.Array:
        return sum_over(jnp.where(weight > 0, values * weight, 0), (0, 1, 2), axis_name) / jnp.maximum(count, 1)

    mean = mean_of(x)
    return Moments(mean, mean_of(jnp.square(x - mean)), count)


def sum_over(values: jax.Array, axes: int | tuple[int, ...], axis_name: str | None) -> jax.Array:
    """The sum over these axes, and over the devices that share the batch."""
    here = jnp.sum(values, axes)
    return here if axis_name is None else lax.psum(here, axis_name)


def max_pool(x: jax.Array, size: int = 2, stride: int = 2, padding: int = 0) -> jax.Array:
    """`nn.MaxPool2d`: of equal values the first, row by row, gets the gradient, as in PyTorch.

    Strided slices instead of a reduction over windows, whose gradient is slow on CPU, has no deterministic GPU kernel
    and loses precision in the second derivative.
    """
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(x, pads, constant_values=-jnp.inf) if padding else x
    # The last row of windows begins at (H + 2 padding - size) // stride * stride.
    rows, columns = ((side - size) // stride * stride + 1 for side in padded.shape[1:3])
    offsets = [(i, j) for i in range(size) for j in range(size)]
    batch, features = padded.shape[0], padded.shape[3]
    # `padded[:, i : i + rows : stride, ...]` would be the same, but a gather where the batch size is a symbol (export).
    windows = [
        lax.slice(padded, (0, i, j, 0), (batch, i + rows, j + columns, features), (1, stride, stride, 1))
        for i, j in offsets
    ]
    return functools.reduce(lambda best, other: jnp.where(other > best, other, best), windows)


def dropout(x: jax.Array, rate: float, keys: jax.Array, layer: int = 0) -> jax.Array:
    """`nn.Dropout(rate)` in training: some of the values `[B, ...]` become 0, the others larger to make up for it.

    Args:
        x: the values.
        rate: the share that becomes 0.
        keys: `[B]`, one for each picture: what is drawn does not depend on the batch that a picture stands in.
        layer: its number, where a network has several.
    """

    def drawn(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(drawn)(keys), x / (1 - rate), 0)
