"""The lesson cross-entropy: its numbers against closed forms, and the claims that its page makes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.config import OPTIMIZERS
from jaxfood.lessons import cross_entropy as lesson
from jaxfood.lessons import run_lesson
from jaxfood.lessons.class_codes import answers
from jaxfood.optim.losses import cross_entropy, mean_squared_error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module", params=[pytest.param("whole", marks=pytest.mark.slow)])  # eight seconds for all tests
def numbers(folder: Path) -> dict[str, Any]:
    pytest.importorskip("matplotlib", reason="lessons draw with it")
    return run_lesson("cross-entropy", folder)


# Closed forms.


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum()


def cross_entropy_gradient(logits: np.ndarray) -> np.ndarray:
    """p - y, the first class being right."""
    return softmax(logits) - np.eye(len(logits))[0]


def mean_squared_error_gradient(logits: np.ndarray) -> np.ndarray:
    """2 / classes * p * (d - sum of p * d) with d = p - y, by the chain rule through softmax."""
    p = softmax(logits)
    d = p - np.eye(len(logits))[0]
    return 2 / len(logits) * p * (d - p @ d)


FORMULAS = [(cross_entropy, cross_entropy_gradient), (mean_squared_error, mean_squared_error_gradient)]


@pytest.mark.parametrize(("loss", "gradient"), FORMULAS)
def test_the_formulas_of_the_gradients_are_finite_differences_and_jaxs(loss: Callable, gradient: Callable) -> None:
    with jax.enable_x64(True):
        for logits in np.random.default_rng(0).normal(scale=2, size=(5, 3)):

            def value(z: Any) -> Any:
                return loss(jnp.asarray(z)[None], jnp.zeros(1, int))[0]

            h = 1e-6
            differences = [(value(logits + h * e) - value(logits - h * e)) / (2 * h) for e in np.eye(3)]
            np.testing.assert_allclose(gradient(logits), differences, atol=1e-9)
            np.testing.assert_allclose(jax.grad(value)(jnp.asarray(logits)), gradient(logits), rtol=1e-12, atol=1e-14)


def test_loss_and_gradient_in_the_corner(numbers: dict[str, Any]) -> None:
    logits = np.array([*lesson.CORNER, 0.0])
    p = softmax(logits)
    losses = {"cross-entropy": -math.log(p[0]), "MSE": float(np.mean((p - np.eye(3)[0]) ** 2))}
    for (name, loss), (_, gradient) in zip(losses.items(), FORMULAS, strict=True):
        assert numbers["corner"][name]["loss"] == pytest.approx(loss, rel=1e-12)
        norm = float(np.linalg.norm(gradient(logits)[:2]))  # the third logit stays
        assert numbers["corner"][name]["gradient_norm"] == pytest.approx(norm, rel=1e-9)


def test_the_surface_is_the_losses_at_its_grid(numbers: dict[str, Any]) -> None:
    surface = numbers["surface"]
    row, column = 30, 7
    logits = np.array([surface["axis"][column], surface["axis"][row], 0.0])
    p = softmax(logits)
    assert surface["losses"]["cross-entropy"][row, column] == pytest.approx(-math.log(p[0]))
    assert surface["losses"]["MSE"][row, column] == pytest.approx(float(np.mean((p - np.eye(3)[0]) ** 2)))
    norm = float(np.linalg.norm(mean_squared_error_gradient(logits)[:2]))
    assert surface["gradient_norms"]["MSE"][row, column] == pytest.approx(norm)


def test_the_right_logits_gradient_against_the_error(numbers: dict[str, Any]) -> None:
    e, curves = numbers["gradients"]["errors"], numbers["gradients"]["curves"]
    np.testing.assert_allclose(curves["cross-entropy"], e, rtol=1e-9)
    np.testing.assert_allclose(curves["MSE, the rest on one wrong class"], 4 / 3 * e**2 * (1 - e), rtol=1e-9)
    np.testing.assert_allclose(curves["MSE, the rest on both"], e**2 * (1 - e), rtol=1e-9)


# What the page says.


def test_cross_entropy_is_linear_in_the_error_and_mse_rises_bends_and_falls(numbers: dict[str, Any]) -> None:
    e, curves = numbers["gradients"]["errors"], numbers["gradients"]["curves"]
    mse = curves["MSE, the rest on one wrong class"]
    assert e[mse.argmax()] == pytest.approx(2 / 3, abs=0.005)
    assert mse[-1] < 0.05 * mse.max()
    bend = np.diff(mse, 2)
    assert (bend[e[1:-1] > 0.34] < 0).all(), "concave above 1/3"
    assert (bend[e[1:-1] < 0.33] > 0).all(), "convex below"


def test_in_the_corner_mse_is_flat_and_plain_descent_stuck(numbers: dict[str, Any]) -> None:
    corner, descents = numbers["corner"], numbers["descents"]
    assert corner["MSE"]["gradient_norm"] < 1e-4 * corner["cross-entropy"]["gradient_norm"]
    for name in ("sgd", "momentum", "nesterov"):
        assert descents["MSE"][name]["steps"] is None
        assert descents["MSE"][name]["last_probability"] < 1e-6
        assert descents["cross-entropy"][name]["steps"] <= 50
    for name in ("adagrad", "rmsprop", "adam"):
        assert descents["MSE"][name]["steps"] is not None
        assert descents["cross-entropy"][name]["last_probability"] > lesson.ARRIVED


def test_every_optimizer_descends_and_some_are_drawn_up_to_their_arrival(numbers: dict[str, Any]) -> None:
    for loss, paths in numbers["paths"].items():
        assert list(numbers["descents"][loss]) == list(OPTIMIZERS)
        assert list(paths) == list(lesson.DRAWN)
        for name, path in paths.items():
            steps = numbers["descents"][loss][name]["steps"]
            assert len(path) == (lesson.STEPS if steps is None else steps) + 1
            np.testing.assert_array_equal(path[0], lesson.CORNER)
            probabilities = lesson.right_probability(path)
            assert probabilities[:-1].max() <= lesson.ARRIVED
            assert (probabilities[-1] > lesson.ARRIVED) == (steps is not None)


def test_the_first_step_of_gradient_descent_under_cross_entropy(numbers: dict[str, Any]) -> None:
    start = np.array([*lesson.CORNER, 0.0])
    expected = start[:2] - lesson.LEARNING_RATE * cross_entropy_gradient(start)[:2]
    np.testing.assert_allclose(numbers["paths"]["cross-entropy"]["sgd"][1], expected, rtol=1e-12)


def test_probability_of_two_logits_is_softmax() -> None:
    points = np.array([[1.0, -2.0], [0.0, 0.0], [-3.0, 4.0]])
    expected = [softmax(np.array([*point, 0.0]))[0] for point in points]
    np.testing.assert_allclose(lesson.right_probability(points), expected, rtol=1e-12)


def test_numbers_fail_where_their_order_is_not_the_classes_and_one_hot_does_not_care(numbers: dict[str, Any]) -> None:
    models = {where: arrangement["models"] for where, arrangement in numbers["codes"].items()}
    accuracy = {where: {name: model["accuracy"] for name, model in of.items()} for where, of in models.items()}
    softmax_regression, least_squares = "one-hot, softmax, cross-entropy", "one-hot, least squares"
    for name in ("numbers 1, 2, 3", "numbers 1, 3, 2"):
        assert accuracy["triangle"][name] < 0.9 < 0.97 < accuracy["triangle"][least_squares]
    assert accuracy["row"]["numbers 1, 3, 2"] < 0.5 < 0.95 < accuracy["row"]["numbers 1, 2, 3"]
    assert accuracy["row"][softmax_regression] > 0.95
    assert accuracy["triangle"][softmax_regression] > 0.95
    hidden = models["row"][least_squares]["class_accuracy"]
    assert hidden[1] < 0.3 < 0.95 < min(hidden[0], hidden[2])


def test_an_answer_is_the_nearest_code_and_of_one_hot_the_largest_output() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    weights = np.random.default_rng(1).normal(size=(3, 3))
    outputs = np.column_stack((np.ones(50), points)) @ weights
    np.testing.assert_array_equal(answers(points, weights, np.eye(3)), outputs.argmax(axis=1))
    half = np.array([[0.0], [1.0], [0.0]])  # the output is the first coordinate
    np.testing.assert_array_equal(answers(np.array([[1.4, 0], [1.6, 9], [7, 0]]), half, [[1], [2], [3]]), [0, 1, 2])


def test_softmax_sums_to_one_keeps_the_order_and_widens_gaps_of_large_logits(numbers: dict[str, Any]) -> None:
    n = numbers["softmax"]
    np.testing.assert_allclose(n["outputs"].sum(axis=1), 1)
    once = n["outputs"][np.isclose(n["multiples"], 1)][0]
    np.testing.assert_allclose(once, softmax(n["logits"]))
    assert once.max() - once.min() > n["shares"].max() - n["shares"].min()
    gaps = n["outputs"].max(axis=1) - n["outputs"].min(axis=1)
    wider = gaps > n["shares"].max() - n["shares"].min()
    np.testing.assert_array_equal(wider, n["multiples"] >= n["wider_from"])


# Its files.


def test_the_page_its_pictures_and_its_numbers(folder: Path, numbers: dict[str, Any]) -> None:
    sizes = {"codes": (1440, 720), "softmax": (1200, 480), "gradients": (960, 540), "surface": (1800, 960)}
    page, stored = read_lesson(folder, "cross-entropy", sizes)
    assert stored["descents"]["MSE"]["sgd"]["steps"] is None
    assert stored["corner"]["MSE"]["loss"] == numbers["corner"]["MSE"]["loss"]
    assert "| `sgd` | 40 | never |" in page
    assert "nan" not in page
