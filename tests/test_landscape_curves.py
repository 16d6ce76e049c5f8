"""The line and the curve between two points, and the critical learning rate."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.landscape import Curve, Objective, Point, barrier, find_critical_rate, fit_curve, straight

A, B = {"w": jnp.array([-1.0, 0.0])}, {"w": jnp.array([1.0, 0.0])}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def test_the_line_and_the_curve_by_hand() -> None:
    line, curve = straight(A, B), Curve(A, {"w": jnp.array([0.0, 2.0])}, B)
    for t in np.linspace(0, 1, 5):
        np.testing.assert_allclose(line.at(t)["w"], [2 * t - 1, 0], atol=1e-15)
        np.testing.assert_allclose(curve.at(t)["w"], [2 * t - 1, 4 * t * (1 - t)], atol=1e-15)
    assert curve.at(0)["w"].tolist() == A["w"].tolist()
    assert straight(*(jax.tree.map(jnp.float32, p) for p in (A, B))).at(0.5)["w"].dtype == jnp.float32


def test_a_curve_goes_around_a_wall() -> None:
    """Two minima of a ring, (|w|^2 - 1)^2, joined over one side of it; the loss of each batch is noisy."""

    def loss(params: dict[str, jax.Array], batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        w = params["w"]
        return 2 * (w @ w - 1) ** 2 + 1e-3 * batch @ w, jnp.array(2.0)

    rng, told = np.random.default_rng(0), list[float]()
    batches = [jnp.asarray(noise) for noise in rng.normal(size=(400, 2))]
    line = straight(A, B)
    curve = fit_curve(loss, line, batches, updates=400, rate=0.1, on_update=told.append)
    assert len(told) == 400
    places = np.linspace(0, 1, 21)
    walls = [
        barrier(places, np.array([float(loss(path.at(t), jnp.zeros(2))[0] / 2) for t in places]))
        for path in (line, curve)
    ]
    assert walls[0] == pytest.approx(1)
    assert walls[1] < 0.15  # a parabola is no circle: at best 0.1
    assert [p["w"].tolist() for p in (curve.start, curve.end)] == [p["w"].tolist() for p in (A, B)]
    again = fit_curve(loss, line, batches, updates=400, rate=0.1)
    np.testing.assert_array_equal(again.bend["w"], curve.bend["w"])


def test_a_wall_is_above_the_line_between_the_ends() -> None:
    places = np.array([0.0, 0.5, 1.0])
    assert barrier(places, np.array([1.0, 3.5, 2.0])) == 2
    assert barrier(places, np.array([1.0, 0.5, 2.0])) == 0
    assert barrier(places, np.array([1.0, math.nan, 2.0])) == math.inf


@pytest.mark.parametrize("first", [1e-4, 0.01, 0.1, 3.0])
def test_the_critical_rate_of_a_quadratic_is_two_by_the_curvature_along_the_step(first: float) -> None:
    values = jnp.array([1.0, 5.0, 20.0])
    point = Point(Objective.of(lambda x: jnp.sum(values * x**2) / 2), jnp.array([3.0, 2.0, 1.0]))
    direction = point.gradient
    curvature = direction @ point.product(direction) / (direction @ direction)
    found = find_critical_rate(lambda rate: point.loss_at(-rate * direction), point.loss, first)
    assert found.low <= 2 / curvature < found.high
    assert found.high <= found.low * 1.06
    assert found.value == pytest.approx(2 / curvature, rel=0.06)
    assert found.sharpness == pytest.approx(curvature, rel=0.06)
    fine = find_critical_rate(lambda rate: point.loss_at(-rate * direction), point.loss, first, accuracy=1e-9)
    assert fine.value == pytest.approx(2 / curvature, rel=1e-9)


def test_it_takes_ten_losses_within_a_factor_of_thirty() -> None:
    for ratio in np.geomspace(1 / 30, 30, 23):
        calls = list[float]()

        def loss_at(rate: float, ratio: float = ratio, calls: list[float] = calls) -> float:
            calls.append(rate)
            return rate * (rate - ratio)

        found = find_critical_rate(loss_at, 0.0, 1.0)
        assert found.value == pytest.approx(ratio, rel=0.06)
        assert found.losses == len(calls) == len(set(calls)) <= 11


def test_a_loss_that_always_or_never_rises_or_overflows() -> None:
    never = find_critical_rate(lambda rate: -rate, 0.0, 1.0)
    assert (never.value, never.sharpness, never.losses) == (math.inf, 0, 31)
    always = find_critical_rate(lambda rate: rate, 0.0, 1.0)
    assert (always.value, always.sharpness) == (0, math.inf)
    overflows = find_critical_rate(lambda rate: math.nan if rate > 5 else 0.0, 0.0, 1.0)
    assert overflows.value == pytest.approx(5, rel=0.06)
