"""Convolutions by oneDNN, the library that PyTorch computes with on a CPU, and which jaxlib for Linux carries too.

XLA's CPU backend has a call for it, `__onednn$convolution`, but no longer writes it of its own accord. One layer of 128
to 256 channels takes 53 ms by it in bfloat16 (64 pictures of 32 px, a 2-core EPYC), where XLA's own takes 299, and 286
in float32. In float32 Winograd's algorithm is no slower, so it is taken for bfloat16 alone.

The call is internal to jaxlib, and a wrong one ends the process. So it is made only with versions of jaxlib that were
tried, and on processors that have the instructions (`missing`). XLA can neither differentiate it, so that a derivative
is that of the function it stands for, nor write a program with such calls to disk.

Arrays are `[B, H, W, C]`, kernels `[height, width, in, out]`.
"""

import functools
import json
import math
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxfood.model.fused.bits import from_bits, moved, to_bits

_TRIED = ("0.10", "0.12")  # jaxlib's versions
_NEEDED = "avx512_bf16"  # of a processor: without it oneDNN has no bfloat16, or a slow one
_GROUP_BYTES = 2**21  # of the input: it, thrice turned around, and the gradient must stay in the cache

Product = Callable[[jax.Array, jax.Array], jax.Array]


def is_used(dtype: DTypeLike) -> bool:
    """Whether convolutions of this type go by oneDNN on a CPU, in programs that are made here."""
    # Elsewhere the CPU's form is traced, too, but not compiled.
    return dtype == jnp.bfloat16 and jax.default_backend() == "cpu" and not missing()


@functools.cache
def missing() -> str:
    """What is missing here for oneDNN's convolutions, in words; nothing: empty."""
    import jaxlib

    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"jaxlib for {platform.system()} {platform.machine()} comes without oneDNN"
    if ".".join(jaxlib.__version__.split(".")[:2]) not in _TRIED:
        return f"jaxlib {jaxlib.__version__} was not tried with oneDNN"
    return "" if _NEEDED in _processor_flags() else f"the processor has no {_NEEDED}"


def describe() -> str:
    """What bfloat16 is on this machine's CPU, in words; empty where JAX computes on something else."""
    if jax.default_backend() != "cpu":
        return ""
    if reason := missing():
        return f"bfloat16 is slower here than model.dtype = float32: {reason}"
    return "bfloat16 goes by oneDNN on this CPU; its programs are compiled anew at each start"


def _processor_flags() -> set[str]:
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # no /proc: nothing is known, so nothing is promised
        return set()
    return set(found[1].split()) if found else set()


