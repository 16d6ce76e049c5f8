"""The fused layers against the plain ones: convolution, convolution with pooling, whole blocks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfood.model.blocks import ConvBlock
from jaxfood.model.fused import forms, strided, tpu
from jaxfood.model.fused.conv_pool import Pooled, conv3x3_max_pool, moments_in_one_pass
from jaxfood.model.fused.convolution import conv3x3
from jaxfood.model.layers import Conv, convolution

SCALE = np.array([2.0, -1.0, 0.0, 0.5, -0.1])
MASK = np.array([1.0, 0, 1, 1])


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["CPU", "CPU, winograd", "elsewhere", "TPU"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The forms of the platforms, those of CPUs for two pictures at a time."""
    monkeypatch.setattr(forms, "_GROUP_BYTES", 2 * 6 * 8 * len(SCALE) * 8)
    if request.param == "elsewhere":
        monkeypatch.setattr(forms, "cpu_form", lambda x, kernel: forms.WHOLE)
    if request.param == "CPU, winograd":
        monkeypatch.setattr(forms, "_WINOGRAD_CHANNELS", 1)
        monkeypatch.setattr(forms, "_WINOGRAD_TILES", 1)
    with as_traced_for("tpu" if request.param == "TPU" else ""):
        yield


@contextmanager
def as_traced_for(platform: str) -> Iterator[None]:
    """What is traced meanwhile takes the way of this platform, wherever it then runs; "": of the one it runs on."""
    token = forms._platform.set(platform)
    try:
        yield
    finally:
        forms._platform.reset(token)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """To a share of the largest value, leaf by leaf."""
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert ours.shape == theirs.shape
        assert np.max(np.abs(ours - theirs)) <= tolerance * np.max(np.abs(theirs))


