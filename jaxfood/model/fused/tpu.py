"""The TPU's way through a 3x3 convolution, max pooling and the moments before it: few passes over memory.

What XLA's TPU backend joins to one pass (read off compiled programs, NOTES.md): sums over a convolution's output to the
convolution; several results of one reading only where each is computed from the one before; a broadcast to what
follows only while no reshape follows. Hence here: moments are taken where the output is made, of a window the value is
found first and its place from it, and the gradient of pooling is written with a window's places as axes of their own.
Barriers keep what is read several times in its own type: else it is also written in float32.

Arrays are `[B, H, W, C]`, kernels `[3, 3, in, out]`; a window's four places are counted row by row.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxfood.model.fused.forms import convolve, input_gradient_by, kernel_gradient

_Moments = tuple[jax.Array, jax.Array]


def conv_and_moments(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, _Moments]:
    """The convolution, with mean and biased variance `[B, out]` of each picture, in at least float32."""
    output = convolve(x, kernel)
    moments = _moments(output, _expected_mean(x, kernel))
    return lax.optimization_barrier(output), moments


def max_pool(output: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first of the largest of each window after a multiplication by `scale`, and its place, 0 to 3."""
    return _first_largest([output[:, i::2, j::2] for i in range(2) for j in range(2)], scale)


