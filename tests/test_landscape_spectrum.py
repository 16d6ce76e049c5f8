"""Eigenvalues, trace, density and fractions, against known spectra and against SciPy. In float64 unless said."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from jaxfood import UserError
from jaxfood.landscape import (
    Density,
    Objective,
    Point,
    SpectrumSettings,
    density_by,
    ends_with_by_product,
    extreme_eigenvalues,
    lanczos_vectors,
    minimum_ratio,
    spectral_density,
    trace,
    trace_by,
)
from jaxfood.landscape.lanczos import Krylov, unseen_fraction
from jaxfood.model.blocks import ConvBlock

DENSE = SpectrumSettings()
LANCZOS = SpectrumSettings(dense_size=0, accuracy=1e-6, floor=1e-9)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def quadratic(values: Any, dtype: type = np.float64, **options: Any) -> Point:
    """A point whose Hessian has these eigenvalues, its axes turned by a reflection."""
    values = jnp.asarray(values, dtype)
    mirror = np.random.default_rng(5).normal(size=len(values))
    mirror = jnp.asarray(mirror / np.linalg.norm(mirror), dtype)

    def loss(x: jax.Array) -> jax.Array:
        turned = x - 2 * mirror * (mirror @ x)
        return jnp.sum(values * turned**2) / 2

    return Point(Objective.of(loss), jnp.zeros(len(values), dtype), **options)


def like_a_network(size: int, negative: float) -> np.ndarray:
    """A bulk at zero, a tail, ten large ones; `negative` is how far below zero it reaches."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=size)) * 1e-3
    values[: size // 2] = 0
    values[:100] = rng.uniform(0, 0.3, 100)
    values[-10:] = np.linspace(0.3, 1, 10)
    values[100:105] = -negative * np.linspace(0.2, 1, 5)
    return values


SPECTRA = {
    "one": [3.0],
    "one negative": [-3.0],
    "one zero": [0.0],
    "two": [-1.0, 2.0],
    "all zero": np.zeros(30),
    "all equal": np.full(30, 2.5),
    "clustered": np.r_[np.full(40, 1.0), 1 + 1e-6 * np.arange(20), np.full(5, -0.5)],
    "negative definite": -np.linspace(1, 50, 60),
    "one tiny negative": np.r_[-1e-5, np.linspace(0.01, 1, 200)],
    "flat": np.r_[np.zeros(150), np.linspace(0.5, 1, 50)],
    "wide": np.r_[-np.geomspace(1e-6, 1, 100), np.geomspace(1e-6, 1e3, 100)],
}


# Extreme eigenvalues.


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_both_ends_of_known_spectra(values: np.ndarray) -> None:
    point = quadratic(values)
    scale = np.max(np.abs(values))
    for settings in (DENSE, LANCZOS):
        pairs = extreme_eigenvalues(point, settings)
        np.testing.assert_allclose(pairs.values[[0, -1]], [np.min(values), np.max(values)], rtol=0, atol=1e-8 * scale)
        assert pairs.settled
        assert pairs.exact == (settings is DENSE)
        for value, vector, residual in zip(pairs.values, pairs.vectors, pairs.residuals, strict=True):
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-12)
            true_residual = np.linalg.norm(point.product(vector) - value * vector)
            assert residual == pytest.approx(true_residual, abs=1e-12 * scale)
            assert residual <= max(1e-6 * abs(value), 1e-9 * scale) + 1e-12 * scale


@pytest.mark.parametrize("count", [1, 2, 5])
def test_several_at_each_end_each_once(count: int) -> None:
    values = np.r_[-3, -2, -1.5, np.linspace(-1, 1, 100), 2, 3, 4]
    for settings in (DENSE, LANCZOS):
        pairs = extreme_eigenvalues(quadratic(values), settings, count)
        np.testing.assert_allclose(pairs.values, np.r_[values[:count], values[-count:]], atol=1e-8)
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(2 * count), atol=1e-8)
        few = extreme_eigenvalues(quadratic([3.0, 1.0, 2.0]), settings, count)
        np.testing.assert_allclose(few.values, [1.0, 3.0] if count == 1 else [1.0, 2.0, 3.0], atol=1e-12)


