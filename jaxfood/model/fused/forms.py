"""How a platform goes about a 3x3 convolution with stride 1 and padding 1, and its gradients.

XLA's own convolutions serve accelerators. On a CPU the batch is cut into groups of pictures whose output stays in the
cache, the kernel's gradient is nine matrix products, and wide layers go by Winograd's algorithm; bfloat16 goes by
oneDNN where that is at hand (`onednn`). Arrays are `[B, H, W, C]`, kernels `[3, 3, in, out]`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.model.fused import onednn
from jaxfood.model.fused.bits import from_bits, to_bits
from jaxfood.model.fused.winograd import winograd3x3, winograd3x3_input_gradient

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_GROUP_BYTES = 2**21  # of the convolution's output that a CPU works on at a time: they must stay in the cache
_WINOGRAD_CHANNELS = 32  # in and out, and
_WINOGRAD_TILES = 256  # of a batch: from there on a CPU saves more by fewer products than the additions cost
_FEW_CHANNELS = 4  # up to which the nine products are no slower than oneDNN, whose pictures would be that narrow

_platform: ContextVar[str] = ContextVar("platform", default="")  # what is traced is for it alone; "": for any


class Form(NamedTuple):
    """A platform's way."""

    groups: int  # of pictures, one after another, where more follows on a group's output
    groups_alone: int  # the same where nothing does
    convolve: Callable[[jax.Array, jax.Array], jax.Array]  # of x and kernel
    input_gradient: Callable[[jax.Array, jax.Array], jax.Array]  # of the output's gradient and kernel
    kernel_gradient: Callable[[jax.Array, jax.Array], jax.Array]  # of x and the output's gradient
    in_one_pass: bool  # memory is slow against arithmetic: read the output once for its moments


def on_each_platform(
    function: Callable[..., Any],
    x: jax.Array,
    kernel: jax.Array,
    *arguments: Any,
    on_tpu: Callable[..., Any] | None = None,
) -> Any:
    """`function(x, kernel, *arguments, form=...)` in the form of the platform that the program is compiled for.

    `on_tpu(x, kernel, *arguments)` takes its place on TPUs.
    """
    on_cpu, elsewhere = partial(function, form=cpu_form(x, kernel)), partial(function, form=WHOLE)
    return by_platform(on_cpu, elsewhere, x, kernel, *arguments, on_tpu=on_tpu)


def by_platform(
    on_cpu: Callable[..., Any],
    elsewhere: Callable[..., Any],
    *arguments: Any,
    on_tpu: Callable[..., Any] | None = None,
) -> Any:
    """One of the functions of the arguments, by the platform that the program is compiled for.

    `on_tpu` is for TPUs; None: they have no way of their own.
    """
    own = {"cpu": on_cpu} | ({} if on_tpu is None else {"tpu": on_tpu})
    if platform := _platform.get():
        return own.get(platform, elsewhere)(*arguments)
    return lax.platform_dependent(*arguments, **own, default=elsewhere)


@contextmanager
def to_linearise() -> Iterator[None]:
    """What is traced meanwhile is for `jax.linearize` on the present backend: its linear part keeps little.

    A choice between platforms keeps what either way needs, zeros for the one not taken, and Winograd's way keeps its
    transforms, four times its input. With the choice made and the transforms made anew for every product, a picture of
    128 px takes the notes' network 28 MiB in place of 80, and a product the same time.
    """
    token = _platform.set(jax.default_backend())
    try:
        yield
    finally:
        _platform.reset(token)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The backend's own convolution."""
    if min(x.shape[1:3]) < 3:
        # XLA's CPU backend takes a picture smaller than the kernel for the kernel, and is far slower; padded, and the
        # padding kept apart, it is as large. Matters for the last block at 32 px.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """The kernel's gradient as the backend's own convolution."""
    return _kernel_gradient_of(convolve, x, g)


def kernel_gradient_products(x: jax.Array, g: jax.Array) -> jax.Array:
    """The same as nine products of the shifted input with `g`: XLA's CPU backend is slow at that convolution."""
    height, width, features_in = x.shape[1:]
    g = g.reshape(-1, g.shape[-1])
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    products = [jnp.matmul(s.reshape(-1, features_in).T, g, preferred_element_type=dtype) for s in shifted]
    return jnp.stack(products).reshape(3, 3, features_in, -1)


def kernel_gradient_winograd(x: jax.Array, g: jax.Array) -> jax.Array:
    """The same as the gradient of Winograd's products."""
    return _kernel_gradient_of(winograd3x3, x, g)


