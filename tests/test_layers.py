"""BatchNorm with ReLU against its formulas, mostly float64, and the distribution that weights start from."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.model.convolution import Pooled
from jaxfood.model.layers import BatchNormReLU, torch_uniform


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


def take(x: np.ndarray | jax.Array) -> Pooled:
    """Of each window of `x` `[B, H, W, C]` one, and the moments of all."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return Pooled(x[:, ::2, 1::2], wide.mean((1, 2)), wide.var((1, 2)))


# BatchNorm.


def batch_norm_variables(channels: int) -> dict:
    rng = np.random.default_rng(1)
    return {
        "params": {"scale": rng.uniform(0.5, 2, channels), "bias": rng.normal(size=channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)},
    }


@partial(jax.jit, static_argnames="train")
def batch_norm(x: jax.Array, conv_bias: jax.Array, mask: jax.Array | None = None, train: bool = True) -> tuple:
    """Of `x` before pooling: what became of the values that were taken, and the new running statistics."""
    features = x.shape[-1]
    return BatchNormReLU(features).apply(
        batch_norm_variables(features), take(x), conv_bias=conv_bias, train=train, mask=mask, mutable=["batch_stats"]
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_norm_in_training_is_the_formula(batch: int) -> None:
    x, conv_bias = normal(batch, 6, 2, 4) * 3 + 5, normal(4)
    variables = batch_norm_variables(4)
    y, new = batch_norm(x, conv_bias)
    full, n = x + conv_bias, batch * 12
    mean, var = full.mean((0, 1, 2)), full.var((0, 1, 2))
    expected = (full - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"] + variables["params"]["bias"]
    assert_close(y, np.maximum(expected[:, ::2, 1::2], 0))
    old = variables["batch_stats"]
    assert_close(new["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean)
    assert_close(new["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * var * n / (n - 1))


def test_batch_norm_in_evaluation_is_the_formula() -> None:
    x, conv_bias = normal(4, 6, 2, 4), normal(4)
    variables = batch_norm_variables(4)
    y, new = batch_norm(x, conv_bias, train=False, mask=np.array([1.0, 0, 0, 0]))
    mean, var = variables["batch_stats"]["mean"], variables["batch_stats"]["var"]
    taken = take(x).values + conv_bias
    expected = (taken - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"]
    assert_close(y, np.maximum(expected + variables["params"]["bias"], 0))
    for name, value in variables["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool, np.int32])
def test_padding_enters_no_statistic_and_no_gradient(dtype: type) -> None:
    x, conv_bias, g = normal(5, 6, 2, 4), normal(4), normal(5, 3, 1, 4, seed=1)
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
    x, conv_bias = normal(4, 6, 2, 4), normal(4)
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


@pytest.mark.parametrize("train", [True, False])
def test_first_and_second_derivatives_are_jaxs_own_of_the_formula(train: bool) -> None:
    x, variables = normal(4, 6, 2, 4) * 3 + 5, batch_norm_variables(4)
    primals = x, variables["params"]

    def ours(x: jax.Array, params: dict) -> jax.Array:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        norm = BatchNormReLU(4)
        return norm.apply(given, take(x), conv_bias=jnp.zeros(4), train=train, mutable=["batch_stats"])[0]

    def formula(x: jax.Array, params: dict) -> jax.Array:
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else variables["batch_stats"].values()
        normalised = (x[:, ::2, 1::2] - mean) / jnp.sqrt(var + 1e-5)
        return jax.nn.relu(normalised * params["scale"] + params["bias"])

    def derivatives(function: Callable[..., jax.Array]) -> Any:
        gradient = jax.grad(lambda x, params: jnp.sum(jnp.sin(function(x, params))), (0, 1))
        return jax.jvp(gradient, primals, jax.tree.map(lambda leaf: normal(*leaf.shape, seed=3), primals))

    for actual, expected in zip(*map(jax.tree.leaves, map(derivatives, (ours, formula))), strict=True):
        assert_close(actual, expected, 1e-11)


def test_float64_pictures_go_through_float32_parameters() -> None:
    x = normal(4, 6, 2, 4)
    variables = jax.tree.map(np.float32, batch_norm_variables(4))

    def total(x: jax.Array, params: dict) -> jax.Array:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        y, _ = BatchNormReLU(4).apply(given, take(x), conv_bias=jnp.zeros(4), train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.float64
        return jnp.sum(y)

    x_g, params_g = jax.grad(total, (0, 1))(x, variables["params"])
    assert x_g.dtype == jnp.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(params_g)} == {jnp.dtype(jnp.float32)}


def test_the_running_statistics_have_no_gradient() -> None:
    x = normal(4, 6, 2, 4)
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
        variables = BatchNormReLU(3).init(jax.random.key(0), take(x), conv_bias=jnp.zeros(3), train=True)
        y, new = BatchNormReLU(3).apply(variables, take(x), conv_bias=jnp.zeros(3), train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {jnp.dtype(jnp.float32)}
        exact = np.asarray(x, np.float64)
        assert_close(new["batch_stats"]["mean"], 0.1 * exact.mean((0, 1, 2)), 1e-6)
        assert_close(new["batch_stats"]["var"], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), 1e-6)


def test_initialising_leaves_the_running_statistics_at_the_start() -> None:
    x = normal(4, 6, 2, 4) + 7
    variables = BatchNormReLU(4).init(jax.random.key(0), take(x), conv_bias=np.zeros(4), train=True)
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