def reference(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> Pooled:
    """Of each window the first of those that `scale` makes the largest; the moments by their formulas."""
    output = convolution(x, kernel, stride=1, padding=1)
    batch, height, width, features = output.shape
    windows = output.reshape(batch, height // 2, 2, width // 2, 2, features).swapaxes(2, 3)
    windows = windows.reshape(batch, height // 2, width // 2, 4, features)
    first = jnp.argmax(windows * scale, axis=3, keepdims=True)
    values = jnp.take_along_axis(windows, first, axis=3)[:, :, :, 0]
    return Pooled(values, output.mean((1, 2)), output.var((1, 2)))


def pool(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Pooling alone: a kernel that copies."""
    kernel = np.zeros((3, 3, x.shape[-1], x.shape[-1]))
    kernel[1, 1] = np.eye(x.shape[-1])
    return jax.jit(lambda x: conv3x3_max_pool(x, kernel, scale).values)(x)


# Values and gradients.


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("features_in", [3, 6])  # the convolution's output is repeated, or kept
@pytest.mark.parametrize("batch", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3)), 6])
def test_values_moments_and_all_gradients(batch: int, features_in: int) -> None:
    x, kernel = normal(batch, 6, 8, features_in), normal(3, 3, features_in, len(SCALE))
    g = Pooled(normal(batch, 3, 4, 5), normal(batch, 5, seed=1), normal(batch, 5, seed=2))

    def both(function: Callable[..., Pooled]) -> Any:
        value, pull = jax.vjp(lambda x, kernel: function(x, kernel, SCALE), x, kernel)
        return value, pull(g)

    actual, expected = jax.jit(both, static_argnums=0)(conv3x3_max_pool), jax.jit(both, static_argnums=0)(reference)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype(jnp.float64)}
    assert_close(actual, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("features_in", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_second_derivatives_forward_over_reverse_and_reverse_over_reverse(features_in: int) -> None:
    primals = x, kernel = normal(4, 4, 6, features_in), normal(3, 3, features_in, len(SCALE))
    tangents = normal(*x.shape, seed=1), normal(*kernel.shape, seed=1)

    def of(function: Callable[..., Pooled]) -> Callable[[], Any]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            pooled = function(x, kernel, SCALE)
            return jnp.sum(jnp.sin(pooled.values)) + jnp.sum(pooled.mean**3) + jnp.sum(pooled.var**2)

        def slope(x: jax.Array, kernel: jax.Array) -> jax.Array:
            grads = jax.grad(loss, (0, 1))(x, kernel)
            return sum(jnp.sum(g * t) for g, t in zip(grads, tangents, strict=True))

        return lambda: (jax.jvp(jax.grad(loss, (0, 1)), primals, tangents)[1], jax.grad(slope, (0, 1))(x, kernel))

    assert_close(jax.jit(of(conv3x3_max_pool))(), jax.jit(of(reference))())


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(
    "shape", [(6, 6, 8, 6), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((3, 4, 2, 6), (1, 2, 2, 3)))]
)
def test_a_convolution_without_pooling_to_the_second_derivative(shape: tuple[int, ...]) -> None:
    primals = x, kernel = normal(*shape), normal(3, 3, shape[-1], len(SCALE))
    tangents = normal(*x.shape, seed=1), normal(*kernel.shape, seed=1)

    def of(function: Callable[..., jax.Array]) -> Callable[[], Any]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(function(x, kernel)))

        return lambda: (function(x, kernel), jax.jvp(jax.grad(loss, (0, 1)), primals, tangents))

    expected = jax.jit(of(lambda x, kernel: convolution(x, kernel, stride=1, padding=1)))()
    assert_close(jax.jit(of(conv3x3))(), expected)


@pytest.mark.smoke
def test_a_convolution_of_odd_height_is_right_where_tiles_of_two_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_WINOGRAD_CHANNELS", 1)
    monkeypatch.setattr(forms, "_WINOGRAD_TILES", 1)
    x, kernel = normal(2, 5, 6, 3), normal(3, 3, 3, 4)
    assert_close(jax.jit(conv3x3)(x, kernel), convolution(x, kernel, stride=1, padding=1))


@pytest.mark.parametrize("platform", ["CPU", "CPU, in groups", "elsewhere"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (3, (4, 6, 8, 6)),
        pytest.param(7, (4, 8, 10, 3), marks=pytest.mark.slow),
        pytest.param(3, (1, 2, 2, 3), marks=pytest.mark.slow),
    ],
)
def test_a_convolution_of_stride_2_to_the_second_derivative(
    size: int, shape: tuple[int, ...], platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform == "CPU, in groups":
        monkeypatch.setattr(strided, "_GROUP_BYTES", 1)
    if platform == "elsewhere":
        monkeypatch.setattr(strided, "_cpu_form", lambda x, kernel: strided._WHOLE)
    primals = x, kernel = normal(*shape), normal(size, size, shape[-1], 5)
    tangents = normal(*x.shape, seed=1), normal(*kernel.shape, seed=1)

    def of(function: Callable[..., jax.Array]) -> Callable[[], Any]:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(function(x, kernel)))

        return lambda: (function(x, kernel), jax.jvp(jax.grad(loss, (0, 1)), primals, tangents))

    expected = jax.jit(of(lambda x, kernel: convolution(x, kernel, stride=2, padding=size // 2)))()
    assert_close(jax.jit(of(strided.conv_stride2))(), expected)


@pytest.mark.parametrize(("size", "stride", "sides"), [(1, 2, (6, 8)), (3, 2, (5, 6)), (3, 2, (6, 8)), (2, 2, (6, 6))])
def test_a_layer_of_stride_2_is_xlas_own_whatever_its_size(size: int, stride: int, sides: tuple[int, int]) -> None:
    layer = Conv(3, 5, size, stride, size // 2)
    x = normal(2, *sides, 3)
    variables = jax.tree.map(jnp.asarray, layer.init(jax.random.key(0), x))
    assert_close(layer.apply(variables, x), layer.clone(fused=False).apply(variables, x))


# Whole blocks.


def block_variables(features_in: int, features: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    norm = {"scale": rng.uniform(0.5, 2, features) * rng.choice([-1, 1], features), "bias": rng.normal(size=features)}
    statistics = {"mean": rng.normal(size=features), "var": rng.uniform(0.5, 2, features)}
    kernel, bias = normal(3, 3, features_in, features), normal(features)
    return {"params": {"kernel": kernel, "bias": bias, "norm": norm}, "batch_stats": {"norm": statistics}}


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(
    ("train", "mask"),
    [
        (True, MASK),
        (False, None),
        pytest.param(True, None, marks=pytest.mark.slow),
        pytest.param(False, MASK, marks=pytest.mark.slow),
    ],
    ids=["training, padded", "evaluation, whole", "training, whole", "evaluation, padded"],
)
def test_a_fused_block_is_the_plain_one(train: bool, mask: np.ndarray | None) -> None:
    """Values, statistics, gradients and second derivatives, of pictures and parameters."""
    features_in, features = 6, len(SCALE)
    x, variables = normal(4, 6, 8, features_in) * 2 + 1, block_variables(features_in, features)
    primals = x, variables["params"]
    tangents = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=3), primals)
    weight = np.ones(4) if mask is None else mask

    def of(fused: bool) -> Any:
        def loss(x: jax.Array, params: Any) -> Any:
            block = ConvBlock(features_in, features, fused=fused)
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            y, new = block.apply(given, x, train=train, mask=mask, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y) * weight[:, None, None, None]), (y[weight > 0], new)

        gradient = jax.grad(loss, (0, 1), has_aux=True)
        return jax.jit(lambda: jax.jvp(gradient, primals, tangents, has_aux=True))()

    (gradients, second, (values, new)), (plain_gradients, plain_second, (plain_values, plain_new)) = of(True), of(False)
    assert_close((values, new), (plain_values, plain_new), 1e-11)
    biases = [tree[1].pop("bias") for tree in (gradients, second, plain_gradients, plain_second)]
    assert_close((gradients, second), (plain_gradients, plain_second), 1e-10)
    if train:  # by the batch it has none: exactly here, to rounding there
        assert not np.any(biases[:2])
        assert np.max(np.abs(biases[2:])) < 1e-12 * max(map(np.max, map(np.abs, jax.tree.leaves(plain_second))))
    else:
        assert_close(biases[:2], biases[2:], 1e-10)


@pytest.mark.parametrize("platform", ["", "tpu"])
def test_a_fused_block_in_bfloat16_keeps_float32_statistics(platform: str) -> None:
    with jax.enable_x64(False), as_traced_for(platform):
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), block_variables(3, 4))
        x = jnp.asarray(normal(8, 8, 8, 3), jnp.float32)

        def run(**settings: Any) -> Any:
            block = ConvBlock(3, 4, **settings)
            return jax.jit(lambda: block.apply(variables, x, train=True, mutable=["batch_stats"]))()

        y, new = run(dtype=jnp.bfloat16)
        plain_y, plain_new = run(fused=False)
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.float32)}
        assert_close((y.astype(jnp.float32), new), (plain_y, plain_new), 2e-2)


@pytest.mark.parametrize("platform", ["", "tpu"])
def test_a_large_offset_loses_no_digits_in_float32(platform: str) -> None:
    """The fast variance, mean of squares less square of the mean, has none left here."""
    variables = block_variables(3, 4)
    kernel = np.zeros((3, 3, 3, 4))
    kernel[1, 1] = np.eye(3, 4)
    variables["params"] |= {"kernel": kernel, "bias": np.full(4, 7.0)}
    x = (normal(8, 8, 8, 3) + 3000).astype(np.float32)
    single = jax.tree.map(np.float32, variables)
    with as_traced_for(platform):
        _, new = jax.jit(lambda: ConvBlock(3, 4).apply(single, x, train=True, mutable=["batch_stats"]))()
    old, norm = single["batch_stats"]["norm"], new["batch_stats"]["norm"]
    exact = x.astype(np.float64)
    assert_close(norm["mean"][:3] - 0.9 * old["mean"][:3], 0.1 * (exact.mean((0, 1, 2)) + 7), 1e-6)
    assert_close(norm["var"][:3] - 0.9 * old["var"][:3], 0.1 * exact.var((0, 1, 2), ddof=1), 1e-4)


def test_a_padded_picture_that_is_not_finite_enters_no_statistic() -> None:
    variables = block_variables(3, 4)
    x, mask = normal(3, 4, 4, 3), np.array([1.0, 1, 0])
    x[2] = np.nan
    for fused in (True, False):
        apply = jax.jit(partial(ConvBlock(3, 4, fused=fused).apply, train=True, mutable=["batch_stats"]))
        y, new = apply(variables, x, mask=mask)
        alone, new_alone = apply(variables, x[:2])
        assert_close((y[:2], new), (alone, new_alone), 1e-11)


# Pooling and BatchNorm's scale.


def test_the_sign_of_the_scale_has_no_gradient() -> None:
    x, kernel = normal(2, 4, 4, 3), normal(3, 3, 3, 5)
    gradient = jax.grad(lambda scale: jnp.sum(conv3x3_max_pool(x, kernel, scale).values))(SCALE)
    np.testing.assert_array_equal(gradient, np.zeros(5))


def test_max_pool_is_flaxs() -> None:
    x, scale = normal(2, 6, 8, 3), np.ones(3)
    assert_close(pool(x, scale), nn.max_pool(x, (2, 2), (2, 2)), 0)
    g = normal(2, 3, 4, 3)
    (ours,) = jax.vjp(lambda x: pool(x, scale), x)[1](g)
    (theirs,) = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)[1](g)
    assert_close(ours, theirs, 0)


def test_under_a_negative_scale_the_smallest_is_taken_and_under_zero_the_first() -> None:
    x = normal(2, 6, 8, 3)
    assert_close(pool(x, -np.ones(3)), -nn.max_pool(-x, (2, 2), (2, 2)), 0)
    assert_close(pool(x, np.zeros(3)), x[:, ::2, ::2], 0)


@pytest.mark.parametrize("platform", ["", "tpu"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("window", "winner"),
    [
        ([[1, 1], [1, 1]], (0, 0)),
        ([[0, 1], [1, 1]], (0, 1)),
        ([[0, 0], [1, 1]], (1, 0)),
        ([[0, 0], [0, 1]], (1, 1)),
        ([[0, 2], [2, 1]], (0, 1)),
        ([[-1, -2], [-1, -1]], (0, 0)),
    ],
)
def test_the_gradient_of_a_tie_goes_to_the_first(
    window: list[list[int]], winner: tuple[int, int], sign: int, platform: str
) -> None:
    """First in PyTorch's order, row by row; all of it, not halves."""
    x = sign * np.array(window, float).reshape(1, 2, 2, 1)
    with as_traced_for(platform):
        gradient = jax.grad(lambda x: 5 * pool(x, np.array([sign / 2])).sum())(x)[0, :, :, 0]
    expected = np.zeros((2, 2))
    expected[winner] = 5
    np.testing.assert_array_equal(gradient, expected)


def test_max_pool_second_derivative() -> None:
    """Of the sum of cubes of maxima: 6 x at the maxima and 0 elsewhere."""
    x, tangent = normal(1, 4, 4, 2), normal(1, 4, 4, 2, seed=1)
    second = jax.jvp(jax.grad(lambda x: jnp.sum(pool(x, np.ones(2)) ** 3)), (x,), (tangent,))[1]
    is_maximum = x == np.kron(nn.max_pool(x, (2, 2), (2, 2)), np.ones((1, 2, 2, 1)))
    assert_close(second, 6 * x * tangent * is_maximum)


# The two forms, for CPU and for other platforms.


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_both_forms_of_the_kernel_gradient_are_equal(batch: int) -> None:
    x, g = normal(batch, 4, 6, 3), normal(batch, 4, 6, 5)
    expected = sum(
        np.einsum("hwi,hwo->io", np.pad(x[b], ((1, 1), (1, 1), (0, 0)))[i : i + 4, j : j + 6], g[b])[None, None]
        * (np.arange(9) == 3 * i + j).reshape(3, 3, 1, 1)
        for b in range(batch)
        for i in range(3)
        for j in range(3)
    )
    assert_close(jax.jit(forms.kernel_gradient_products)(x, g), expected)
    assert_close(jax.jit(forms.kernel_gradient)(x, g), expected)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_take_the_batch_as_a_whole(platform: str) -> None:
    """Their program has XLA's own convolutions, three of them, and no loop."""
    x, kernel = jax.ShapeDtypeStruct((64, 32, 32, 64), jnp.float32), jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32)

    def program(function: Callable[..., jax.Array], platform: str) -> str:
        grad = jax.grad(lambda x, kernel: jnp.sum(function(x, kernel) ** 2), (0, 1))
        return jax.jit(grad).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

    for function in (lambda x, kernel: conv3x3_max_pool(x, kernel, jnp.ones(128)).values, strided.conv_stride2):
        assert "stablehlo.while" in program(function, "cpu")
        assert "stablehlo.while" not in program(function, platform)
        assert program(function, platform).count("stablehlo.convolution") == 3


@pytest.mark.parametrize("platform", ["", "tpu"])
def test_the_kernel_gradient_in_bfloat16_is_no_worse_than_the_backends_own(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running sum kept in bfloat16 rounds once for every few pictures."""
    monkeypatch.setattr(forms, "_GROUP_BYTES", 2 * 4 * 4 * 5 * 2)
    x, g = (jnp.asarray(normal(64, 4, 4, n), jnp.bfloat16) for n in (4, 5))
    kernel, moments = jnp.zeros((3, 3, 4, 5), jnp.bfloat16), jnp.zeros((64, 5), jnp.float32)
    pooled_g = Pooled(g[:, ::2, ::2], moments, moments)
    spread = jnp.zeros_like(g).at[:, ::2, ::2].set(g[:, ::2, ::2])  # all values are 0, and the first of a window wins
    exact = forms.kernel_gradient(x.astype(jnp.float64), spread.astype(jnp.float64))
    with as_traced_for(platform):
        (ours,) = jax.jit(lambda k: jax.vjp(lambda k: conv3x3_max_pool(x, k, jnp.ones(5)), k)[1](pooled_g))(kernel)
    backends_own = jax.jit(forms.kernel_gradient)(x, spread)

    def error(gradient: jax.Array) -> float:
        assert gradient.dtype == jnp.bfloat16
        return float(jnp.linalg.norm(gradient.astype(jnp.float64) - exact))

    assert error(ours) <= 1.5 * error(backends_own)


@pytest.mark.parametrize(
    ("shape", "features", "dtype", "winograd"),
    [
        ((64, 32, 32, 128), 256, jnp.float32, True),
        ((64, 8, 8, 512), 512, jnp.float32, True),
        ((64, 32, 32, 128), 256, jnp.float64, True),
        ((64, 32, 32, 128), 256, jnp.bfloat16, False),  # it would lose digits
        ((64, 64, 64, 64), 128, jnp.float32, True),
        ((64, 64, 64, 32), 128, jnp.float32, True),
        ((64, 64, 64, 16), 128, jnp.float32, False),
        ((64, 4, 4, 256), 256, jnp.float32, True),
        ((4, 8, 8, 512), 512, jnp.float32, False),
        ((64, 7, 8, 512), 512, jnp.float32, False),  # tiles are of two by two
    ],
)
def test_winograd_where_it_pays_and_loses_nothing(
    shape: tuple[int, ...], features: int, dtype: Any, winograd: bool
) -> None:
    x = jax.ShapeDtypeStruct(shape, dtype)
    form = forms.cpu_form(x, jax.ShapeDtypeStruct((3, 3, shape[-1], features), dtype))
    assert (form.convolve is forms.winograd3x3) == winograd
    assert (form.input_gradient is forms.winograd3x3_input_gradient) == winograd
    assert (form.kernel_gradient is forms.kernel_gradient_winograd) == winograd


def test_moments_in_one_pass_lose_no_digits() -> None:
    """The mean of squares less the square of the mean has none left here in float32."""
    output = (normal(3, 64, 64, 4) + 3000).astype(np.float32)
    output[1] = 3000
    output[1, 32, 32] += 100  # one value far from all others, wherever it may be
    output[2] = -7
    mean, var = moments_in_one_pass(output)
    assert {mean.dtype, var.dtype} == {jnp.dtype(jnp.float32)}
    exact = output.astype(np.float64)
    assert_close(mean, exact.mean((1, 2)), 1e-6)
    assert_close(var, exact.var((1, 2)), 1e-5)


@pytest.mark.parametrize("channels", [1, 5])  # of few the output is not kept
def test_on_tpus_the_derivative_of_a_tie_is_the_firsts_too(channels: int) -> None:
    """Of the values themselves, which a second derivative goes by; the maximum's own rule would share it."""
    kernel = np.zeros((3, 3, channels, 1))
    kernel[1, 1, 0] = 1
    x, tangent = np.ones((1, 2, 2, channels)), normal(1, 2, 2, channels)

    def values(x: jax.Array) -> jax.Array:
        if channels == 1:
            return tpu.few_channels(x, kernel, jnp.ones(1))[0]
        return tpu.max_pool(tpu.conv_and_moments(x, kernel)[0], jnp.ones(1))[0]

    derivative = jax.jit(lambda: jax.jvp(values, (x,), (tangent,))[1])()
    assert_close(derivative[0, 0, 0, 0], tangent[0, 0, 0, 0])


def test_on_tpus_moments_far_from_zero_lose_no_digits() -> None:
    """Squares are taken of what is left when the input's own mean has been sent through the kernel."""
    x, kernel = (normal(2, 16, 16, 6) + 300).astype(np.float32), np.zeros((3, 3, 6, 5), np.float32)
    kernel[1, 1] = normal(6, 5) + 2
    _, (mean, var) = jax.jit(tpu.conv_and_moments)(x, kernel)
    exact = convolution(x.astype(np.float64), kernel.astype(np.float64), stride=1, padding=1)
    assert {mean.dtype, var.dtype} == {jnp.dtype(jnp.float32)}
    assert_close(mean, exact.mean((1, 2)), 1e-6)
    assert_close(var, exact.var((1, 2)), 1e-4)


# Memory.


@pytest.mark.parametrize("batch", [1, 2, 6, 7, 61, 64])
@pytest.mark.parametrize("size", [2, 32, 128, 512])
def test_groups_are_equal_and_the_largest_that_fit(batch: int, size: int) -> None:
    x, kernel = jnp.zeros((batch, size, size, 1)), jnp.zeros((3, 3, 1, 16))
    pictures, rest = divmod(batch, forms.groups_on_cpu(x, kernel))
    assert rest == 0
    fits = [n for n in range(1, batch + 1) if batch % n == 0 and n * size**2 * 16 * 8 <= forms._GROUP_BYTES]
    assert pictures == max(fits, default=1)


@pytest.mark.parametrize("what", ["values", "gradient"])
def test_the_first_blocks_output_is_never_there_as_a_whole(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in evaluation nor, from 3 channels, for the gradient: the arrays between take less memory."""
    shape, features = (16, 64, 64, 3), 32
    output_bytes = 4 * math.prod(shape[:3]) * features
    monkeypatch.setattr(forms, "_GROUP_BYTES", output_bytes // 16)

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(conv3x3_max_pool(x, kernel, jnp.ones(features)).values)

    function = loss if what == "values" else jax.grad(loss)
    arguments = jnp.zeros((3, 3, 3, features), jnp.float32), jnp.zeros(shape, jnp.float32)
    assert jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes < 0.8 * output_bytes