def input_gradient_by(convolve: Callable[..., jax.Array], g: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input's gradient as a convolution of the output's, with the kernel turned around."""
    return convolve(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))


def add_gradients(
    kernel: jax.Array, total: jax.Array, x: jax.Array, g: jax.Array, *, form: Form
) -> tuple[jax.Array, jax.Array]:
    """A group's gradients: the sum of the kernel's with that of the groups before, and the input's."""
    return total + form.kernel_gradient(x, g), form.input_gradient(g, kernel)


def zero_kernel_gradient(kernel: jax.Array) -> jax.Array:
    """Where the sum over groups begins: at least float32, so that it does not round once for every group."""
    return jnp.zeros(kernel.shape, jnp.promote_types(kernel.dtype, jnp.float32))


def scan_groups(
    step: Callable[..., tuple[Any, Any]], carry: Any, arrays: tuple[Any, ...], groups: int
) -> tuple[Any, Any]:
    """`lax.scan` of `step(carry, *arrays)` over groups of pictures, its results joined to one batch again."""
    if groups == 1:
        return step(carry, *arrays)

    def cut(array: jax.Array) -> jax.Array:
        return to_bits(array).reshape(groups, -1, *array.shape[1:])

    def step_on_bits(carry: Any, bits: Any) -> tuple[Any, Any]:
        carry, results = step(carry, *jax.tree.map(from_bits, bits, dtypes))
        return carry, jax.tree.map(to_bits, results)

    def join(bits: jax.Array, result: jax.ShapeDtypeStruct) -> jax.Array:
        return from_bits(bits.reshape(-1, *bits.shape[2:]), result.dtype)

    dtypes = jax.tree.map(lambda array: array.dtype, arrays)
    parts = jax.tree.map(lambda array: array[: len(array) // groups], arrays)
    shapes = jax.eval_shape(step, carry, *parts)[1]
    carry, results = lax.scan(step_on_bits, carry, jax.tree.map(cut, arrays))
    return carry, jax.tree.map(join, results, shapes)


WHOLE = Form(1, 1, convolve, partial(input_gradient_by, convolve), kernel_gradient, in_one_pass=True)

_onednn_convolve = onednn.derived_as(convolve)(onednn.convolve)
_onednn_kernel_gradient = onednn.derived_as(kernel_gradient_products)(onednn.kernel_gradient)


def cpu_form(x: jax.Array, kernel: jax.Array) -> Form:
    """The way of a CPU for these shapes."""
    input_g: Callable[[jax.Array, jax.Array], jax.Array]
    groups = groups_on_cpu(x, kernel)
    is_even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    is_wide = min(kernel.shape[2:]) >= _WINOGRAD_CHANNELS and math.prod(x.shape[:3]) >= 4 * _WINOGRAD_TILES
    if onednn.is_used(x.dtype):
        is_narrow = x.shape[-1] <= _FEW_CHANNELS
        kernel_g = kernel_gradient_products if is_narrow else _onednn_kernel_gradient
        input_g = partial(input_gradient_by, _onednn_convolve)
        return Form(groups, 1, _onednn_convolve, input_g, kernel_g, in_one_pass=False)
    if is_even and is_wide and x.dtype.itemsize >= 4:
        input_g, kernel_g = _not_kept(winograd3x3_input_gradient), _not_kept(kernel_gradient_winograd)
        return Form(groups, groups, _not_kept(winograd3x3), input_g, kernel_g, in_one_pass=False)
    input_g, kernel_g = partial(input_gradient_by, convolve), _not_kept(kernel_gradient_products)
    return Form(groups, groups, convolve, input_g, kernel_g, in_one_pass=False)


def _not_kept(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Within `to_linearise`: of what the function computes on the way nothing is kept for its derivative."""
    return jax.checkpoint(function, prevent_cse=False) if _platform.get() else function


def groups_on_cpu(x: jax.Array, kernel: jax.Array) -> int:
    """Into how many equal groups of pictures to cut a batch, so that one's output stays in the cache."""
    batch, height, width, _ = x.shape
    most = max(1, _GROUP_BYTES // (height * width * kernel.shape[-1] * x.dtype.itemsize))
    return next((n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= most), 1)


def _kernel_gradient_of(convolution: Callable[..., jax.Array], x: jax.Array, g: jax.Array) -> jax.Array:
    kernel = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.vjp(partial(convolution, x), kernel)[1](g)[0]
