"""The lesson on momentum: its first steps by hand, closed forms, and what the page claims."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import run_lesson
from jaxfood.lessons.momentum import DECAY, DECAY_AT, FAST, FASTER, PLACES, RATE, RUNNERS, SHARE, SLOW, STEPS

pytestmark = pytest.mark.slow  # the lesson takes seconds; other lessons stay in the default set

WITH_MOMENTUM = ("momentum", "notes_momentum", "nesterov")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    return run_lesson("momentum", folder)


def slope_of_two_valleys(x: float) -> float:
    return x**3 - x - 1 / 5


def slope_of_plateau(x: float) -> float:
    return x**2 * (x - 2)


def slope_of_saddle(w: np.ndarray) -> np.ndarray:
    return -2 * (1 - w[0] * w[1]) * w[::-1]


SLOPES = {
    "local minimum": slope_of_two_valleys,
    "plateau": slope_of_plateau,
    "saddle": slope_of_saddle,
    "saddle, from its ridge": slope_of_saddle,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_first_steps_by_hand(numbers: dict[str, Any], place: str, runner: str) -> None:
    name, rate = RUNNERS[runner]
    point, movement = np.array(PLACES[place].start), 0.0
    expected = [point]
    for _ in range(20):
        gradient = SLOPES[place](point)
        movement = (0 if name == "sgd" else SHARE) * movement - rate * gradient
        point = point + (SHARE * movement - rate * gradient if name == "nesterov" else movement)
        expected.append(point)
    np.testing.assert_allclose(numbers["places"][place][runner]["points"][:21], expected, rtol=1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_losses_and_gradient_norms_are_those_of_the_points(numbers: dict[str, Any], place: str) -> None:
    losses = {
        "local minimum": lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2 - x[0] / 5,
        "plateau": lambda x: x[0] ** 4 / 4 - 2 * x[0] ** 3 / 3,
    }
    for way in numbers["places"][place].values():
        loss = losses.get(place, lambda w: (1 - w[0] * w[1]) ** 2)
        np.testing.assert_allclose(way["losses"], [loss(x) for x in way["points"]], atol=1e-12)
        norms = [np.linalg.norm(SLOPES[place](x)) for x in way["points"]]
        np.testing.assert_allclose(way["gradient_norms"], norms, atol=1e-12)


def test_gradient_descent_stops_in_the_high_valley_and_momentum_ends_in_the_low_one(numbers: dict[str, Any]) -> None:
    high, hill, low = np.sort(np.roots((1, 0, -1, -1 / 5)))
    ways = numbers["places"]["local minimum"]
    for runner in (SLOW, FAST):
        assert ways[runner]["points"][-1, 0] == pytest.approx(high, abs=1e-3)
        assert ways[runner]["steps"] is None
    for runner in WITH_MOMENTUM:
        assert ways[runner]["points"][-1, 0] == pytest.approx(low, abs=1e-6)
        positions, steps = ways[runner]["points"][:, 0], ways[runner]["steps"]
        assert positions[steps] > hill > positions[steps - 1]
        assert ways[runner]["losses"][-1] < ways[SLOW]["losses"][-1] - 0.3


@pytest.mark.parametrize(("runner", "rate"), [(SLOW, RATE), (FAST, FASTER * RATE)])
def test_gradient_descent_crawls_to_the_plateau_and_never_over_it(
    numbers: dict[str, Any], runner: str, rate: float
) -> None:
    """A step is rate x^2 (2 - x), about 2 rate x^2 near 0, so 1 / (way left) grows by 2 rate."""
    positions = numbers["places"]["plateau"][runner]["points"][:, 0]
    assert np.all(np.diff(positions) > 0)
    assert positions[-1] < 0
    assert np.diff(1 / -positions[-2:])[0] == pytest.approx(2 * rate, rel=0.05)
    for with_momentum in WITH_MOMENTUM:
        assert numbers["places"]["plateau"][with_momentum]["points"][-1, 0] == pytest.approx(2, abs=1e-6)


def test_gradient_descent_leaves_the_saddle_at_the_rate_of_its_negative_curvature(numbers: dict[str, Any]) -> None:
    """Along (1, 1) the Hessian's eigenvalue is -2: the distance from the ridge grows by 1 + 2 rate a step."""
    points = numbers["places"]["saddle"][SLOW]["points"]
    aside = points.sum(axis=1)
    near = np.flatnonzero(np.abs(points).max(axis=1) < 0.1)
    assert len(near) > 20
    np.testing.assert_allclose(aside[near + 1] / aside[near], 1 + 2 * RATE, rtol=1e-3)


