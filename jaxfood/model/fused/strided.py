"""Convolutions of stride 2 alone, in the form of the platform: what halves the pictures of residual networks.

XLA's own convolutions serve accelerators. Its CPU backend writes their gradients as convolutions with holes, several
times as slow as the products here: on a 2-core EPYC for 64 pictures of 64 px, 64 to 128 channels, against XLA's own, 39
ms for 54 forward, 85 for some 500 both gradients. bfloat16 goes by oneDNN where that is at hand (`onednn`).

Arrays are `[B, H, W, C]` with H and W even, kernels `[size, size, in, out]` of odd size, the padding is `size // 2`:
the output is `[B, H/2, W/2, out]`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.model.fused import onednn
from jaxfood.model.fused.forms import by_platform, scan_groups, zero_kernel_gradient

_GROUP_BYTES = 2**21  # of the output that a CPU works on at a time: it and nine inputs must stay in the cache


class _Form(NamedTuple):
    groups: int  # of pictures, one after another
    convolve: Callable[[jax.Array, jax.Array], jax.Array]  # of x and kernel
    kernel_gradient: Callable[[jax.Array, jax.Array, int], jax.Array]  # of x, the output's gradient, the kernel's size
    input_gradient: Callable[[jax.Array, jax.Array], jax.Array]  # of the output's gradient and kernel


@jax.custom_vjp
def conv_stride2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 2, padding `size // 2`, without bias: `[B, H, W, in]` to `[B, H/2, W/2, out]`.

    Gradients of any kind and forward over reverse (`jvp` of `grad`) work; `jvp` of the function itself does not.
    """
    return _forward(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
    def forward(x: jax.Array, kernel: jax.Array, *, form: _Form) -> jax.Array:
        return scan_groups(lambda _, x: (None, form.convolve(x, kernel)), None, (x,), form.groups)[1]

    output: jax.Array = _on_each_platform(forward, x, kernel)
    return output


def _save(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def backward(x: jax.Array, kernel: jax.Array, g: jax.Array, *, form: _Form) -> tuple[jax.Array, jax.Array]:
        def add(total: jax.Array, x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
            return total + form.kernel_gradient(x, g, len(kernel)), form.input_gradient(g, kernel)

        total, x_g = scan_groups(add, zero_kernel_gradient(kernel), (x, g), form.groups)
        return x_g, total.astype(kernel.dtype)

    gradients: tuple[jax.Array, jax.Array] = _on_each_platform(backward, *saved, g)
    return gradients


conv_stride2.defvjp(_save, _backward)


def _on_each_platform(function: Callable[..., Any], x: jax.Array, kernel: jax.Array, *arguments: jax.Array) -> Any:
    on_cpu, elsewhere = partial(function, form=_cpu_form(x, kernel)), partial(function, form=_WHOLE)
    return by_platform(on_cpu, elsewhere, x, kernel, *arguments)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The backend's own convolution."""
    padding = ((len(kernel) // 2,) * 2,) * 2
    return lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _kernel_gradient(x: jax.Array, g: jax.Array, size: int) -> jax.Array:
    kernel = jnp.zeros((size, size, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.vjp(partial(_convolve, x), kernel)[1](g)[0]


def _input_gradient(g: jax.Array, kernel: jax.Array) -> jax.Array:
    batch, height, width, _ = g.shape
    x = jnp.zeros((batch, 2 * height, 2 * width, kernel.shape[2]), g.dtype)
    return jax.vjp(lambda x: _convolve(x, kernel), x)[1](g)[0]


def _taps(x: jax.Array, size: int) -> list[jax.Array]:
    """For each place of the kernel, row by row, the values of `x` that it meets: `[B, H/2, W/2, in]`."""
    batch, height, width, features = x.shape
    padded = jnp.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    places = ((i, j) for i in range(size) for j in range(size))
    ends = ((i, j, i + height - 1, j + width - 1) for i, j in places)
    return [lax.slice(padded, (0, i, j, 0), (batch, m, n, features), (1, 2, 2, 1)) for i, j, m, n in ends]


def _convolve_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as a sum of products, one for each place of the kernel."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    places = kernel.reshape(-1, *kernel.shape[2:])
    products = (
        jnp.matmul(tap, place, preferred_element_type=dtype)
        for tap, place in zip(_taps(x, len(kernel)), places, strict=True)
    )
    return sum(products, start=jnp.zeros([], dtype)).astype(x.dtype)


def _kernel_gradient_products(x: jax.Array, g: jax.Array, size: int) -> jax.Array:
    """The same as products of the taps with `g`; where the input has few channels, of all taps at once."""
    features_in, features = x.shape[-1], g.shape[-1]
    dtype, g = jnp.promote_types(x.dtype, jnp.float32), g.reshape(-1, features)
    taps = _taps(x, size)
    if size > 3:
        taps = [jnp.concatenate(taps, -1)]
    products = [jnp.matmul(tap.reshape(-1, tap.shape[-1]).T, g, preferred_element_type=dtype) for tap in taps]
    return jnp.stack(products).reshape(size, size, features_in, features)


def _input_gradient_products(g: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same for 3x3, as nine products: each of a 2x2 window's values was met by other places of the kernel."""
    batch, height, width, _ = g.shape
    dtype = jnp.promote_types(g.dtype, jnp.float32)
    at = [[jnp.matmul(g, kernel[i, j].T, preferred_element_type=dtype) for j in range(3)] for i in range(3)]

    def below(a: jax.Array) -> jax.Array:
        """What the output one row below gives; none does below the last."""
        return jnp.pad(a[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))

    def beside(a: jax.Array) -> jax.Array:
        return jnp.pad(a[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))

    upper = at[1][1], at[1][2] + beside(at[1][0])
    lower = at[2][1] + below(at[0][1]), at[2][2] + beside(at[2][0]) + below(at[0][2] + beside(at[0][0]))
    windows = jnp.stack([jnp.stack(upper, 3), jnp.stack(lower, 3)], 2)
    return windows.reshape(batch, 2 * height, 2 * width, -1).astype(g.dtype)


_onednn_convolve = onednn.derived_as(_convolve)(partial(onednn.convolve, stride=2))
_onednn_input_gradient = onednn.derived_as(_input_gradient_products)(onednn.input_gradient_stride2)


@onednn.derived_as(partial(_kernel_gradient_products, size=3))
def _onednn_kernel_gradient3(x: jax.Array, g: jax.Array) -> jax.Array:
    return onednn.kernel_gradient(x, g, size=3, stride=2)


def _onednn_kernel_gradient(x: jax.Array, g: jax.Array, size: int) -> jax.Array:
    assert size == 3
    return _onednn_kernel_gradient3(x, g)


_WHOLE = _Form(1, _convolve, _kernel_gradient, _input_gradient)


def _cpu_form(x: jax.Array, kernel: jax.Array) -> _Form:
    """The way of a CPU for these shapes: of a large kernel, as at a network's beginning, its gradient alone."""
    batch = len(x)
    most = max(1, _GROUP_BYTES // (math.prod(x.shape[1:3]) // 4 * kernel.shape[-1] * x.dtype.itemsize))
    groups = next((n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= most), 1)
    if onednn.is_used(x.dtype):
        if len(kernel) == 3:
            return _Form(1, _onednn_convolve, _onednn_kernel_gradient, _onednn_input_gradient)
        return _Form(groups, _onednn_convolve, _kernel_gradient_products, _input_gradient)
    if len(kernel) == 3:
        return _Form(groups, _convolve_products, _kernel_gradient_products, _input_gradient_products)
    return _Form(groups, _convolve, _kernel_gradient_products, _input_gradient)