def gradients(
    x: jax.Array, kernel: jax.Array, output: jax.Array, mean: jax.Array, winner: jax.Array, g: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """The gradients of input and kernel; `g` are those of pooled values, means and variances."""
    output_g = _output_gradient(output, mean, winner, *g)
    return input_gradient_by(convolve, output_g, kernel), kernel_gradient(x, output_g)


@jax.custom_jvp
def _first_largest(places: list[jax.Array], scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b, c, d = places
    largest = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
    smallest = jnp.minimum(jnp.minimum(a, b), jnp.minimum(c, d))
    values = jnp.where(scale > 0, largest, jnp.where(scale < 0, smallest, a))
    winner = jnp.where(values == a, 0, jnp.where(values == b, 1, jnp.where(values == c, 2, 3)))
    return lax.optimization_barrier((values, winner.astype(jnp.int8)))


@_first_largest.defjvp
def _first_largest_jvp(primals: Any, tangents: Any) -> Any:
    """Of equal values the first, where the maximum's own rule shares the derivative."""
    values, winner = _first_largest(*primals)
    (a, b, c, d), _ = tangents
    taken = jnp.where(winner == 0, a, jnp.where(winner == 1, b, jnp.where(winner == 2, c, d)))
    return (values, winner), (taken, np.zeros(winner.shape, jax.dtypes.float0))


def _moments(output: jax.Array, shift: jax.Array) -> _Moments:
    """Over all axes but the first and the last, from one reading; `shift` `[B, C]` keeps the squares small."""
    axes = tuple(range(1, output.ndim - 1))
    shifted = output.astype(shift.dtype) - jnp.expand_dims(shift, axes)
    mean = jnp.mean(shifted, axes)
    return shift + mean, jnp.mean(jnp.square(shifted), axes) - jnp.square(mean)


def _expected_mean(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """About each picture's mean of the output, `[B, out]`, from a coarse grid of the input."""
    dtype = _wide(x.dtype)
    rows, columns = (max(1, side // 8) for side in x.shape[1:3])
    mean = jnp.mean(x[:, ::rows, ::columns].astype(dtype), (1, 2))
    return lax.stop_gradient(mean @ jnp.sum(kernel.astype(dtype), (0, 1)))


def _output_gradient(
    output: jax.Array, mean: jax.Array, winner: jax.Array, values_g: jax.Array, mean_g: jax.Array, var_g: jax.Array
) -> jax.Array:
    """The gradient of the convolution's output, by way of pooling, mean and variance, in one pass."""
    batch, height, width, features = output.shape
    windows = lax.optimization_barrier(output.reshape(batch, height // 2, 2, width // 2, 2, features))
    count = height * width
    mean, mean_g, var_g = (jnp.expand_dims(a, (1, 2, 3, 4)) for a in (mean, mean_g / count, 2 * var_g / count))
    place = jnp.arange(4, dtype=winner.dtype).reshape(2, 1, 2, 1)
    taken = jnp.where(winner[:, :, None, :, None] == place, values_g[:, :, None, :, None], 0)
    found = (taken + mean_g + var_g * (windows - mean)).astype(output.dtype)
    # The barriers keep XLA from moving the reshape between the broadcasts and what takes them in.
    return lax.optimization_barrier(found).reshape(output.shape)


# Few input channels, as in a network's first block: the output costs more to keep than to do without.


def few_channels(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array, _Moments]:
    """Pooled values, winners and moments, by products of each window's 4x4 values of the input with four kernels."""
    output = jnp.einsum("bhwi,iko->bhwko", _patches(x)[0], _window_kernel(kernel))
    moments = _moments(output, _expected_mean(x, kernel))
    output = lax.optimization_barrier(output)
    values, winner = _first_largest([output[..., place, :] for place in range(4)], scale)
    return values, winner, moments


def few_channels_kernel_gradient(
    x: jax.Array, kernel: jax.Array, mean: jax.Array, winner: jax.Array, g: tuple[jax.Array, ...]
) -> jax.Array:
    """The kernel's gradient without the convolution's output; `g` as for `gradients`.

    What the moments send back is `a + b * output` in each picture and channel, and the sum of its products with the
    input's patches follows from the patches' own means and second moments.
    """
    values_g, mean_g, var_g = g
    dtype = _wide(x.dtype)
    patches, means = _patches(x)
    kernels, fold = jax.vjp(_window_kernel, kernel.astype(dtype))
    place = jnp.arange(4, dtype=winner.dtype)[:, None]
    taken = jnp.where(winner[..., None, :] == place, values_g[..., None, :], 0)
    gradient = jnp.einsum("bhwi,bhwko->iko", patches, taken, preferred_element_type=dtype)

    squares = _exactly("bhwi,bhwj->bij", patches, patches) / math.prod(patches.shape[1:3])
    covariances = squares - means[:, :, None] * means[:, None, :]
    along = _exactly("bij,bo->ijo", covariances, var_g / 2)
    centred = _exactly("bi,iko->bko", means, kernels) - mean[:, None]
    constant = mean_g[:, None] / 4 + var_g[:, None] / 2 * centred
    gradient += _exactly("ijo,jko->iko", along, kernels) + _exactly("bi,bko->iko", means, constant)
    return fold(gradient)[0]


def _exactly(sum_: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum whose operands are not rounded to bfloat16, in at least float32."""
    return jnp.einsum(sum_, a, b, precision=lax.Precision.HIGHEST, preferred_element_type=_wide(a.dtype))


def _patches(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The 4x4 values of the padded input that each 2x2 window is computed from, `[B, H/2, W/2, 16 in]`, and their means
    `[B, 16 in]`.

    By a convolution that copies: XLA writes sixteen slices next to each other one at a time, with all the others.
    """
    size, dtype = 16 * x.shape[-1], _wide(x.dtype)
    patches = lax.conv_general_dilated(
        x,
        jnp.eye(size, dtype=x.dtype).reshape(4, 4, -1, size),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return lax.optimization_barrier(patches), jnp.mean(patches.astype(dtype), (1, 2))


def _window_kernel(kernel: jax.Array) -> jax.Array:
    """For each of a window's places the kernel among the 4x4 values: `[16 in, 4, out]`."""
    shifted = [jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in range(2) for j in range(2)]
    return jnp.stack(shifted, 3).reshape(-1, 4, kernel.shape[-1])


def _wide(dtype: DTypeLike) -> DTypeLike:
    return jnp.promote_types(dtype, jnp.float32)
