"""The layers: against XLA's own convolution and pooling, and against BatchNorm's formulas in NumPy. Mostly float64."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxfood.model import layers
from jaxfood.model.layers import BatchNorm, conv3x3, max_pool_2x2, torch_uniform

BATCHES = [1, 3, 4, 6]


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def assert_close(actual: jax.Array, expected: np.ndarray | jax.Array, tolerance: float = 1e-12) -> None:
    """To a share of the largest value."""
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= tolerance * np.max(np.abs(expected))


# Convolution.


def reference_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, window_strides=(1, 1), padding=((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_conv3x3_and_all_its_gradients(batch: int) -> None:
    x, kernel, g = normal(batch, 6, 8, 3), normal(3, 3, 3, 5), normal(batch, 6, 8, 5)

    def both(conv: Callable) -> tuple[jax.Array, ...]:
        value, pull = jax.vjp(conv, x, kernel)
        return value, *pull(g)

    actual, expected = jax.jit(both, static_argnums=0)(conv3x3), jax.jit(both, static_argnums=0)(reference_conv)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == jnp.float64
        assert_close(ours, theirs)


@pytest.mark.parametrize("batch", BATCHES)
def test_both_forms_of_the_kernel_gradient_are_equal(batch: int) -> None:
    x, g = normal(batch, 4, 6, 3), normal(batch, 4, 6, 5)
    expected = sum(
        np.einsum("hwi,hwo->io", np.pad(x[b], ((1, 1), (1, 1), (0, 0)))[i : i + 4, j : j + 6], g[b])[None, None]
        * (np.arange(9) == 3 * i + j).reshape(3, 3, 1, 1)
        for b in range(batch)
        for i in range(3)
        for j in range(3)
    )
    assert_close(jax.jit(layers._kernel_gradient_products)(x, g), expected)
    assert_close(jax.jit(layers._kernel_gradient)(x, g), expected)


def test_conv3x3_second_derivatives_forward_over_reverse_and_reverse_over_reverse() -> None:
    primals = x, kernel = normal(3, 4, 4, 2), normal(3, 3, 2, 3)
    tangents = normal(3, 4, 4, 2, seed=1), normal(3, 3, 2, 3, seed=1)

    def of(conv: Callable) -> Callable:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(conv(x, kernel)))

        def slope(x: jax.Array, kernel: jax.Array) -> jax.Array:
            grads = jax.grad(loss, (0, 1))(x, kernel)
            return sum(jnp.sum(g * t) for g, t in zip(grads, tangents, strict=True))

        return lambda: (
            jax.jvp(jax.grad(loss, (0, 1)), primals, tangents)[1],
            jax.grad(slope, (0, 1))(x, kernel),
        )

    ours, theirs = jax.jit(of(conv3x3))(), jax.jit(of(reference_conv))()
    for actual, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert_close(actual, expected)


def test_the_kernel_gradient_in_bfloat16_is_no_worse_than_the_backends_own() -> None:
    """A running sum kept in bfloat16 rounds once for every few pictures."""
    x, g = (jnp.asarray(normal(64, 4, 4, n), jnp.bfloat16) for n in (4, 5))
    exact = layers._kernel_gradient(x.astype(jnp.float64), g.astype(jnp.float64))

    def error(form: Callable) -> float:
        gradient = jax.jit(form)(x, g)
        assert gradient.dtype == jnp.bfloat16
        return float(jnp.linalg.norm(gradient.astype(jnp.float64) - exact))

    assert error(layers._kernel_gradient_products) <= 1.5 * error(layers._kernel_gradient)


# Pooling.


def test_max_pool_is_flaxs() -> None:
    x = normal(2, 6, 8, 3)
    assert_close(max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2)), 0)
    g = normal(2, 3, 4, 3)
    (ours,) = jax.vjp(max_pool_2x2, x)[1](g)
    (theirs,) = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)[1](g)
    assert_close(ours, theirs, 0)


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
def test_the_gradient_of_a_tie_goes_to_the_first(window: list[list[int]], winner: tuple[int, int]) -> None:
    """First in PyTorch's order, row by row; all of it, not halves."""
    x = np.array(window, float).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: 5 * max_pool_2x2(x).sum())(x)[0, :, :, 0]
    expected = np.zeros((2, 2))
    expected[winner] = 5
    np.testing.assert_array_equal(gradient, expected)


def test_max_pool_second_derivative() -> None:
    """Of the sum of cubes of maxima: 6 x at the maxima and 0 elsewhere."""
    x, tangent = normal(1, 4, 4, 2), normal(1, 4, 4, 2, seed=1)
    second = jax.jvp(jax.grad(lambda x: jnp.sum(max_pool_2x2(x) ** 3)), (x,), (tangent,))[1]
    is_maximum = x == np.kron(np.asarray(max_pool_2x2(x)), np.ones((1, 2, 2, 1)))
    assert_close(second, 6 * x * tangent * is_maximum)


# BatchNorm.


def batch_norm_variables(channels: int) -> dict:
    rng = np.random.default_rng(1)
    return {
        "params": {"scale": rng.uniform(0.5, 2, channels), "bias": rng.normal(size=channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)},
    }