@pytest.fixture(scope="module")
def convolutions(float64: None) -> tuple[Point, np.ndarray]:
    """A block of the classifier under the running statistics, and its whole Hessian, taken reverse over reverse."""
    rng = np.random.default_rng(0)
    block, images = ConvBlock(3, 4), rng.normal(size=(5, 6, 6, 3))
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape)), shapes)

    def loss(params: Any) -> jax.Array:
        features = block.apply({"params": params, "batch_stats": variables["batch_stats"]}, images, train=False)
        return jnp.mean(jnp.sin(3 * features))

    point = Point(Objective.of(loss), variables["params"])
    hessian = jax.jit(jax.jacrev(jax.jacrev(lambda vector: loss(point.tree(vector)))))(
        jnp.asarray(point.flat(point.params))
    )
    return point, np.asarray(hessian)


@pytest.mark.parametrize("settings", [DENSE, LANCZOS], ids=["dense", "Lanczos"])
def test_a_convolutions_eigenvalues(convolutions: tuple[Point, np.ndarray], settings: SpectrumSettings) -> None:
    point, hessian = convolutions
    expected = np.linalg.eigvalsh(hessian)
    assert expected[0] < 0 < expected[-1]
    pairs = extreme_eigenvalues(point, settings, count=2)
    np.testing.assert_allclose(pairs.values, expected[[0, 1, -2, -1]], rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("negative", [0.5, 0.05, 0.01])
def test_scipys_eigsh_agrees_and_needs_more_products(negative: float) -> None:
    """With as many vectors kept, 20, and the same accuracy; two of ours measure the residuals."""
    point = quadratic(like_a_network(3000, negative), np.float32)
    ours = extreme_eigenvalues(point, SpectrumSettings(memory_gib=0))
    operator = LinearOperator((point.size, point.size), matvec=point.product, dtype=point.dtype)
    start = np.random.default_rng(0).standard_normal(point.size, np.float32)
    theirs = eigsh(operator, k=2, which="BE", tol=0.01, ncv=20, v0=start, return_eigenvectors=False)
    np.testing.assert_allclose(ours.values, np.sort(theirs), rtol=1e-3)
    np.testing.assert_allclose(ours.values, [-negative, 1], rtol=1e-3)
    assert ours.products - 2 < point.products - ours.products


def test_a_flat_valley_at_which_eigsh_gives_up() -> None:
    """The smallest eigenvalue is 0: an error relative to it is never small."""
    point = quadratic(like_a_network(3000, 0), np.float32)
    operator = LinearOperator((point.size, point.size), matvec=point.product, dtype=point.dtype)
    with pytest.raises(ArpackNoConvergence):
        eigsh(operator, k=1, which="SA", tol=0.01, maxiter=20)
    pairs = extreme_eigenvalues(point, SpectrumSettings(memory_gib=0))
    assert pairs.settled
    np.testing.assert_allclose(pairs.values, [0, 1], atol=1e-4)


def test_restarts_keep_few_vectors() -> None:
    """Twenty vectors are too few at once; the float32 result is as good as float32 allows."""
    values = like_a_network(3000, 0.01)
    settings = SpectrumSettings(memory_gib=0, accuracy=1e-3, floor=1e-6)
    assert lanczos_vectors(quadratic(values), settings) == 20
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-5)):
        pairs = extreme_eigenvalues(quadratic(values, dtype), settings)
        assert pairs.vectors.dtype == dtype
        assert pairs.settled
        assert pairs.products > 50
        np.testing.assert_allclose(pairs.values, [-0.01, 1], atol=tolerance)


