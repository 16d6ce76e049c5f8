"""The lesson on linear regression: the notes' listings in plain Python, closed forms, and what the page claims."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import run_lesson
from jaxfood.lessons.descent import descend, descend_batches
from jaxfood.lessons.linear_regression import ALPHA, AREAS, BATCH, PRICES, SEED, STEPS, TOLERANCE

X, Y = AREAS.tolist(), PRICES.tolist()
ROWS = np.stack([np.ones(7), AREAS], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    return run_lesson("linear-regression", folder)


def bgd_listing(steps: int) -> list[tuple[float, float]]:
    """The notes' loop: theta after each of the first steps."""
    theta0 = theta1 = 0.0
    path = []
    for _ in range(steps):
        diff0 = diff1 = 0.0
        for x, y in zip(X, Y, strict=True):
            diff0 += theta0 + theta1 * x - y
            diff1 += (theta0 + theta1 * x - y) * x
        theta0, theta1 = theta0 - ALPHA / 7 * diff0, theta1 - ALPHA / 7 * diff1
        path.append((theta0, theta1))
    return path


def sgd_listing(choices: np.ndarray, rate: float) -> list[tuple[float, float]]:
    """The notes' loop with given choices: theta after each step."""
    theta0 = theta1 = 0.0
    path = []
    for j in choices:
        diff = theta0 + theta1 * X[j] - Y[j]
        theta0, theta1 = theta0 - rate * diff, theta1 - rate * diff * X[j]
        path.append((theta0, theta1))
    return path


def draws() -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(SEED)
    return rng.integers(7, size=STEPS), rng


def test_the_seven_points_are_the_notes() -> None:
    assert X == [150, 200, 250, 300, 350, 400, 600]
    assert Y == [6450, 7450, 8450, 9450, 11450, 15450, 18450]


def test_the_least_squares_line_is_numpys(numbers: dict[str, Any]) -> None:
    slope, height = np.polyfit(AREAS, PRICES, 1)
    np.testing.assert_allclose(numbers["least_squares"]["theta"], [height, slope], rtol=1e-9)
    error = np.sum((height + slope * AREAS - PRICES) ** 2) / 2
    assert numbers["least_squares"]["error"] == pytest.approx(error, rel=1e-12)


def test_the_curvatures_are_those_of_the_mean_loss(numbers: dict[str, Any]) -> None:
    trace, determinant = 1 + np.mean(AREAS**2), np.var(AREAS)
    flat, steep = numbers["curvatures"]
    assert flat + steep == pytest.approx(trace)
    assert flat * steep == pytest.approx(determinant)


def test_batch_gradient_descent_goes_the_listings_way(numbers: dict[str, Any]) -> None:
    steps = numbers["bgd"]["steps"]
    expected = np.array(bgd_listing(1000))
    kept = steps <= 1000
    assert kept.sum() > 50
    np.testing.assert_allclose(numbers["bgd"]["theta"][kept], expected[steps[kept] - 1], rtol=1e-10)


def test_batch_gradient_descent_stops_where_the_listing_does(numbers: dict[str, Any]) -> None:
    """Rounding moves the stopping step: the last change of the error is a part in 10^11 of the error."""
    np.testing.assert_allclose(numbers["bgd"]["theta"][-1], numbers["listing"]["theta"], rtol=5e-7)
    assert numbers["bgd"]["steps"][-1] == pytest.approx(numbers["listing"]["steps"], rel=1e-3)


def test_it_stops_short_of_the_least_squares_line_by_as_much_as_theory_says(numbers: dict[str, Any]) -> None:
    flat = numbers["curvatures"][0]
    assert numbers["bgd"]["excess"][-1] == pytest.approx(TOLERANCE / (2 * ALPHA * flat), rel=1e-3)
    distance = numbers["least_squares"]["theta"][0] - numbers["bgd"]["theta"][-1, 0]
    assert distance == pytest.approx((TOLERANCE / (7 * ALPHA)) ** 0.5 / flat, rel=1e-3)


def test_the_errors_are_those_of_the_lines(numbers: dict[str, Any]) -> None:
    for name in ("bgd", "sgd", "mini_batch", "sgd_at_alpha"):
        run = numbers[name]
        assert len(run["steps"]) == len(run["points_seen"]) == len(run["theta"]) == len(run["excess"])
        errors = [sum((t0 + t1 * x - y) ** 2 for x, y in zip(X, Y, strict=True)) / 2 for t0, t1 in run["theta"]]
        np.testing.assert_allclose(run["excess"], np.array(errors) - numbers["least_squares"]["error"], rtol=1e-8)


