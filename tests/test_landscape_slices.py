"""Sharpness and slices: analytic rises, the ball, and directions that do not see a filter's scale. In float64."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import UserError
from jaxfood.landscape import (
    Objective,
    Point,
    Sharpness,
    SpectrumSettings,
    extreme_eigenvalues,
    filter_normalised,
    loss_slice,
    sharpness,
)
from jaxfood.landscape.worst_rise import maximise
from jaxfood.model.blocks import ConvBlock


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# The model's highest place in a ball.


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0], ids=["bump", "saddle", "bowl"])
@pytest.mark.parametrize("slope_size", [0.0, 1e-9, 0.5, 20.0])
def test_no_random_place_of_the_ball_is_higher(seed: int, shift: float, slope_size: float) -> None:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(3, 3))
    curvature, slope = half + half.T + shift * np.eye(3), slope_size * rng.normal(size=3)
    radius = 0.7

    def height(places: np.ndarray) -> np.ndarray:
        return places @ slope + np.sum((places @ curvature) * places, axis=-1) / 2

    peak = maximise(slope, curvature, radius)
    assert np.linalg.norm(peak) <= radius * (1 + 1e-9)
    directions = rng.normal(size=(20000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    places = radius * np.concatenate([directions, directions * rng.random((20000, 1))])
    best = height(places).max()
    assert height(peak) >= best - 1e-12
    assert height(peak) <= best + 0.02 * max(abs(best), radius**2)


def test_the_hard_case_is_filled_up_along_the_top_eigenvector() -> None:
    """The slope has no part along it: (mu - curvature)^-1 slope stays short however small mu."""
    peak = maximise(np.array([1.0, 0.0]), np.diag([1.0, 3.0]), radius=2.0)
    np.testing.assert_allclose(np.abs(peak), [0.5, math.sqrt(4 - 0.25)], rtol=1e-6)
    np.testing.assert_array_equal(np.linalg.norm(maximise(np.zeros(2), np.zeros((2, 2)), radius=2.0)), 2.0)
    inside = maximise(np.array([1.0, 0.0]), np.diag([-4.0, -1.0]), radius=2.0)
    np.testing.assert_allclose(inside, [0.25, 0], atol=1e-9)


# Sharpness.


def measure(loss: Callable[[Any], jax.Array], params: Any, radius: float, steps: int = 20, **options: Any) -> Sharpness:
    point = Point(Objective.of(loss), jnp.asarray(params))
    result = sharpness(point, extreme_eigenvalues(point, SpectrumSettings(**options)), radius, steps)
    assert np.linalg.norm(result.displacement) <= radius * (1 + 1e-9)
    assert point.loss_at(result.displacement) - point.loss == pytest.approx(result.rise, rel=1e-9, abs=1e-12)
    assert result.rise >= result.rise_there
    return result


@pytest.mark.parametrize("options", [{}, {"dense_size": 0}], ids=["dense", "Lanczos"])
def test_the_sharpness_of_a_quadratic_is_half_its_largest_eigenvalue(options: dict[str, int]) -> None:
    curvatures = jnp.array([1.0, 7.0, 3.0])
    result = measure(lambda x: 4 + jnp.sum(curvatures * x**2) / 2, np.zeros(3), radius=0.2, **options)
    assert result.largest_eigenvalue == pytest.approx(7)
    for rise in (result.model_rise, result.rise_there, result.rise):
        assert rise == pytest.approx(7 * 0.2**2 / 2, rel=1e-9)


def test_the_gradient_counts_too() -> None:
    """Beside a bowl's bottom the worst is outward: L = 3 r^2 / 2."""
    result = measure(lambda x: 3 * jnp.sum(x**2) / 2, np.array([0.6, 0.8]), radius=0.5)
    assert result.rise == pytest.approx(3 * (1.5**2 - 1) / 2)
    assert result.rise_there == pytest.approx(result.model_rise) == pytest.approx(result.rise)


def test_the_higher_of_both_mirror_images_is_taken() -> None:
    for sign in (1, -1):
        result = measure(lambda x, sign=sign: jnp.sum(x**2) + sign * x[0] ** 3 + x[0] ** 2, np.zeros(2), radius=0.5)
        assert result.rise_there == pytest.approx(2 * 0.25 + 0.125)


def test_ascent_finds_what_the_second_order_does_not_see() -> None:
    """The model looks along x; within the ball the loss is highest along y, whose wall rises late."""
    result = measure(lambda x: x[0] ** 2 + 20 * x[1] ** 4 + 0.3 * x[1], np.zeros(2), radius=1.0, steps=50)
    assert result.model_rise < 1.3
    assert result.rise == pytest.approx(20.3, rel=1e-6)


def test_ascent_shortens_a_step_that_leads_too_far() -> None:
    """A narrow summit on the rim, a little aside of where the model looks."""
    summit = jnp.array([math.cos(0.12), math.sin(0.12)])

    def loss(x: jax.Array) -> jax.Array:
        return 0.01 * x[0] ** 2 + 3 * jnp.exp(-jnp.sum((x - summit) ** 2) / 0.002)

    result = measure(loss, np.zeros(2), radius=1.0, steps=40)
    assert result.model_rise == pytest.approx(0.01)
    assert result.rise == pytest.approx(3.01, abs=2e-3)


def test_without_ascent_steps_it_is_the_models_place() -> None:
    result = measure(lambda x: x[0] ** 2 + 20 * x[1] ** 4 + 0.3 * x[1], np.zeros(2), radius=1.0, steps=0)
    assert result.rise == result.rise_there