@pytest.mark.parametrize("max_products", [1, 7, 30])
def test_out_of_products_what_is_known_is_told(max_products: int) -> None:
    values = like_a_network(3000, 0.001)
    point = quadratic(values)
    pairs = extreme_eigenvalues(point, SpectrumSettings(memory_gib=0, max_products=max_products))
    assert not pairs.settled
    assert pairs.products == point.products <= max_products + 2
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.min(np.abs(values - value)) <= residual * (1 + 1e-9)


def test_what_lanczos_may_miss_is_bounded() -> None:
    """Of many starts no more than the stated share misses at either end by more than the margin, some by a tenth."""
    size, vectors, probability = 400, 15, 0.2
    values = np.linspace(0, 1, size)
    starts = np.random.default_rng(0).normal(size=(300, size))
    misses = []
    for start in starts:
        krylov = Krylov(lambda vector: values * vector, start, vectors)
        for _ in range(vectors):
            krylov.extend()
        found = krylov.ritz().values
        misses.append(max(found[0], 1 - found[-1]))
    margin = unseen_fraction(size, vectors, probability)
    assert margin < 0.1
    assert np.mean(np.array(misses) > margin) <= probability
    assert np.max(misses) > margin / 10


def test_the_probability_of_a_miss_is_that_of_both_ends_together() -> None:
    """Each end has half of it: then the chance of a miss at the one or the other is no more than was stated."""
    size, products, probability = 3000, 20, 0.01
    settings = SpectrumSettings(memory_gib=0, max_products=products, miss_probability=probability)
    pairs = extreme_eigenvalues(quadratic(np.linspace(0.1, 1, size)), settings)
    fraction = (pairs.unseen / (np.ptp(pairs.values) + 2 * pairs.unseen)) ** 0.5
    at_one_end = 1.648 * math.sqrt(size) * math.exp(-fraction * (2 * products - 1))
    assert 2 * at_one_end == pytest.approx(probability, rel=1e-6)


@pytest.mark.slow
def test_what_may_be_unseen_shrinks_with_the_vectors() -> None:
    values = np.linspace(0.1, 1, 3000)
    few, many = (extreme_eigenvalues(quadratic(values), SpectrumSettings(memory_gib=memory)) for memory in (0, 1))
    assert 0 < many.unseen < few.unseen / 50
    assert many.products >= 200
    assert extreme_eigenvalues(quadratic(values[:500]), DENSE).unseen == 0
    one = SpectrumSettings(memory_gib=0, max_products=1)
    assert extreme_eigenvalues(quadratic(values), one).unseen == math.inf


def test_where_both_signs_are_found_no_vectors_are_spent_on_what_is_unseen() -> None:
    assert extreme_eigenvalues(quadratic(like_a_network(3000, 0.5)), SpectrumSettings()).products == 15 + 2


def test_random_vectors_come_from_the_seed() -> None:
    values = like_a_network(2000, 0.1)
    settings = [SpectrumSettings(max_products=10, steps=5, seed=seed) for seed in (0, 0, 1)]
    eigenvalues = [extreme_eigenvalues(quadratic(values), s).values for s in settings]
    traces = [trace(quadratic(values), s) for s in settings]
    nodes = [spectral_density(quadratic(values), s).nodes for s in settings]
    np.testing.assert_array_equal(eigenvalues[0], eigenvalues[1])
    np.testing.assert_array_equal(nodes[0], nodes[1])
    assert traces[0] == traces[1] != traces[2]
    assert np.all(eigenvalues[0] != eigenvalues[2])
    assert np.all(nodes[0] != nodes[2])


# Trace.


@pytest.mark.parametrize("values", [like_a_network(2000, 0.5), -np.linspace(0, 3, 1500)], ids=["network", "negative"])
def test_the_trace_is_within_its_error(values: np.ndarray) -> None:
    point = quadratic(values)
    for seed in range(5):
        before = point.products
        estimate = trace(point, SpectrumSettings(seed=seed, trace_products=30))
        assert point.products - before == 30
        assert 0 < estimate.standard_error < 0.05 * abs(values.sum())
        assert abs(estimate.value - values.sum()) < 5 * estimate.standard_error