@pytest.mark.parametrize(("name", "rate"), [("sgd", ALPHA / 7), ("sgd_at_alpha", ALPHA)])
def test_sgd_goes_the_listings_way(numbers: dict[str, Any], name: str, rate: float) -> None:
    np.testing.assert_allclose(numbers[name]["theta"], sgd_listing(draws()[0], rate), rtol=1e-7)


def test_the_listing_of_sgd_would_not_have_stopped_earlier(numbers: dict[str, Any]) -> None:
    assert np.abs(np.diff(numbers["sgd"]["excess"])).min() > TOLERANCE


def test_a_mini_batch_is_two_of_a_permutation_and_the_odd_one(numbers: dict[str, Any]) -> None:
    _, rng = draws()
    theta, path, seen = np.zeros(2), [], []
    while len(path) < STEPS:
        order = rng.permutation(7)
        for batch in (order[0:2], order[2:4], order[4:6], order[6:]):
            residuals = ROWS[batch] @ theta - PRICES[batch]
            theta = theta - ALPHA / 7 * np.mean(residuals[:, None] * ROWS[batch], axis=0)
            path.append(theta)
            seen.append(len(batch))
    assert BATCH == 2
    np.testing.assert_allclose(numbers["mini_batch"]["theta"], path[:STEPS], rtol=1e-10)
    np.testing.assert_array_equal(numbers["mini_batch"]["points_seen"], np.cumsum(seen[:STEPS]))
    assert numbers["mini_batch"]["points_seen"][3] == 7


def test_smaller_batches_are_less_at_rest(numbers: dict[str, Any]) -> None:
    half = STEPS // 2
    sgd, mini_batch = (np.mean(numbers[name]["excess"][half:]) for name in ("sgd", "mini_batch"))
    bgd = numbers["bgd"]["excess"][list(numbers["bgd"]["steps"]).index(STEPS)]
    assert sgd > 1.2 * mini_batch > 1.2 * bgd
    assert np.all(np.diff(numbers["bgd"]["excess"]) < 0)


def test_alpha_itself_throws_the_line_over(numbers: dict[str, Any]) -> None:
    late = numbers["sgd_at_alpha"]["excess"][STEPS // 2 :]
    assert late.max() > 100 * numbers["sgd"]["excess"][STEPS // 2 :].max()


@pytest.mark.parametrize(("share_of_limit", "diverges"), [(0.999, False), (1.001, True)])
def test_gradient_descent_diverges_above_two_by_the_curvature(
    numbers: dict[str, Any], share_of_limit: float, diverges: bool
) -> None:
    rate = share_of_limit * 2 / numbers["curvatures"][1]
    settings = ("optimizer.name=sgd", f"optimizer.learning_rate={rate}")
    way = descend(lambda theta: ((ROWS @ theta - PRICES) ** 2).mean() / 2, (0, 0), settings, 2000)
    assert (way.losses[-1] > way.losses[0]) is np.bool_(diverges)


def test_standardized_areas_need_as_few_steps_as_the_closed_form(numbers: dict[str, Any]) -> None:
    """Both curvatures are 1, so each step goes the rate's share of the way left and the excess falls by a factor."""
    run = numbers["standardized"]
    least = numbers["least_squares"]["error"]
    start = np.sum(PRICES**2) / 2 - least
    error_before, error, step = 0.0, least + start, 0
    while step == 0 or abs(error - error_before) >= TOLERANCE:
        step += 1
        error_before = 0.0 if step == 1 else error
        error = least + start * (1 - run["rate"]) ** (2 * step)
    assert abs(int(run["steps"]) - step) <= 1
    np.testing.assert_allclose(run["theta"], numbers["least_squares"]["theta"], rtol=1e-6)


def test_descending_on_one_and_the_same_batch_is_descending() -> None:
    settings = ("optimizer.name=adam", "optimizer.learning_rate=0.1", "schedule.name=warmup_cosine")
    whole = descend(lambda p: ((p - 3) ** 2).sum(), (0, 1), settings, 20)
    batches = descend_batches(lambda p, goal: ((p - goal) ** 2).sum(), (0, 1), settings, np.full(20, 3.0))
    np.testing.assert_array_equal(whole.points, batches)


def test_the_page_and_its_pictures(folder: Path, numbers: dict[str, Any]) -> None:
    text, stored = read_lesson(
        folder, "linear-regression", {"lines": (960, 540), "paths": (1200, 540), "errors": (1200, 540)}
    )
    assert stored["bgd"]["steps"][-1] == numbers["bgd"]["steps"][-1]
    assert f"{numbers['bgd']['steps'][-1]:,}" in text
    assert f"{numbers['listing']['steps']:,}" in text