@partial(jax.jit, static_argnames="train")
def batch_norm(x: jax.Array, conv_bias: jax.Array, mask: jax.Array | None = None, train: bool = True) -> tuple:
    """Output and new running statistics."""
    return BatchNorm().apply(
        batch_norm_variables(x.shape[-1]), x, conv_bias=conv_bias, train=train, mask=mask, mutable=["batch_stats"]
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_norm_in_training_is_the_formula(batch: int) -> None:
    x, conv_bias = normal(batch, 3, 2, 4) * 3 + 5, normal(4)
    variables = batch_norm_variables(4)
    y, new = batch_norm(x, conv_bias)
    full, n = x + conv_bias, batch * 6
    mean, var = full.mean((0, 1, 2)), full.var((0, 1, 2))
    expected = (full - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"] + variables["params"]["bias"]
    assert_close(y, expected)
    old = variables["batch_stats"]
    assert_close(new["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean)
    assert_close(new["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * var * n / (n - 1))


def test_batch_norm_in_evaluation_is_the_formula() -> None:
    x, conv_bias = normal(4, 3, 2, 4), normal(4)
    variables = batch_norm_variables(4)
    y, new = batch_norm(x, conv_bias, train=False, mask=np.array([1.0, 0, 0, 0]))
    mean, var = variables["batch_stats"]["mean"], variables["batch_stats"]["var"]
    expected = (x + conv_bias - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"]
    assert_close(y, expected + variables["params"]["bias"])
    for name, value in variables["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool, np.int32])
def test_padding_enters_no_statistic_and_no_gradient(dtype: type) -> None:
    x, conv_bias, g = normal(5, 3, 2, 4), normal(4), normal(5, 3, 2, 4, seed=1)
    mask = np.array([1, 1, 0, 1, 0], dtype)
    kept = mask.astype(bool)
    x[~kept] = 1e3

    @jax.jit
    def run(x: jax.Array, g: jax.Array, mask: jax.Array | None) -> tuple:
        (y, new), pull = jax.vjp(lambda x: batch_norm(x, conv_bias, mask), x)
        return y, new, pull((g, jax.tree.map(jnp.zeros_like, new)))[0]

    y, new, gradient = run(x, g * kept[:, None, None, None], mask)
    y_alone, new_alone, gradient_alone = run(x[kept], g[kept], None)
    assert_close(y[kept], y_alone)
    assert_close(gradient[kept], gradient_alone)
    np.testing.assert_array_equal(gradient[~kept], np.zeros_like(gradient[~kept]))
    for name in ("mean", "var"):
        assert_close(new["batch_stats"][name], new_alone["batch_stats"][name])


def test_the_convolutions_bias_only_moves_the_running_mean_and_has_no_gradient() -> None:
    x, conv_bias = normal(4, 3, 2, 4), normal(4)
    y, new = batch_norm(x, conv_bias)
    y_without, new_without = batch_norm(x, np.zeros(4))
    np.testing.assert_array_equal(y, y_without)
    np.testing.assert_array_equal(new["batch_stats"]["var"], new_without["batch_stats"]["var"])
    assert_close(new["batch_stats"]["mean"] - new_without["batch_stats"]["mean"], 0.1 * conv_bias)
    gradient = jax.grad(lambda bias: jnp.sum(jnp.sin(batch_norm(x, bias)[0])))(conv_bias)
    np.testing.assert_array_equal(gradient, np.zeros(4))
    # In evaluation it has one.
    gradient = jax.grad(lambda bias: jnp.sum(batch_norm(x, bias, train=False)[0]))(conv_bias)
    assert np.all(gradient != 0)


def test_the_running_statistics_have_no_gradient() -> None:
    x = normal(4, 3, 2, 4)
    gradient = jax.grad(lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(batch_norm(x, np.ones(4))[1])))(x)
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


def test_a_large_offset_loses_no_digits_in_float32() -> None:
    """The fast variance, mean of squares less square of the mean, has none left here."""
    x = (normal(8, 8, 8, 2) + 3000).astype(np.float32)
    y, new = batch_norm(x, np.zeros(2, np.float32))
    assert y.dtype == jnp.float32
    exact = x.astype(np.float64)
    old = batch_norm_variables(2)["batch_stats"]["var"]
    assert_close(new["batch_stats"]["var"] - 0.9 * old, 0.1 * exact.var((0, 1, 2), ddof=1), 1e-4)


def test_bfloat16_goes_in_and_out_and_statistics_stay_float32() -> None:
    with jax.enable_x64(False):
        x = jnp.asarray(normal(8, 4, 4, 3) + 10, jnp.bfloat16)
        variables = BatchNorm().init(jax.random.key(0), x, conv_bias=jnp.zeros(3), train=True)
        y, new = BatchNorm().apply(variables, x, conv_bias=jnp.zeros(3), train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {jnp.dtype(jnp.float32)}
        exact = np.asarray(x, np.float64)
        assert_close(new["batch_stats"]["mean"], 0.1 * exact.mean((0, 1, 2)), 1e-6)
        assert_close(new["batch_stats"]["var"], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), 1e-6)


def test_initialising_leaves_the_running_statistics_at_the_start() -> None:
    x = normal(4, 3, 2, 4) + 7
    variables = BatchNorm().init(jax.random.key(0), x, conv_bias=np.zeros(4), train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(4))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(4))
    np.testing.assert_array_equal(variables["params"]["scale"], np.ones(4))
    np.testing.assert_array_equal(variables["params"]["bias"], np.zeros(4))


# Where weights start.


def test_torch_uniform_is_pytorchs_distribution() -> None:
    values = np.asarray(torch_uniform(fan_in=16)(jax.random.key(0), (100_000,)))
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 0.25
    counts, _ = np.histogram(values, bins=10, range=(-0.25, 0.25))
    np.testing.assert_allclose(counts, 10_000, rtol=0.04)