def test_a_few_large_eigenvalues_cost_the_trace_no_precision() -> None:
    """Random signs alone would be off by about sqrt(2 sum of squares / probes)."""
    values = np.zeros(2000)
    values[:5] = [100, 50, -80, 20, 10]
    estimate = trace(quadratic(values), SpectrumSettings(trace_products=30))
    assert estimate.value == pytest.approx(100, abs=1e-8)
    assert estimate.standard_error < 1e-8


def test_a_small_problems_trace_is_exact(convolutions: tuple[Point, np.ndarray]) -> None:
    point, hessian = convolutions
    assert trace(point, DENSE) == (pytest.approx(np.trace(hessian), rel=1e-12), 0)


# Density.


def test_the_density_of_a_small_problem_is_its_eigenvalues(convolutions: tuple[Point, np.ndarray]) -> None:
    point, hessian = convolutions
    density = spectral_density(point, DENSE)
    values = np.linalg.eigvalsh(hessian)
    assert density.exact
    np.testing.assert_allclose(density.nodes[0], values, atol=1e-10)
    ratio = minimum_ratio(density, 1e-6)
    assert ratio == (pytest.approx(np.mean(values > 1e-6)),) * 3
    assert 0 < ratio.value < 1


def test_a_full_quadrature_has_the_eigenvalues_as_nodes() -> None:
    values = np.r_[-2.0, np.linspace(1, 3, 11)]
    density = spectral_density(quadratic(values), SpectrumSettings(dense_size=0, steps=12, probes=3))
    np.testing.assert_allclose(density.nodes, np.tile(values, (3, 1)), atol=1e-10)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-12)


def test_the_densitys_moments_are_within_their_errors() -> None:
    values = like_a_network(2000, 0.5)
    density = spectral_density(quadratic(values), SpectrumSettings(probes=20, steps=10))
    for power in (1, 2, 3):
        moment = density.moment(power)
        assert moment.standard_error < 0.2 * np.mean(np.abs(values) ** power)
        assert abs(moment.value - np.mean(values**power)) < 4 * moment.standard_error


def test_a_rows_moments_are_the_random_vectors_own() -> None:
    """A Gauss quadrature of m nodes has no error up to the power 2m - 1, and has one beyond."""
    values = np.linspace(-1, 1, 1500)
    steps = 4
    density = spectral_density(quadratic(values), SpectrumSettings(probes=2, steps=steps))
    fine = spectral_density(quadratic(values), SpectrumSettings(probes=2, steps=3 * steps))
    for power in range(2 * steps + 1):
        equal = density.moment(power).value == pytest.approx(fine.moment(power).value, rel=1e-10, abs=1e-13)
        assert equal == (power < 2 * steps)


def test_shares_lie_within_their_bounds() -> None:
    values = like_a_network(2000, 0.5)
    point = quadratic(values)
    for seed in range(3):
        density = spectral_density(point, SpectrumSettings(seed=seed, probes=8, steps=30))
        for threshold in (-0.2, -1e-4, 1e-4, 2e-3, 0.5):
            share = density.fraction_above(threshold)
            assert share.low <= np.mean(values > threshold) <= share.high
            assert share.low <= share.value <= share.high


def test_a_share_in_a_gap_of_the_spectrum_is_narrow() -> None:
    values = np.r_[np.full(300, -1.0), np.full(1200, 2.0)] + np.random.default_rng(0).normal(0, 0.01, 1500)
    share = minimum_ratio(spectral_density(quadratic(values), SpectrumSettings(probes=10, steps=20)), 1e-4)
    assert share.low <= 0.8 <= share.high
    assert share.high - share.low < 0.1


def test_shares_beyond_all_nodes() -> None:
    density = Density(np.array([[0.0, 1.0, 2.0], [0.5, 1.0, 1.5]]), np.full((2, 3), 1 / 3), exact=False)
    above, below = density.fraction_above(5.0), density.fraction_above(-5.0)
    assert (above.value, above.low, above.high) == (0, 0, pytest.approx(1 / 3))
    assert (below.value, below.low, below.high) == (pytest.approx(1), pytest.approx(2 / 3), pytest.approx(1))


