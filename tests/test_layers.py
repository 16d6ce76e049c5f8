"""The plain layers against their formulas and Flax's, mostly float64, and the distribution that weights start from."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfood.model.layers import BatchNorm, Conv, convolution, identity_normal, max_pool, torch_uniform


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


@pytest.mark.parametrize(("size", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3)])
def test_a_convolution_is_flaxs_of_any_size_and_stride(size: int, stride: int, padding: int) -> None:
    x = normal(2, 9, 12, 3)
    flaxs = nn.Conv(5, (size, size), strides=stride, padding=padding, param_dtype=jnp.float64)
    variables = flaxs.init(jax.random.key(0), x)
    for fused in (True, False):
        ours = Conv(3, 5, size, stride, padding, fused=fused)
        assert_close(ours.apply(variables, x), flaxs.apply(variables, x))
    without_bias = Conv(3, 5, size, stride, padding, use_bias=False)
    assert set(without_bias.init(jax.random.key(0), x)["params"]) == {"kernel"}


def test_a_convolution_starts_from_pytorchs_distribution() -> None:
    params = Conv(8, 512, 3).init(jax.random.key(0), normal(1, 4, 4, 8))["params"]
    for leaf in params.values():
        assert 0.99 / np.sqrt(72) < np.abs(leaf).max() <= 1 / np.sqrt(72)


# Pooling.


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 3, 0), (2, 1, 0)])
def test_max_pool_is_flaxs(size: int, stride: int, padding: int) -> None:
    x = normal(2, 7, 8, 3)
    pads = ((padding, padding), (padding, padding))

    def flaxs(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (size, size), (stride, stride), pads)

    y, pull = jax.vjp(lambda x: max_pool(x, size, stride, padding), x)
    expected, expected_pull = jax.vjp(flaxs, x)
    assert_close(y, expected, 0)
    assert_close(pull(normal(*y.shape))[0], expected_pull(normal(*y.shape))[0], 1e-15)


def test_the_gradient_of_a_tie_goes_to_the_first() -> None:
    gradient = jax.grad(lambda x: max_pool(x).sum())(np.array([[0.0, 2], [2, 2]]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1], [0, 0]])


# BatchNorm.


def batch_norm_variables(channels: int) -> dict:
    rng = np.random.default_rng(1)
    return {
        "params": {"scale": rng.uniform(0.5, 2, channels), "bias": rng.normal(size=channels)},
        "batch_stats": {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)},
    }


@partial(jax.jit, static_argnames="train")
def batch_norm(x: jax.Array, mask: jax.Array | None = None, train: bool = True) -> tuple:
    """The normalised and the new running statistics."""
    features = x.shape[-1]
    norm, variables = BatchNorm(features), batch_norm_variables(features)
    return norm.apply(variables, x, train=train, mask=mask, mutable=["batch_stats"])


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_norm_in_training_is_the_formula(batch: int) -> None:
    x = normal(batch, 6, 2, 4) * 3 + 5
    variables = batch_norm_variables(4)
    y, new = batch_norm(x)
    n, mean, var = batch * 12, x.mean((0, 1, 2)), x.var((0, 1, 2))
    assert_close(y, (x - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"] + variables["params"]["bias"])
    old = variables["batch_stats"]
    assert_close(new["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean)
    assert_close(new["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * var * n / (n - 1))


def test_batch_norm_in_evaluation_is_the_formula() -> None:
    x, variables = normal(4, 6, 2, 4), batch_norm_variables(4)
    y, new = batch_norm(x, train=False, mask=np.array([1.0, 0, 0, 0]))
    mean, var = variables["batch_stats"]["mean"], variables["batch_stats"]["var"]
    assert_close(y, (x - mean) / np.sqrt(var + 1e-5) * variables["params"]["scale"] + variables["params"]["bias"])
    for name, value in variables["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, bool, np.int32])
def test_padding_enters_no_statistic_and_no_gradient(dtype: type) -> None:
    x, g = normal(5, 6, 2, 4), normal(5, 6, 2, 4, seed=1)
    mask = np.array([1, 1, 0, 1, 0], dtype)
    kept = mask.astype(bool)
    x[~kept] = 1e3

    @jax.jit
    def run(x: jax.Array, g: jax.Array, mask: jax.Array | None) -> tuple:
        (y, new), pull = jax.vjp(lambda x: batch_norm(x, mask), x)
        return y, new, pull((g, jax.tree.map(jnp.zeros_like, new)))[0]

    y, new, gradient = run(x, g * kept[:, None, None, None], mask)
    y_alone, new_alone, gradient_alone = run(x[kept], g[kept], None)
    assert_close(y[kept], y_alone)
    assert_close(gradient[kept], gradient_alone)
    np.testing.assert_array_equal(gradient[~kept], np.zeros_like(gradient[~kept]))
    for name in ("mean", "var"):
        assert_close(new["batch_stats"][name], new_alone["batch_stats"][name])


def test_a_batch_of_padding_alone_moves_no_statistic() -> None:
    _, new = batch_norm(normal(2, 6, 2, 4), np.zeros(2))
    for name, value in batch_norm_variables(4)["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], value)


def test_float64_pictures_go_through_float32_parameters() -> None:
    x = normal(4, 6, 2, 4)
    variables = jax.tree.map(np.float32, batch_norm_variables(4))

    def total(x: jax.Array, params: dict) -> jax.Array:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        y, _ = BatchNorm(4).apply(given, x, train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.float64
        return jnp.sum(y)

    x_g, params_g = jax.grad(total, (0, 1))(x, variables["params"])
    assert x_g.dtype == jnp.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(params_g)} == {jnp.dtype(jnp.float32)}


def test_the_running_statistics_have_no_gradient() -> None:
    x = normal(4, 6, 2, 4)
    gradient = jax.grad(lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(batch_norm(x)[1])))(x)
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


def test_bfloat16_goes_in_and_out_and_statistics_stay_float32() -> None:
    with jax.enable_x64(False):
        x = jnp.asarray(normal(8, 4, 4, 3) + 10, jnp.bfloat16)
        variables = BatchNorm(3).init(jax.random.key(0), x, train=True)
        y, new = BatchNorm(3).apply(variables, x, train=True, mutable=["batch_stats"])
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {jnp.dtype(jnp.float32)}
        exact = np.asarray(x, np.float64)
        assert_close(new["batch_stats"]["mean"], 0.1 * exact.mean((0, 1, 2)), 1e-6)
        assert_close(new["batch_stats"]["var"], 0.9 + 0.1 * exact.var((0, 1, 2), ddof=1), 1e-6)


def test_initialising_leaves_the_running_statistics_at_the_start() -> None:
    variables = BatchNorm(4).init(jax.random.key(0), normal(4, 6, 2, 4) + 7, train=True)
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


@pytest.mark.parametrize(("features_in", "features"), [(3, 8), (4, 4), (6, 4)])
def test_a_convolution_that_starts_as_an_identity_passes_on_what_enters_it(features_in: int, features: int) -> None:
    """Channels beyond those that enter start by He et al.: variance 2 / (9 in)."""
    kernel = identity_normal(jax.random.key(0), (3, 3, features_in, features), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (2, 6, 5, features_in))
    y = convolution(x, kernel, stride=1, padding=1)
    passed = min(features_in, features)
    np.testing.assert_array_equal(y[..., :passed], x[..., :passed])
    more = np.asarray(kernel[..., passed:])
    assert more.size == 0 or abs(more.var() * 9 * features_in / 2 - 1) < 0.3
