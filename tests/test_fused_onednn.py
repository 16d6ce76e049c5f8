"""Convolutions by oneDNN against XLA's own, and where they are taken."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxfood.model.fused import forms, onednn, strided
from jaxfood.model.fused.conv_pool import conv3x3_max_pool
from jaxfood.model.fused.convolution import conv3x3

missing = onednn.missing.__wrapped__  # `conftest` switches it off
REASON = missing()
needs_onednn = pytest.mark.skipif(bool(REASON), reason=REASON or "here")
ROUNDED = 8e-3  # one step of bfloat16, of the largest value


@pytest.fixture
def with_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a command: `conftest` keeps the tests' programs on disk."""
    kept = jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.setattr(onednn, "missing", lambda: "")
    yield
    jax.clear_caches()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", kept)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.bfloat16)


def plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def assert_close(ours: jax.Array, theirs: jax.Array, tolerance: float = ROUNDED) -> None:
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours.astype(jnp.float32) - theirs)) <= tolerance * np.max(np.abs(theirs))


@needs_onednn
@pytest.mark.usefixtures("with_onednn")
@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [(3, 1, (3, 6, 4, 5)), (3, 2, (2, 4, 6, 5)), (7, 2, (2, 8, 6, 3)), (3, 1, (2, 2, 2, 5))],
)
def test_convolution_and_gradients_are_xlas(
    size: int, stride: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "_GROUP_BYTES", 1)  # one picture at a time
    x, kernel = normal(*shape), normal(size, size, shape[-1], 8)
    wide_x, wide_kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    expected, pull = jax.vjp(partial(plain, stride=stride), wide_x, wide_kernel)
    g = normal(*expected.shape, seed=1)
    x_g, kernel_g = pull(g.astype(jnp.float32))
    assert_close(jax.jit(onednn.convolve, static_argnums=2)(x, kernel, stride), expected)
    assert_close(jax.jit(partial(onednn.kernel_gradient, size=size, stride=stride))(x, g), kernel_g, 1e-5)
    if (size, stride) == (3, 2):
        assert_close(jax.jit(onednn.input_gradient_stride2)(g, kernel), x_g)


@needs_onednn
@pytest.mark.slow
@pytest.mark.usefixtures("with_onednn")
@pytest.mark.parametrize(
    ("what", "calls"),
    [
        ("conv3x3", 3),  # forward, the input's gradient, the kernel's
        ("conv3x3_max_pool", 3),
        ("conv_stride2", 6),  # the input's gradient is four
    ],
)
def test_a_layer_goes_by_it_and_its_gradients_are_those_without(
    what: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "_GROUP_BYTES", 1)
    functions = {
        "conv3x3": conv3x3,
        "conv3x3_max_pool": lambda x, kernel: conv3x3_max_pool(x, kernel, jnp.ones(8)).values,
        "conv_stride2": strided.conv_stride2,
    }
    x, kernel = normal(2, 6, 4, 5), normal(3, 3, 5, 8)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(functions[what](x, kernel).astype(jnp.float32)))

    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile()
    assert program.as_text().count('custom_call_target="__onednn$convolution"') == calls
    monkeypatch.setattr(onednn, "missing", lambda: "switched off")
    for ours, theirs in zip(program(x, kernel), jax.jit(jax.grad(loss, (0, 1)))(x, kernel), strict=True):
        assert_close(ours, theirs.astype(jnp.float32), 4 * ROUNDED)


@needs_onednn
@pytest.mark.slow
@pytest.mark.usefixtures("with_onednn")
def test_second_derivatives_forward_over_reverse_and_reverse_over_reverse() -> None:
    x, kernel, direction = normal(2, 4, 4, 5), normal(3, 3, 5, 8), normal(3, 3, 5, 8, seed=1)

    def products(convolve: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
        def loss(kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(convolve(x.astype(dtype), kernel).astype(jnp.float32)))

        at, along = kernel.astype(dtype), direction.astype(dtype)
        gradient = jax.grad(loss)
        forward = jax.jit(lambda at, along: jax.jvp(gradient, (at,), (along,))[1])
        reverse = jax.jit(lambda at, along: jax.vjp(gradient, at)[1](along)[0])
        return forward(at, along), reverse(at, along)

    expected = products(partial(plain, stride=1), jnp.float32)
    for ours, theirs in zip(products(conv3x3, jnp.bfloat16), expected, strict=True):
        assert_close(ours, theirs, 4 * ROUNDED)


@needs_onednn
@pytest.mark.usefixtures("with_onednn")
def test_its_programs_are_not_written_to_disk() -> None:
    """XLA would write what is no program: `onednn._keep_programs_off_the_disk`."""
    jax.jit(onednn.convolve).lower(normal(1, 4, 4, 4), normal(3, 3, 4, 8)).compile()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == math.inf


@pytest.mark.usefixtures("with_onednn")
def test_float32_and_float64_stay_as_they_are() -> None:
    for dtype in (jnp.float32, jnp.float64, jnp.float16):
        assert not onednn.is_used(dtype)
    assert onednn.is_used(jnp.bfloat16)


@pytest.mark.parametrize(
    ("system", "jaxlib", "flags", "reason"),
    [
        (("Linux", "x86_64"), "0.10.2", "fpu avx512f avx512_bf16", ""),
        (("Linux", "x86_64"), "0.12.0.1", "fpu avx512_bf16 avx512f", ""),
        (("Linux", "x86_64"), "0.10.2", "fpu avx2 avx512f", "the processor has no avx512_bf16"),
        (("Linux", "x86_64"), "0.13.0", "avx512_bf16", "jaxlib 0.13.0 was not tried with oneDNN"),
        (("Darwin", "arm64"), "0.10.2", "avx512_bf16", "jaxlib for Darwin arm64 comes without oneDNN"),
    ],
)
def test_it_is_taken_only_where_it_was_tried(
    system: tuple[str, str], jaxlib: str, flags: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system[0])
    monkeypatch.setattr("platform.machine", lambda: system[1])
    monkeypatch.setattr("jaxlib.__version__", jaxlib)
    cpuinfo = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: none\n"
    monkeypatch.setattr(onednn.Path, "read_text", lambda path, encoding: cpuinfo)
    assert missing() == reason


def test_what_is_said_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "missing", lambda: "the processor has no avx512_bf16")
    assert onednn.describe() == "bfloat16 is slower here than model.dtype = float32: the processor has no avx512_bf16"
    monkeypatch.setattr(onednn, "missing", lambda: "")
    assert "goes by oneDNN on this CPU" in onednn.describe()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert onednn.describe() == ""
    assert not onednn.is_used(jnp.bfloat16)
