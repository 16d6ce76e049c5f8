"""The escape from a saddle: the notes' example, lines that fall without end, and never a higher loss."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import UserError
from jaxfood.landscape import (
    Eigenpairs,
    Escape,
    LineSearch,
    Objective,
    Point,
    SpectrumSettings,
    escape,
    extreme_eigenvalues,
)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def escaped(loss: Callable[[Any], jax.Array], params: Any, **search: Any) -> Escape:
    objective = Objective.of(loss)
    point = Point(objective, params)
    result = escape(point, extreme_eigenvalues(point, SpectrumSettings()), LineSearch(**search))
    assert type(result.step) is float
    assert objective.value(result.params) == result.loss_after <= result.loss_before == objective.value(params)
    return result


def line(loss: Callable[[jax.Array], jax.Array]) -> Escape:
    """From 0 in one dimension."""
    return escaped(lambda x: loss(x[0]), jnp.zeros(1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_from_the_notes_saddle_to_a_perfect_minimum(dtype: type) -> None:
    result = escaped(lambda w: (1 - w[0] * w[1]) ** 2, jnp.zeros(2, dtype))
    assert result.loss_before == 1
    assert result.loss_after < 1e-8
    assert result.eigenvalue == pytest.approx(-2)
    assert abs(result.step) == pytest.approx(math.sqrt(2), rel=1e-5)
    np.testing.assert_allclose(np.abs(result.params), 1, rtol=1e-5)
    assert result.params.dtype == dtype


def test_the_parameters_keep_their_tree() -> None:
    params = {"a": jnp.zeros([]), "b": (jnp.zeros((1, 1)),)}
    result = escaped(lambda p: (1 - p["a"] * p["b"][0][0, 0]) ** 2, params)
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    assert result.loss_after < 1e-8


@pytest.mark.parametrize("lower", [1, -1])
def test_the_lower_of_both_ways_is_taken(lower: int) -> None:
    """x^4 - x^2 - x^3 / 2 has its lower minimum on the right, its mirror image on the left."""
    result = line(lambda x: (lower * x) ** 4 - x**2 - (lower * x) ** 3 / 2)
    assert result.params[0] == pytest.approx(lower * (3 + math.sqrt(137)) / 16, rel=1e-5)


@pytest.mark.parametrize("units", [1e-8, 1.0, 1e8])
def test_no_unit_of_the_parameters_matters(units: float) -> None:
    result = line(lambda x: (1 - (x / units) ** 2) ** 2)
    assert abs(result.step) == pytest.approx(units, rel=1e-5)


def test_a_first_step_that_is_too_long_is_halved() -> None:
    """The curvature of 1 holds for a thousandth only, and promises nothing of the size of the loss."""
    result = line(lambda x: 100 - 1e-6 * jnp.sin(x / 1e-3) ** 2 / 2 + x**2 * (jnp.abs(x) > 0.01))
    assert 0 < abs(result.step) < 0.01
    assert result.loss_after == pytest.approx(100 - 5e-7, abs=1e-12)


def test_a_loss_that_falls_without_end_is_followed_for_so_many_doublings() -> None:
    result = escaped(lambda x: -(x[0] ** 2), jnp.zeros(1), first_decrease=0.5, doublings=5)
    assert abs(result.step) == pytest.approx(2**5 * math.sqrt(0.5))


def test_a_loss_that_overflows_is_not_followed_there() -> None:
    result = line(lambda x: -(x**2) + jnp.where(jnp.abs(x) > 2, jnp.nan, 0.0))
    assert 1.9 < abs(result.step) <= 2
    assert math.isfinite(result.loss_after)
    without_end = line(lambda x: jnp.where(jnp.abs(x) > 1, -jnp.inf, -(x**2)))
    assert math.isfinite(without_end.loss_after)


def test_a_plateau_on_the_way_is_crossed() -> None:
    result = line(lambda x: 1 - jnp.minimum(x**2, 0.01) - 0.5 * jnp.exp(-((jnp.abs(x) - 3) ** 2) * 1000))
    assert result.loss_after <= 0.99


def test_equal_losses_on_the_way_do_not_stop_the_search() -> None:
    """The steps 0.1, 0.2, ... 1.6 are on the plateau, 3.2 is up the wall behind it."""
    result = line(lambda x: 1 - jnp.minimum(x**2, 0.01) + jnp.maximum(jnp.abs(x) - 2, 0) ** 2)
    assert result.loss_after == 0.99


def test_where_no_step_lowers_the_loss_nothing_moves() -> None:
    """The curvature said so, the loss itself does not: eigenpairs of another point, say."""
    point = Point(Objective.of(lambda x: jnp.sum(jnp.abs(x))), jnp.zeros(2))
    pairs = Eigenpairs(np.array([-1.0, 1.0]), np.eye(2), np.zeros(2), True, True, 0.0, 2)
    result = escape(point, pairs, LineSearch())
    assert result.step == 0
    assert result.loss_after == result.loss_before == 0
    np.testing.assert_array_equal(result.params, point.params)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(8))
def test_the_loss_is_never_higher(seed: int, dtype: type) -> None:
    """Anywhere on a rough function, critical or not."""
    rng = np.random.default_rng(seed)
    waves = jnp.asarray(rng.normal(size=(6, 4)) * 3, dtype)

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(waves @ x)) + jnp.sum(x**2)

    result = escaped(loss, jnp.asarray(rng.normal(size=4), dtype))
    assert result.loss_after < result.loss_before


def test_a_start_where_the_loss_is_not_finite_is_refused() -> None:
    point = Point(Objective.of(lambda x: jnp.log(x[0])), -jnp.ones(1))
    pairs = Eigenpairs(np.array([-1.0]), np.eye(1), np.zeros(1), True, True, 0.0, 1)
    with pytest.raises(UserError, match="the loss is nan"):
        escape(point, pairs, LineSearch())


def test_without_a_negative_eigenvalue_there_is_no_escaped() -> None:
    with pytest.raises(UserError, match="smallest eigenvalue is 2: there is no way out"):
        escaped(lambda x: jnp.sum(x**2), jnp.zeros(2))