def test_momentum_leaves_the_saddle_sooner_but_not_sooner_than_a_higher_rate(numbers: dict[str, Any]) -> None:
    ways = numbers["places"]["saddle"]
    assert ways[FAST]["steps"] < ways["momentum"]["steps"] < ways[SLOW]["steps"] / 4
    for way in ways.values():
        assert way["losses"][way["steps"]] < 0.5 <= way["losses"][way["steps"] - 1]


def test_from_the_ridge_nothing_leaves_the_saddle(numbers: dict[str, Any]) -> None:
    for way in numbers["places"]["saddle, from its ridge"].values():
        assert way["steps"] is None
        np.testing.assert_array_equal(way["points"].sum(axis=1), 0)
        assert way["losses"][-1] == pytest.approx(1, abs=1e-8)


def test_shares_of_the_starts(numbers: dict[str, Any]) -> None:
    shares = numbers["starts"]["in_low_valley"]
    for runner in (SLOW, FAST):
        assert shares[runner] == {"left": 0, "right": 1}
    assert 0 < shares["nesterov"]["left"] < shares["momentum"]["left"] < 1
    assert shares["momentum"]["right"] < 1
    assert shares["momentum"] == shares["notes_momentum"]


def test_the_recursion_is_the_notes(numbers: dict[str, Any]) -> None:
    recursion = numbers["recursion"]
    g = [slope_of_two_valleys(x) for x in recursion["positions"]]
    np.testing.assert_allclose(recursion["gradients"], g, rtol=1e-12)
    first = -RATE * g[0]
    second = -SHARE * RATE * g[0] - RATE * g[1]
    third = SHARE * second - RATE * g[2]
    expected = [first, second, third, SHARE * third - RATE * g[3]]
    np.testing.assert_allclose(recursion["by_formula"], expected, rtol=1e-12)
    np.testing.assert_allclose(recursion["moved"], expected, rtol=1e-12)


def test_the_two_forms_are_one_at_a_constant_rate_and_two_under_decay(numbers: dict[str, Any]) -> None:
    assert numbers["difference"] < 1e-10
    torchs, notes = numbers["decay"]["momentum"], numbers["decay"]["notes_momentum"]
    k = np.arange(len(torchs))
    full = RATE * (1 - SHARE ** (k + 1)) / (1 - SHARE)
    np.testing.assert_allclose(torchs, np.where(k < DECAY_AT, full, DECAY * full), rtol=1e-9)
    after = k[DECAY_AT:] - DECAY_AT + 1
    dying = full[DECAY_AT - 1] * SHARE**after + DECAY * RATE * (1 - SHARE**after) / (1 - SHARE)
    np.testing.assert_allclose(notes, np.append(full[:DECAY_AT], dying), rtol=1e-9)


def test_the_page_and_its_pictures(folder: Path, numbers: dict[str, Any]) -> None:
    text, stored = read_lesson(folder, "momentum", {"places": (1440, 840), "decay": (960, 540)})
    assert stored["places"]["plateau"][SLOW]["steps"] is None
    assert len(stored["places"]["saddle"]["nesterov"]["points"]) == STEPS + 1
    for runner in RUNNERS:
        assert text.count(f"| {runner} |") == len(PLACES) + 1