def test_the_bounds_of_a_fraction_by_hand() -> None:
    """Two rows: the standard error is half their distance."""
    density = Density(np.array([[0.0, 1.0, 2.0], [0.5, 1.0, 1.5]]), np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]), False)
    share = density.fraction_above(0.9)
    assert share.value == pytest.approx((0.8 + 0.6) / 2)
    assert share.low == pytest.approx((0.3 + 0.4) / 2 - 2 * 0.05)
    assert share.high == 1
    share = density.fraction_above(1.7)
    assert share.value == pytest.approx(0.3 / 2)
    assert share.low == 0
    assert share.high == pytest.approx((0.8 + 0.4) / 2 + 2 * 0.2)


def test_the_densitys_curve_has_its_mass_where_the_eigenvalues_are() -> None:
    density = spectral_density(quadratic(np.r_[np.full(30, -1.0), np.full(10, 3.0)]), DENSE)
    grid = np.linspace(-3, 5, 2001)
    curve = density.curve(grid, width=0.1)
    mass = curve * (grid[1] - grid[0])
    assert mass.sum() == pytest.approx(1, rel=1e-6)
    assert mass[grid < 1].sum() == pytest.approx(0.75, rel=1e-6)
    assert curve.max() == pytest.approx(0.75 / (0.1 * math.sqrt(2 * math.pi)), rel=1e-6)


# What the ends tell of the rest.


@pytest.mark.parametrize("memory", [0, 1], ids=["restarted", "at once"])
def test_the_ends_tell_of_density_and_trace_for_half_the_products(memory: int) -> None:
    values = like_a_network(2000, 0.02)
    values[-3:] = [5, 20, 40]  # which random signs alone would miss by about 50
    for seed in range(3):
        point = quadratic(values)
        settings = SpectrumSettings(seed=seed, memory_gib=memory, probes=6, steps=12, trace_products=20, accuracy=1e-5)
        pairs, told = ends_with_by_product(point, settings)
        assert told is not None
        np.testing.assert_array_equal(pairs.values, extreme_eigenvalues(quadratic(values), settings).values)
        ends = point.products
        density = density_by(told, point, settings)
        assert point.products == ends + 5 * 12
        estimate = trace_by(told, density, point, settings)
        assert point.products == ends + 5 * 12 + 20
        assert len(density.nodes) == 6
        np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-12)
        assert 0 < estimate.standard_error < 0.03 * values.sum()
        assert abs(estimate.value - values.sum()) < 4 * estimate.standard_error
        share = density.fraction_above(1e-4)
        assert share.low <= np.mean(values > 1e-4) <= share.high


def test_of_a_small_problem_all_is_exact() -> None:
    point = quadratic([3.0, -1.0, 2.0])
    pairs, told = ends_with_by_product(point, DENSE)
    density = density_by(told, point, DENSE)
    assert told is None
    assert pairs.exact
    assert density.exact
    assert trace_by(told, density, point, DENSE) == (pytest.approx(4), 0)
    np.testing.assert_array_equal(density.curve_error(np.linspace(-2, 4, 5), 0.1), 0)


def test_the_curves_error_is_that_of_its_rows() -> None:
    density = Density(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.2, 0.8], [0.4, 0.6]]), exact=False)
    grid = np.array([0.0, 1.0])
    bell = 1 / (0.01 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(density.curve(grid, 0.01), bell * np.array([0.3, 0.7]))
    np.testing.assert_allclose(density.curve_error(grid, 0.01), bell * np.array([0.1, 0.1]))


@pytest.mark.parametrize(
    "settings", [{"probes": 1}, {"steps": 0}, {"trace_products": 3}, {"max_products": 0}, {"dense_size": -1}]
)
def test_settings_that_are_too_small_are_named(settings: dict[str, int]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(UserError, match=rf"landscape\.{name} = {value}: it takes an integer, at least"):
        SpectrumSettings(**settings)
