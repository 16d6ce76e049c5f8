"""A 3x3 convolution and 2x2 max pooling as one function, made for the BatchNorm that follows.

BatchNorm is a straight line in each channel, rising where its scale is positive and falling where it is negative. So
which of four values will be the largest can be told before normalising, and only a quarter of them need be normalised;
of the others it takes no more than mean and variance. The convolution's output, by far the largest array of a training
step, is passed over as few times as can be, and on a CPU a few pictures at a time, while they are in the cache.

Arrays are `[B, H, W, C]`, kernels `[3, 3, in, out]`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfood.model.fused import tpu
from jaxfood.model.fused.forms import Form, add_gradients, on_each_platform, scan_groups, zero_kernel_gradient

_CHEAP = 4  # input channels up to which the convolution costs less to repeat than its output to keep


class Pooled(NamedTuple):
    """A convolution's output after max pooling, and its moments before."""

    values: jax.Array  # [B, H/2, W/2, out]
    mean: jax.Array  # [B, out], over each picture's H * W values, at least float32
    var: jax.Array  # [B, out], biased


class _Kept(NamedTuple):
    """What the gradient needs to know of the forward pass."""

    output: jax.Array | None  # [B, H, W, out], the convolution's; None where it is repeated
    winner: jax.Array  # [B, H/2, W/2, out]: which of a window's four values was taken, row by row


_Saved = tuple[jax.Array, jax.Array, jax.Array, Pooled, _Kept]


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


def _forward(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[Pooled, _Kept]:
    def forward(x: jax.Array, kernel: jax.Array, scale: jax.Array, *, form: Form) -> tuple[Pooled, _Kept]:
        return scan_groups(lambda _, x: (None, _forward_group(x, kernel, scale, form)), None, (x,), form.groups)[1]

    result: tuple[Pooled, _Kept] = on_each_platform(forward, x, kernel, scale, on_tpu=_forward_on_tpu)
    return result


def _forward_on_tpu(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[Pooled, _Kept]:
    if x.shape[-1] <= _CHEAP:
        values, winner, moments = tpu.few_channels(x, kernel, scale)
        return Pooled(values, *moments), _Kept(None, winner)
    output, moments = tpu.conv_and_moments(x, kernel)
    values, winner = tpu.max_pool(output, scale)
    return Pooled(values, *moments), _Kept(output, winner)


def _forward_group(x: jax.Array, kernel: jax.Array, scale: jax.Array, form: Form) -> tuple[Pooled, _Kept]:
    output = form.convolve(x, kernel)
    # XLA's CPU backend compares in float32 of its own accord, but then with a pass and a copy for each comparison.
    wide = output if form.in_one_pass else output.astype(jnp.promote_types(output.dtype, jnp.float32))
    values, winner = _max_pool(wide, scale)
    moments = moments_in_one_pass if form.in_one_pass else _moments
    kept = _Kept(None if x.shape[-1] <= _CHEAP else output, winner)
    return Pooled(values.astype(output.dtype), *moments(output)), kept


def _save(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> tuple[Pooled, _Saved]:
    pooled, kept = _forward(x, kernel, scale)
    return pooled, (x, kernel, scale, pooled, kept)


def _backward(saved: _Saved, g: Pooled) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, scale, pooled, kept = saved

    def backward(
        x: jax.Array, kernel: jax.Array, mean: jax.Array, kept: _Kept, g: Pooled, *, form: Form
    ) -> tuple[jax.Array, jax.Array]:
        def add(total: jax.Array, x: jax.Array, output_g: jax.Array) -> tuple[jax.Array, jax.Array]:
            return add_gradients(kernel, total, x, output_g, form=form)

        def repeat_and_add(total: jax.Array, x: jax.Array, *rest: Any) -> tuple[jax.Array, jax.Array]:
            return add(total, x, _output_gradient(form.convolve(x, kernel), *rest))

        zeros = zero_kernel_gradient(kernel)
        if kept.output is None:
            total, x_g = scan_groups(repeat_and_add, zeros, (x, mean, kept.winner, g), form.groups)
        else:
            # Outside of the loop it takes the place of the output. Inside, each of the products would compute it anew.
            output_g = _output_gradient(kept.output, mean, kept.winner, g)
            total, x_g = scan_groups(add, zeros, (x, output_g), form.groups_alone)
        return x_g, total.astype(kernel.dtype)

    gradients = on_each_platform(backward, x, kernel, pooled.mean, kept, g, on_tpu=_backward_on_tpu)
    return *gradients, jnp.zeros_like(scale)


def _backward_on_tpu(
    x: jax.Array, kernel: jax.Array, mean: jax.Array, kept: _Kept, g: Pooled
) -> tuple[jax.Array, jax.Array]:
    if kept.output is not None:
        x_g, kernel_g = tpu.gradients(x, kernel, kept.output, mean, kept.winner, g)
    else:
        # From the output, made again, comes the input's gradient alone, for which training has no use.
        x_g, _ = tpu.gradients(x, kernel, tpu.conv_and_moments(x, kernel)[0], mean, kept.winner, g)
        kernel_g = tpu.few_channels_kernel_gradient(x, kernel, mean, kept.winner, g)
    return x_g, kernel_g.astype(kernel.dtype)


conv3x3_max_pool.defvjp(_save, _backward)


def _output_gradient(output: jax.Array, mean: jax.Array, winner: jax.Array, g: Pooled) -> jax.Array:
    """The gradient of the convolution's output, by way of pooling, mean and variance, in one pass."""
    count = output.shape[1] * output.shape[2]
    mean, mean_g, var_g = (a[:, None, None] for a in (mean, g.mean / count, 2 * g.var / count))
    return (_max_pool_gradient(winner, g.values) + mean_g + var_g * (output - mean)).astype(output.dtype)


def _moments(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[B, C]`, in at least float32."""
    wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    mean = jnp.mean(wide, (1, 2))
    return mean, jnp.mean(jnp.square(wide - mean[:, None, None]), (1, 2))


def moments_in_one_pass(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same from one reading of the output, `[B, H, W, C]` to twice `[B, C]`.

    The mean of a coarse grid of its values is taken off first: the difference of the squares would lose digits.
    """
    wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    rows, columns = (max(1, side // 8) for side in output.shape[1:3])
    shift = jnp.mean(wide[:, ::rows, ::columns], (1, 2))
    shifted = wide - shift[:, None, None]
    shifted_mean = jnp.mean(shifted, (1, 2))
    return shift + shifted_mean, jnp.mean(jnp.square(shifted), (1, 2)) - jnp.square(shifted_mean)


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