def derived_as(reference: Product) -> Callable[[Product], Product]:
    """Gives a product, which JAX cannot look into, the derivatives of `reference`, which is the same function."""

    def decorate(product: Product) -> Product:
        @jax.custom_jvp
        def function(a: jax.Array, b: jax.Array) -> jax.Array:
            return product(a, b)

        @function.defjvp
        def derivative(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
            return product(*primals), jax.jvp(reference, primals, tangents)[1]

        return function

    return decorate


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Padded by half the kernel's size, which is odd."""
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return _convolution(x, kernel, pads, (stride, stride), dtype=x.dtype)


def input_gradient_stride2(g: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of the input of `convolve` with a 3x3 kernel and stride 2, `[B, H/2, W/2, out]` to `[B, H, W, in]`.

    Of each 2x2 window's values the upper and the left were met by the kernel's middle, the others by both its ends,
    one by the output beside or below: four small convolutions.
    """
    batch, height, width, _ = g.shape
    turned, middle, ends = kernel.swapaxes(2, 3), slice(1, 2), slice(None, None, -2)

    def met(rows: slice, columns: slice) -> jax.Array:
        part = turned[rows, columns]
        pads = [(0, size - 1) for size in part.shape[:2]]
        return _convolution(g, part, pads, (1, 1), dtype=g.dtype)

    def joined(windows: jax.Array) -> jax.Array:
        return windows.reshape(2, 2, *g.shape[:3], -1).transpose(2, 3, 0, 4, 1, 5)

    windows = jnp.stack([met(rows, columns) for rows in (middle, ends) for columns in (middle, ends)])
    return moved(joined, windows).reshape(batch, 2 * height, 2 * width, -1)


def kernel_gradient(x: jax.Array, g: jax.Array, size: int = 3, stride: int = 1) -> jax.Array:
    """The gradient of the kernel of `convolve`, in float32, from `x` and the output's gradient; of size 3 and more.

    Some pictures at a time, while they are in the cache.
    """
    most = max(1, _GROUP_BYTES // (x[0].size * x.dtype.itemsize))
    groups = next(n for n in range(1, len(x) + 1) if len(x) % n == 0 and len(x) // n <= most)
    if groups == 1:
        return _kernel_gradient(x, g, size, stride)

    def add(total: jax.Array, parts: list[jax.Array]) -> tuple[jax.Array, None]:
        x_part, g_part = (from_bits(part, x.dtype) for part in parts)
        return total + _kernel_gradient(x_part, g_part, size, stride), None

    split = [to_bits(array).reshape(groups, -1, *array.shape[1:]) for array in (x, g)]
    zeros = jnp.zeros((size, size, x.shape[-1], g.shape[-1]), jnp.float32)
    return lax.scan(add, zeros, split)[0]


def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, stride: int) -> jax.Array:
    """That of a group.

    As a convolution whose channels are the pixels of a row, whose picture is as wide as `x` has channels, and whose
    kernel is as high as a picture: what it leaves are the kernel's rows. Only `x` has to be turned around for it, once
    for each of the kernel's columns.
    """
    batch, height, width, features = g.shape
    features_in, half = x.shape[-1], size // 2

    def columns(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, 0), (half, half), (0, 0)))
        turned = lax.optimization_barrier(padded.transpose(1, 3, 0, 2))  # once, and not once for each column
        found = [turned[..., column : column + stride * (width - 1) + 1 : stride] for column in range(size)]
        return jnp.stack(found).reshape(size, x.shape[1], features_in, batch * width)

    rows = moved(lambda g: g.swapaxes(0, 1), g).reshape(height, 1, batch * width, features)
    pads = [(half, (height - 1) * stride + size - x.shape[1] - half), (0, 0)]
    found = _convolution(moved(columns, x), rows, pads, (1, 1), dilations=(stride, 1), dtype=jnp.float32)
    return found.swapaxes(0, 1)


def _convolution(
    x: jax.Array,
    kernel: jax.Array,
    pads: Sequence[tuple[int, int]],
    strides: tuple[int, int],
    dilations: tuple[int, int] = (1, 1),
    *,
    dtype: DTypeLike,
) -> jax.Array:
    """The call itself: `xla/service/cpu/onednn_config.proto` has its fields, jaxlib 0.10 counts all from 0."""
    spatial = [
        (side + sum(pad) - dilation * (size - 1) - 1) // stride + 1
        for side, size, pad, stride, dilation in zip(
            x.shape[1:3], kernel.shape[:2], pads, strides, dilations, strict=True
        )
    ]
    layout = {"data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    config = {
        "dims": 4,
        "input": layout,
        "kernel": {"filter": {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1]}},
        "output": layout,
        "window": {
            "size": kernel.shape[:2],
            "pad_left": [pad[0] for pad in pads],
            "pad_right": [pad[1] for pad in pads],
            "strides": strides,
            "window_dilations": dilations,
        },
        "feature_groups": 1,
    }
    _keep_programs_off_the_disk()
    call = jax.ffi.ffi_call(
        "__onednn$convolution",
        jax.ShapeDtypeStruct((len(x), *spatial, kernel.shape[3]), dtype),
        vmap_method="sequential",
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )
    return call(x, kernel)


def _keep_programs_off_the_disk() -> None:
    """From here on this process writes no compiled programs to disk: XLA would take this call for one of another kind
    and write what happens to lie in memory (MemoryError at best, openxla's `thunk_serdes_proto`, jaxlib 0.10 to 0.12).

    JAX asks for this setting whenever it is about to write; whether it writes at all is asked only once.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
