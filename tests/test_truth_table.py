"""Problems whose every critical point is known: loss, spectrum, index, verdict, way out, and the search for them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import UserError
from jaxfood.landscape import (
    Ending,
    Inertia,
    Kind,
    LineSearch,
    Objective,
    Point,
    Search,
    SpectrumSettings,
    Tolerances,
    Verdict,
    deep_linear_network,
    escape,
    expand_downhill,
    extreme_eigenvalues,
    find_critical_point,
    gradient_rounding,
    inertia,
    inflection,
    judge,
    linear_autoencoder,
    quadratic,
)
from jaxfood.landscape.problems import CriticalPoint, Problem

pytestmark = pytest.mark.smoke

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "autoencoder 2 by 1": lambda: linear_autoencoder([3.0, 0.7], 1),
    "autoencoder 3 by 2": lambda: linear_autoencoder([5.0, 2.0, 0.1], 2, seed=1),
    "autoencoder 3 by 3": lambda: linear_autoencoder([4.0, 2.5, 1.0], 3, seed=2),
    "autoencoder 4 by 2": lambda: linear_autoencoder([4.0, 2.5, 1.0, 0.3], 2, seed=3),
    "two linear layers": lambda: deep_linear_network([3.0, 2.0, 0.5], 2),
    "three linear layers": lambda: deep_linear_network([3.0, 2.0, 0.5], 3, seed=1),
    "four linear layers": lambda: deep_linear_network([3.0, 2.0], 4, seed=2),
}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def verdict(point: Point, **settings: Any) -> Verdict:
    pairs = extreme_eigenvalues(point, SpectrumSettings(**settings))
    return judge(expand_downhill(point), pairs, Tolerances(), gradient_rounding(point, pairs))


def kind_by_theory(truth: CriticalPoint) -> Kind:
    """Of these problems no minimum is without a valley."""
    return Kind.SADDLE if truth.index and truth.eigenvalues[-1] > 0 else Kind.DEGENERATE


@pytest.fixture(scope="module", params=PROBLEMS, ids=str)
def problem(request: pytest.FixtureRequest) -> tuple[Problem, list[Point]]:
    """A problem, and its critical points, whose whole Hessians are made but once."""
    made = PROBLEMS[request.param]()
    objective = Objective.of(made.loss)
    return made, [Point(objective, truth.params) for truth in made.points]


def test_loss_spectrum_index_and_verdict_are_the_theorys(problem: tuple[Problem, list[Point]]) -> None:
    for truth, point in zip(problem[0].points, problem[1], strict=True):
        assert point.loss == pytest.approx(truth.loss, rel=1e-13, abs=1e-13)
        assert np.abs(point.gradient).max() < 1e-13
        np.testing.assert_allclose(np.linalg.eigvalsh(point.hessian), truth.eigenvalues, atol=1e-12)
        there = verdict(point)
        counted = inertia(point, there.threshold)
        assert counted == Inertia(truth.index, truth.nullity, point.size - truth.index - truth.nullity)
        assert there.kind == kind_by_theory(truth), truth.kept
        assert there.smallest.value == pytest.approx(truth.eigenvalues[0], abs=1e-12)
        assert there.largest.value == pytest.approx(truth.eigenvalues[-1], abs=1e-12)


def test_every_saddle_is_left_for_a_lower_loss(problem: tuple[Problem, list[Point]]) -> None:
    left = 0
    for truth, point in zip(problem[0].points, problem[1], strict=True):
        pairs = extreme_eigenvalues(point, SpectrumSettings())
        if not truth.index:
            assert pairs.values[0] > -1e-12  # no way out that the second order shows
            continue
        assert escape(point, pairs, LineSearch()).loss_after < truth.loss * (1 - 1e-3)
        left += 1
    assert left == sum(truth.index > 0 for truth in problem[0].points)


def test_the_search_by_the_gradients_norm_ends_at_points_of_the_table(problem: tuple[Problem, list[Point]]) -> None:
    """From near each of a few of them; those with an index are stayed at too, where a descent would leave."""
    made, points = problem
    losses = np.array([truth.loss for truth in made.points])
    rng = np.random.default_rng(0)
    for truth, point in itertools.islice(zip(made.points, points, strict=True), 1, 4):
        start = Point(point.objective, point.moved(0.03 * rng.standard_normal(point.size)))
        found = find_critical_point(start, Search(tolerance=1e-9))
        assert np.all(np.diff(found.gradient_norms) < 0)
        assert found.ending == Ending.CRITICAL
        assert np.abs(losses - point.objective.value(found.params)).min() < 1e-8
        if truth.eigenvalues[0] < -1e-3 and made.points[0].nullity == 0:
            assert point.objective.value(found.params) == pytest.approx(truth.loss, abs=1e-8)


def test_lanczos_alone_comes_to_the_same_verdicts() -> None:
    made = linear_autoencoder([4.0, 2.5, 1.0, 0.3], 2, seed=3)
    objective = Objective.of(made.loss)
    for truth in made.points[4:8]:
        there = verdict(Point(objective, truth.params), dense_size=0)
        assert there.kind == kind_by_theory(truth)
        assert not there.exact
        assert there.smallest.value == pytest.approx(truth.eigenvalues[0], abs=1e-8)


def test_there_are_as_many_families_as_choices() -> None:
    assert [len(linear_autoencoder([4.0, 2.5, 1.0, 0.3], width).points) for width in (1, 2, 3, 4)] == [5, 11, 15, 16]
    kept = {truth.kept for truth in deep_linear_network([3.0, 2.0, 1.0], 2).points}
    assert kept == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_a_family_has_one_loss_and_one_index() -> None:
    """By another basis inside the network, A C and C^-1 B, the eigenvalues differ and their signs do not."""
    made = linear_autoencoder([4.0, 2.5, 1.0, 0.3], 2)
    objective, change = Objective.of(made.loss), np.array([[2.0, 1.0], [0.3, -0.7]])
    for truth in made.points[5:9]:
        decoder, encoder = (np.asarray(truth.params[name]) for name in ("decoder", "encoder"))
        point = Point(objective, {"decoder": decoder @ change, "encoder": np.linalg.solve(change, encoder)})
        assert point.loss == pytest.approx(truth.loss)
        assert inertia(point, 1e-9)[:2] == (truth.index, truth.nullity)
        assert np.abs(np.linalg.eigvalsh(point.hessian) - truth.eigenvalues).max() > 0.1


@pytest.mark.parametrize(
    ("eigenvalues", "kind", "index"),
    [
        ([1.0, 2.0, 3.0], Kind.LOCAL_MINIMUM, 0),
        ([-1.0, -2.0], Kind.LOCAL_MAXIMUM, 2),
        ([-1.0, -0.5, 0.1, 9.0], Kind.SADDLE, 2),
        ([0.0, 1.0], Kind.DEGENERATE, 0),
    ],
)
def test_a_quadratic_of_a_known_spectrum(eigenvalues: Sequence[float], kind: Kind, index: int) -> None:
    made = quadratic(eigenvalues, lowest=2.0)
    point = Point(Objective.of(made.loss), made.points[0].params)
    assert point.loss == made.points[0].loss == 2
    np.testing.assert_allclose(np.linalg.eigvalsh(point.hessian), sorted(eigenvalues), atol=1e-14)
    assert verdict(point).kind == kind
    assert made.points[0].index == inertia(point, 1e-9).negative == index


@pytest.mark.parametrize("dense_size", [1000, 0])
def test_one_step_finds_a_quadratics_critical_point(dense_size: int) -> None:
    made = quadratic([-2.0, 0.5, 1.0, 4.0])
    point = Point(Objective.of(made.loss), jnp.arange(1.0, 5.0))
    found = find_critical_point(point, Search(tolerance=1e-9, dense_size=dense_size))
    np.testing.assert_allclose(found.params, 0, atol=1e-8)
    assert found.ending == Ending.CRITICAL
    assert found.steps <= 4


# Gradient-flat points.


@pytest.mark.parametrize("dense_size", [1000, 0])
@pytest.mark.parametrize("slope", [0.3, 1e-3])
def test_a_gradient_flat_point_is_found_and_not_called_critical(slope: float, dense_size: int) -> None:
    point = Point(Objective.of(inflection(slope)), jnp.array([1.0, 0.5]))
    found = find_critical_point(point, Search(dense_size=dense_size))
    assert found.ending == Ending.GRADIENT_FLAT
    assert found.gradient_norm == pytest.approx(slope, rel=1e-6)
    assert found.flatness < 1e-3
    np.testing.assert_allclose(found.params, 0, atol=1e-3)
    assert verdict(Point(point.objective, found.params)).kind == Kind.NOT_CRITICAL
    assert verdict(Point(point.objective, jnp.zeros(2))).kind == Kind.NOT_CRITICAL


def test_without_the_slope_the_same_place_is_critical() -> None:
    found = find_critical_point(Point(Objective.of(inflection(0.0)), jnp.array([1.0, 0.5])), Search(tolerance=1e-9))
    assert found.ending == Ending.CRITICAL
    assert verdict(Point(Objective.of(inflection(0.0)), jnp.zeros(2))).kind == Kind.DEGENERATE


def test_a_search_that_ran_out_of_steps_says_so() -> None:
    point = Point(Objective.of(lambda x: jnp.sum(jnp.cosh(x))), jnp.array([8.0, -6.0]))
    found = find_critical_point(point, Search(steps=2))
    assert (found.ending, found.steps) == (Ending.UNFINISHED, 2)
    assert find_critical_point(point).ending == Ending.CRITICAL


# A gradient that is rounding.


def test_a_gradient_of_rounding_promises_nothing() -> None:
    """At exact critical points, computed in other bases: 1e-16 and no curvature along it would promise all the loss."""
    made = deep_linear_network([3.0, 2.0, 0.5], 3, seed=1)
    objective = Objective.of(made.loss)
    points = [Point(objective, truth.params) for truth in made.points]
    without = {judge(expand_downhill(p), extreme_eigenvalues(p, SpectrumSettings()), Tolerances()).kind for p in points}
    assert Kind.NOT_CRITICAL in without
    assert Kind.NOT_CRITICAL not in {verdict(point).kind for point in points}


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_rounding_is_in_the_gradients_own_units(scale: float) -> None:
    for size, share in ((4, 1.0), (1024, 0.5)):
        point = Point(Objective.of(lambda x: scale * jnp.sum(x**2)), jnp.ones(size))
        pairs = extreme_eigenvalues(point, SpectrumSettings(max_products=1, dense_size=0))
        eps = np.finfo(np.float64).eps
        assert gradient_rounding(point, pairs) == pytest.approx(eps * 2 * scale * np.sqrt(size) * share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_autoencoder([1.0, 1.0], 1), "positive numbers, no two of them equal"),
        (lambda: linear_autoencoder([1.0, -1.0], 1), "positive numbers"),
        (lambda: linear_autoencoder([2.0, 1.0], 3), "width = 3: give 1 to 2"),
        (lambda: deep_linear_network([2.0, 1.0], 1), "depth = 1: a deep linear network has at least 2 layers"),
        (
            lambda: inertia(Point(Objective.of(jnp.sum), jnp.ones(3)), 0.0, dense_size=2),
            "dense_size = 2: raise it",
        ),
    ],
)
def test_what_has_no_table_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
