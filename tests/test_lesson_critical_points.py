"""The lesson on critical points: values by hand, verdicts, the way out, and what the page claims."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import critical_points, run_lesson
from jaxfood.lessons.critical_points import MINIMA, OFFSETS, RATE, SADDLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    return run_lesson("critical-points", folder)


def at(numbers: dict[str, Any], point: tuple[float, float]) -> dict[str, Any]:
    return next(found for found in numbers["points"] if found["point"] == point)


def test_what_is_computed_is_what_is_found_by_hand(numbers: dict[str, Any]) -> None:
    assert len(numbers["points"]) == 1 + len(MINIMA)
    for point in numbers["points"]:
        np.testing.assert_array_equal(point["gradient"], point["gradient_by_hand"])
        np.testing.assert_array_equal(point["gradient"], 0)
        np.testing.assert_allclose(point["hessian"], point["hessian_by_hand"], atol=1e-14)
        np.testing.assert_allclose(point["eigenvalues"], point["eigenvalues_by_hand"], atol=1e-14)
        for value, vector in zip(point["eigenvalues"], point["eigenvectors"], strict=True):
            np.testing.assert_allclose(point["hessian"] @ vector, value * vector, atol=1e-14)


def test_the_derivatives_by_hand_are_those_of_the_loss() -> None:
    """Central differences, away from the critical points."""

    def loss(w: np.ndarray) -> float:
        return (1 - w[0] * w[1]) ** 2

    w, step = np.array([0.7, -1.3]), 1e-4
    ways = step * np.eye(2)
    gradient = [(loss(w + d) - loss(w - d)) / (2 * step) for d in ways]
    np.testing.assert_allclose(critical_points.gradient_by_hand(*w), gradient, rtol=1e-6)
    slopes = [critical_points.gradient_by_hand(*(w + d)) - critical_points.gradient_by_hand(*(w - d)) for d in ways]
    hessian = critical_points.hessian_by_hand(*w)
    np.testing.assert_allclose(hessian, np.array(slopes) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(critical_points.eigenvalues_by_hand(*w), np.linalg.eigvalsh(hessian), rtol=1e-12)


def test_the_saddle(numbers: dict[str, Any]) -> None:
    saddle = at(numbers, SADDLE)
    assert (saddle["kind"], saddle["loss"]) == ("saddle", 1)
    np.testing.assert_allclose(saddle["eigenvalues"], [-2, 2])
    down, up = saddle["eigenvectors"]
    assert abs(down @ [1, 1]) == pytest.approx(math.sqrt(2))
    assert abs(up @ [1, -1]) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("point", MINIMA)
def test_the_minima_are_a_valley(numbers: dict[str, Any], point: tuple[float, float]) -> None:
    """Along the curve, (w1, -w2), the curvature is 0; across it 2 (w1^2 + w2^2)."""
    minimum = at(numbers, point)
    w1, w2 = point
    assert (minimum["kind"], minimum["loss"]) == ("degenerate", 0)
    np.testing.assert_allclose(minimum["eigenvalues"], [0, 2 * (w1**2 + w2**2)], atol=1e-14)
    assert abs(minimum["eigenvectors"][0] @ [w1, -w2]) == pytest.approx(math.hypot(w1, w2))


def test_the_minima_lie_on_both_branches() -> None:
    assert all(w1 * w2 == 1 for w1, w2 in MINIMA)
    assert {w1 > 0 for w1, _ in MINIMA} == {True, False}


def test_the_escape_ends_in_a_minimum(numbers: dict[str, Any]) -> None:
    out = numbers["escape"]
    assert out["loss_before"] == 1
    assert 0 <= out["loss_after"] < 1e-10
    assert abs(out["step"]) == pytest.approx(math.sqrt(2), rel=1e-5)
    np.testing.assert_allclose(np.abs(out["params"]), 1, rtol=1e-5)
    assert out["params"][0] * out["params"][1] > 0
    assert out["loss_the_other_way"] == pytest.approx(out["loss_after"], abs=1e-12)
    np.testing.assert_allclose(out["losses_along_the_positive_one"], 4, rtol=1e-4)


def test_the_slices_are_those_of_the_formulas(numbers: dict[str, Any]) -> None:
    t = np.asarray(numbers["slices"]["saddle"]["steps"])
    down, up = numbers["slices"]["saddle"]["along"]
    np.testing.assert_allclose(down["losses"], (1 - t**2 / 2) ** 2, atol=1e-12)
    np.testing.assert_allclose(down["expansion"], 1 - t**2, atol=1e-12)
    np.testing.assert_allclose(up["losses"], (1 + t**2 / 2) ** 2, atol=1e-12)
    np.testing.assert_allclose(up["expansion"], 1 + t**2, atol=1e-12)
    flat, across = numbers["slices"]["minimum"]["along"]
    np.testing.assert_allclose(flat["losses"], t**4 / 4, atol=1e-12)
    np.testing.assert_allclose(flat["expansion"], 0, atol=1e-12)
    np.testing.assert_allclose(across["expansion"], 2 * t**2, atol=1e-12)


def test_gradient_descent_stays_at_the_saddle_and_leaves_slowly_from_beside_it(numbers: dict[str, Any]) -> None:
    stays, *leave = numbers["descents"]
    assert (stays["distance"], stays["steps"], stays["last_loss"]) == (0, None, 1)
    steps = [way["steps"] for way in leave]
    two_digits = 2 * math.log(10) / math.log1p(2 * RATE)
    assert len(steps) == len(OFFSETS)
    np.testing.assert_allclose(np.diff(steps), two_digits, atol=1)
    assert all(way["last_loss"] < 1e-10 for way in leave)


def test_the_page_and_its_pictures(folder: Path, numbers: dict[str, Any]) -> None:
    text, stored = read_lesson(folder, "critical-points", {"surface": (840, 660), "slices": (1200, 504)})
    assert text.count("| degenerate |") == len(MINIMA)
    assert text.count("| saddle |") == 1
    assert stored["points"][0]["eigenvalues"] == pytest.approx([-2, 2])
    assert stored["descents"][0]["steps"] is None
