"""The lesson on the minimum ratio: its points against NumPy, and what the page claims."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import minimum_ratio, run_lesson
from jaxfood.lessons.least_gradient import least_gradient
from jaxfood.lessons.minimum_ratio import EXAMPLES, FROM_MINIMISING, FROM_TRAINING, SEEDS, SIZE, SMALL, STARTS, STRICT

pytestmark = pytest.mark.slow  # the lesson takes seconds; other lessons stay in the default set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    return run_lesson("minimum-ratio", folder)


@pytest.fixture(scope="module")
def critical(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    return minimum_ratio.critical_points(numbers["points"], SMALL)


def test_every_start_gives_two_points(numbers: dict[str, Any]) -> None:
    points = numbers["points"]
    assert len(points) == 2 * SEEDS * len(STARTS)
    for training, minimised in zip(points[::2], points[1::2], strict=True):
        assert (training["found_by"], minimised["found_by"]) == (FROM_TRAINING, FROM_MINIMISING)
        assert minimised["gradient_norm"] < training["gradient_norm"]


def test_loss_gradient_and_shares_of_the_first_start_against_numpy(numbers: dict[str, Any]) -> None:
    """The Hessian as differences of a gradient that is written out."""
    start = minimum_ratio._initial(0)
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((EXAMPLES, 4)), rng.standard_normal(EXAMPLES)
    targets = (targets - targets.mean()) / targets.std()

    def gradient(params: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias, weights, offset = params[:40].reshape(4, 10), params[40:50], params[50:60], params[60]
        hidden = np.tanh(inputs @ kernel + bias)
        errors = hidden @ weights + offset - targets
        back = 2 * errors[:, None] * weights * (1 - hidden**2) / EXAMPLES
        outer = 2 * hidden.T @ errors / EXAMPLES
        flat = np.concatenate([(inputs.T @ back).ravel(), back.sum(0), outer, [2 * errors.mean()]])
        return float(np.mean(errors**2)), flat

    step = 1e-5
    ways = step * np.eye(SIZE)
    hessian = np.array([(gradient(start + way)[1] - gradient(start - way)[1]) / (2 * step) for way in ways])
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    threshold = 1e-4 * np.abs(values).max()
    first = numbers["points"][0]
    assert first["loss"] == pytest.approx(gradient(start)[0], rel=1e-12)
    assert first["gradient_norm"] == pytest.approx(np.linalg.norm(gradient(start)[1]), rel=1e-12)
    assert first["ratio"] == pytest.approx(np.mean(values > threshold))
    assert first["negative"] == pytest.approx(np.mean(values < -threshold))


def test_minimising_the_gradient_ends_at_a_saddle() -> None:
    """(1 - w1 w2)^2 near its saddle, which training would leave."""
    with jax.enable_x64(True):

        def loss(w: jax.Array) -> jax.Array:
            return (1 - w[0] * w[1]) ** 2

        derivatives = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
        end = least_gradient(*derivatives, np.array([0.3, 0.2]), tolerance=1e-14, evaluations=300)
    np.testing.assert_allclose(end, 0, atol=1e-8)


def test_the_higher_the_loss_the_more_negative_eigenvalues(numbers: dict[str, Any]) -> None:
    for found, bound in zip(numbers["correlations"], (SMALL, STRICT), strict=True):
        assert found["bound"] == bound
        assert found["count"] == sum(point["gradient_norm"] <= bound for point in numbers["points"]) >= 8
        assert found["negative"] > 0
        assert found["ratio"] < -0.7
    assert numbers["correlations"][0]["negative"] > 0.7


def test_points_without_negative_eigenvalues_are_found_only_at_low_loss(critical: list[dict[str, Any]]) -> None:
    assert all(point["loss"] < 0.1 for point in critical if point["negative"] == 0)
    high = [point for point in critical if point["loss"] > 0.5]
    assert len(high) >= 5
    assert all(point["negative"] > 0.1 for point in high)
    assert any(point["negative"] == 0 for point in critical)


def test_the_ratio_never_reaches_1_and_at_no_loss_has_a_bound(critical: list[dict[str, Any]]) -> None:
    assert all(0 < point["ratio"] < 1 and point["ratio"] + point["negative"] <= 1 for point in critical)
    learned = [point for point in critical if point["loss"] < 1e-20]
    assert len(learned) >= SEEDS
    for point in learned:
        assert point["negative"] == 0
        assert point["ratio"] <= EXAMPLES / SIZE


def test_the_page_and_its_picture(folder: Path, numbers: dict[str, Any]) -> None:
    text, stored = read_lesson(folder, "minimum-ratio", {"loss": (1200, 540)})
    assert len(stored["points"]) == len(numbers["points"])
    assert f"{numbers['correlations'][0]['negative']:.2f}" in text