def test_a_ball_without_a_radius_is_refused() -> None:
    with pytest.raises(UserError, match="radius is 0"):
        measure(lambda x: jnp.sum(x**2), np.zeros(2), radius=0)


def test_a_ball_in_which_the_loss_overflows() -> None:
    point = Point(Objective.of(lambda x: jnp.sum(x**2) / (jnp.sum(x**2) < 0.5)), jnp.zeros(2))
    pairs = extreme_eigenvalues(Point(Objective.of(lambda x: jnp.sum(x**2)), jnp.zeros(2)), SpectrumSettings())
    result = sharpness(point, pairs, 1.0, 5)
    assert result.rise_there == result.rise == math.inf


# Slices.


def test_a_slice_is_the_loss_at_every_combination_of_steps() -> None:
    def loss(p: Any) -> jax.Array:
        return jnp.sum(jnp.sin(p["a"])) * p["b"]

    params = {"a": jnp.arange(3.0), "b": jnp.array(2.0)}
    told = []
    point = Point(Objective.of(loss), params)
    across = point.flat({"a": jnp.ones(3), "b": jnp.array(0.0)})
    along = point.flat({"a": jnp.array([0, 1.0, 0]), "b": jnp.array(-1.0)})
    plane = loss_slice(point, (across, along), ([-1, 0, 1], [0, 0.5]), on_loss=lambda: told.append(1))
    assert plane.shape == (3, 2)
    assert len(told) == 6
    for i, x in enumerate([-1, 0, 1]):
        for j, y in enumerate([0, 0.5]):
            expected = (np.sin(np.arange(3) + x + y * np.array([0, 1, 0]))).sum() * (2 - y)
            assert plane[i, j] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(loss_slice(point, (along,), ([0, 0.5],)), plane[1], rtol=1e-12)


def test_a_slice_leads_from_one_point_to_another() -> None:
    start, end = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -1.0])}
    objective = Objective.of(lambda p: jnp.sum(p["a"] ** 3))
    point = Point(objective, start)
    losses = loss_slice(point, (point.flat(end) - point.flat(start),), ([0, 1],))
    np.testing.assert_allclose(losses, [objective.value(start), objective.value(end)], rtol=1e-14)


def test_a_slice_shows_where_the_loss_overflows() -> None:
    point = Point(Objective.of(lambda x: jnp.log(x[0])), jnp.ones(1))
    np.testing.assert_array_equal(np.isfinite(loss_slice(point, (np.ones(1),), ([-2, -1, 0],))), [False, False, True])


def test_steps_for_each_direction_are_needed() -> None:
    point = Point(Objective.of(lambda x: jnp.sum(x)), jnp.ones(2))
    with pytest.raises(ValueError, match="zip"):
        loss_slice(point, (np.ones(2), np.ones(2)), ([0, 1],))


# Filter-normalised directions.


def tree() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"bias": (5,), "conv": (3, 3, 2, 5), "dense": (7, 4), "scale": ()}
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("axis", [-1, 0])
def test_every_filter_is_as_long_as_the_parameters(axis: int) -> None:
    params = tree()
    params["dense"] = params["dense"].at[:, 2].set(0).at[3].set(0)
    point = Point(Objective.of(lambda p: jnp.sum(p["dense"])), params)
    direction = point.tree(jnp.asarray(filter_normalised(point, seed=0, filter_axis=axis)))
    np.testing.assert_array_equal(direction["bias"], 0)
    np.testing.assert_array_equal(direction["scale"], 0)
    for name in ("conv", "dense"):
        lengths = [
            np.linalg.norm(np.moveaxis(np.asarray(t[name]), axis, 0).reshape(params[name].shape[axis], -1), axis=1)
            for t in (direction, params)
        ]
        np.testing.assert_allclose(*lengths, rtol=1e-12)
    assert abs(np.vdot(direction["conv"], params["conv"])) < 0.5 * np.sum(params["conv"] ** 2)


def test_directions_come_from_the_seed() -> None:
    point = Point(Objective.of(lambda p: jnp.sum(p["dense"])), tree())
    first, again, other = (filter_normalised(point, seed=seed, filter_axis=-1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.slow
def test_slices_do_not_see_the_scale_that_batch_norm_takes_out() -> None:
    """A convolution ten times as large computes the same; so does every point of its slice."""
    rng = np.random.default_rng(0)
    block, images = ConvBlock(3, 4), rng.normal(size=(6, 4, 4, 3))
    variables = jax.jit(lambda key: block.init(key, images, train=True))(jax.random.key(0))

    def losses(scale: float) -> np.ndarray:
        params = variables["params"] | {"kernel": scale * variables["params"]["kernel"]}

        def loss(params: Any) -> jax.Array:
            features, _ = block.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.sin(3 * features))

        point = Point(Objective.of(loss), params)
        return loss_slice(point, (filter_normalised(point, seed=3, filter_axis=-1),), ([-1, -0.5, 0, 0.5],))

    small = losses(1.0)
    np.testing.assert_allclose(losses(10.0), small, rtol=1e-3)  # but for BatchNorm's epsilon
    assert np.ptp(small) > 0.01


def test_parameters_without_filters_are_refused() -> None:
    point = Point(Objective.of(lambda p: jnp.sum(p)), jnp.ones(3))
    with pytest.raises(UserError, match="no parameter has filters"):
        filter_normalised(point, seed=0, filter_axis=-1)
