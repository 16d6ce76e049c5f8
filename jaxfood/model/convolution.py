"""Convolution and max pooling as one function, made for the BatchNorm that follows.

BatchNorm is a straight line in each channel, rising where its scale is positive and falling where it is negative. So
which of four values will be the largest can be told before normalising, and only a quarter of them need be normalised;
of the others it takes no more than mean and variance. The convolution's output, by far the largest array of a training
step, is passed over as few times as can be, and on a CPU a few pictures at a time, while they are in the cache.

Arrays are `[B, H, W, C]`, kernels `[height, width, in, out]`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.model.winograd import winograd3x3

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_GROUP_BYTES = 2**23  # of the convolution's output that a CPU works on at a time: they must stay in the cache
_CHEAP = 4  # input channels up to which the convolution costs less to repeat than its output to keep
_WINOGRAD_CHANNELS = 128  # in and out, and
_WINOGRAD_TILES = 1024  # of a batch: from there on a CPU saves more by fewer products than the additions cost

Saved = tuple[jax.Array, jax.Array, jax.Array, "Pooled", "_Kept"]


class Pooled(NamedTuple):
    """A convolution's output after max pooling, and its moments before."""

    values: jax.Array  # [B, H/2, W/2, out]
    mean: jax.Array  # [B, out], over each picture's H * W values, at least float32
    var: jax.Array  # [B, out], biased


class _Kept(NamedTuple):
    """What the gradient needs to know of the forward pass."""

    output: jax.Array | None  # [B, H, W, out], the convolution's; None where it is repeated
    winner: jax.Array  # [B, H/2, W/2, out]: which of a window's four values was taken, row by row


@jax.custom_vjp
def conv3x3_max_pool(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> Pooled:
    """3x3 convolution, stride 1, padding 1, without bias, then 2x2 max pooling.

    Of each 2x2 window the value is taken that is the largest after a multiplication by `scale`: the smallest where that
    is negative. Of equal ones the first, row by row, is taken and gets all of the gradient, as in PyTorch.

    Gradients of any kind and forward over reverse (`jvp` of `grad`) work; `jvp` of the function itself does not.

    Args:
        x: `[B, H, W, in]`, H and W even.
        kernel: `[3, 3, in, out]`.
        scale: `[out]`, BatchNorm's. Only its sign matters, so its gradient is zero.
    """
    return _forward(x, kernel, scale)[0]


class _Form(NamedTuple):
    """How a platform goes about it."""

    groups: int  # of pictures, one after another
    convolve: Callable[[jax.Array, jax.Array], jax.Array]  # of x and kernel
    moments: Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # of each picture and channel of the output
    kernel_gradient: Callable[[jax.Array, jax.Array], jax.Array]  # of x and the output's gradient


def _forward(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[Pooled, _Kept]:
    def forward(x: jax.Array, kernel: jax.Array, scale: jax.Array, *, form: _Form) -> tuple[Pooled, _Kept]:
        return _scan_groups(lambda _, x: (None, _forward_group(x, kernel, scale, form)), None, (x,), form.groups)[1]

    on_cpu, elsewhere = partial(forward, form=_cpu_form(x, kernel)), partial(forward, form=_WHOLE)
    return lax.platform_dependent(x, kernel, scale, cpu=on_cpu, default=elsewhere)


def _forward_group(x: jax.Array, kernel: jax.Array, scale: jax.Array, form: _Form) -> tuple[Pooled, _Kept]:
    output = form.convolve(x, kernel)
    values, winner = _max_pool(output, scale)
    return Pooled(values, *form.moments(output)), _Kept(None if x.shape[-1] <= _CHEAP else output, winner)


def _save(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[Pooled, Saved]:
    pooled, kept = _forward(x, kernel, scale)
    return pooled, (x, kernel, scale, pooled, kept)


def _backward(saved: Saved, g: Pooled) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, scale, pooled, kept = saved

    def backward(
        kernel: jax.Array, x: jax.Array, mean: jax.Array, kept: _Kept, g: Pooled, *, form: _Form
    ) -> tuple[jax.Array, jax.Array]:
        transposed = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)

        def add(total: jax.Array, x: jax.Array, output_g: jax.Array) -> tuple[jax.Array, jax.Array]:
            return total + form.kernel_gradient(x, output_g), form.convolve(output_g, transposed)

        def repeat_and_add(total: jax.Array, x: jax.Array, *rest: Any) -> tuple[jax.Array, jax.Array]:
            return add(total, x, _output_gradient(form.convolve(x, kernel), *rest))

        zeros = jnp.zeros(kernel.shape, jnp.promote_types(kernel.dtype, jnp.float32))
        if kept.output is None:
            total, x_g = _scan_groups(repeat_and_add, zeros, (x, mean, kept.winner, g), form.groups)
        else:
            # Outside of the loop it takes the place of the output. Inside, each of the products would compute it anew.
            output_g = _output_gradient(kept.output, mean, kept.winner, g)
            total, x_g = _scan_groups(add, zeros, (x, output_g), form.groups)
        return x_g, total.astype(kernel.dtype)

    on_cpu, elsewhere = partial(backward, form=_cpu_form(x, kernel)), partial(backward, form=_WHOLE)
    x_g, kernel_g = lax.platform_dependent(kernel, x, pooled.mean, kept, g, cpu=on_cpu, default=elsewhere)
    return x_g, kernel_g, jnp.zeros_like(scale)


conv3x3_max_pool.defvjp(_save, _backward)


def _output_gradient(output: jax.Array, mean: jax.Array, winner: jax.Array, g: Pooled) -> jax.Array:
    """The gradient of the convolution's output, by way of pooling, mean and variance, in one pass."""
    count = output.shape[1] * output.shape[2]
    mean, mean_g, var_g = (a[:, None, None] for a in (mean, g.mean / count, 2 * g.var / count))
    return (_max_pool_gradient(winner, g.values) + mean_g + var_g * (output - mean)).astype(output.dtype)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    if min(x.shape[1:3]) < 3:
        # XLA's CPU backend takes a picture smaller than the kernel for the kernel, and is far slower; padded, and the
        # padding kept apart, it is as large. Matters for the last block at 32 px.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as the backend's own convolution."""
    kernel = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.vjp(lambda k: _convolve(x, k), kernel)[1](g)[0]


def _kernel_gradient_products(x: jax.Array, g: jax.Array) -> jax.Array:
    """The same as nine products of the shifted input with `g`: XLA's CPU backend is slow at that convolution."""
    height, width, features_in = x.shape[1:]
    g = g.reshape(-1, g.shape[-1])
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    products = [jnp.matmul(s.reshape(-1, features_in).T, g, preferred_element_type=dtype) for s in shifted]
    return jnp.stack(products).reshape(3, 3, features_in, -1)


def _kernel_gradient_winograd(x: jax.Array, g: jax.Array) -> jax.Array:
    kernel = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.vjp(partial(winograd3x3, x), kernel)[1](g)[0]


def _moments(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[B, C]`, in at least float32."""
    wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    mean = jnp.mean(wide, (1, 2))
    return mean, jnp.mean(jnp.square(wide - mean[:, None, None]), (1, 2))


def _moments_in_one_pass(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same from one reading of the output.

    The mean of a coarse grid of its values is taken off first: the difference of the squares would lose digits.
    """
    wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    rows, columns = (max(1, side // 8) for side in output.shape[1:3])
    shift = jnp.mean(wide[:, ::rows, ::columns], (1, 2))
    shifted = wide - shift[:, None, None]
    shifted_mean = jnp.mean(shifted, (1, 2))
    return shift + shifted_mean, jnp.mean(jnp.square(shifted), (1, 2)) - jnp.square(shifted_mean)


_WHOLE = _Form(1, _convolve, _moments_in_one_pass, _kernel_gradient)


def _cpu_form(x: jax.Array, kernel: jax.Array) -> _Form:
    groups = _groups_on_cpu(x, kernel)
    is_wide = min(kernel.shape[2:]) >= _WINOGRAD_CHANNELS and math.prod(x.shape[:3]) >= 4 * _WINOGRAD_TILES
    if is_wide and x.dtype.itemsize >= 4:
        return _Form(groups, winograd3x3, _moments, _kernel_gradient_winograd)
    return _Form(groups, _convolve, _moments, _kernel_gradient_products)


def _max_pool(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first of the largest of each window after a multiplication by `scale`, and its number, 0 to 3.

    Strided slices instead of a reduction over windows, whose gradient is slow on CPU, has no deterministic GPU kernel
    and loses precision in the second derivative.
    """
    sign = jnp.sign(scale).astype(x.dtype)
    values, *others = (x[:, i::2, j::2] for i in range(2) for j in range(2))
    winner = jnp.zeros(values.shape, jnp.int8)
    for number, other in enumerate(others, start=1):
        is_larger = other * sign > values * sign
        values = jnp.where(is_larger, other, values)
        winner = jnp.where(is_larger, jnp.int8(number), winner)
    return values, winner


def _max_pool_gradient(winner: jax.Array, g: jax.Array) -> jax.Array:
    """`g` where the window's value was taken, 0 elsewhere: `[B, H/2, W/2, C]` to `[B, H, W, C]`."""
    batch, height, width, features = g.shape
    number = jnp.arange(4, dtype=winner.dtype).reshape(2, 1, 2, 1)
    windows = jnp.where(winner[:, :, None, :, None] == number, g[:, :, None, :, None], 0)
    return windows.reshape(batch, 2 * height, 2 * width, features)


def _groups_on_cpu(x: jax.Array, kernel: jax.Array) -> int:
    """Into how many equal groups of pictures to cut a batch, so that one's output stays in the cache."""
    batch, height, width, _ = x.shape
    most = max(1, _GROUP_BYTES // (height * width * kernel.shape[-1] * x.dtype.itemsize))
    return next((n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= most), 1)


def _scan_groups(
    step: Callable[..., tuple[Any, Any]], carry: Any, arrays: tuple[Any, ...], groups: int
) -> tuple[Any, Any]:
    """`lax.scan` of `step(carry, *arrays)` over groups of pictures, its results joined to one batch again."""
    if groups == 1:
        return step(carry, *arrays)
    split = jax.tree.map(lambda a: a.reshape(groups, -1, *a.shape[1:]), arrays)
    carry, results = lax.scan(lambda carry, arrays: step(carry, *arrays), carry, split)
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)
