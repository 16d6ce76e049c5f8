"""The lesson on adaptive rates: closed forms, formulas in plain NumPy, and what the page claims."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import run_lesson
from jaxfood.lessons.adaptive import (
    ADAPTIVE,
    BEST_RATE,
    CURVATURES,
    LATE,
    NEAR,
    NOISE,
    PATH_POINTS,
    RATE,
    SCHEDULES,
    SEED,
    START,
    STEPS,
)
from jaxfood.lessons.descent import descend

pytestmark = pytest.mark.slow  # the lesson takes seconds; other lessons stay in the default set

DECAYS = ("exponential, 0.999", "exponential, 0.998", "inverse_sqrt", "warmup_cosine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    return run_lesson("adaptive", folder)


def centres() -> np.ndarray:
    return np.random.default_rng(SEED).normal(scale=NOISE, size=(STEPS, 2))


# Gradient descent: each step multiplies a parameter by 1 - rate * curvature.


@pytest.mark.parametrize("label", ["gradient descent, 1e-2", "gradient descent, 1e-7", "gradient descent, best rate"])
def test_gradient_descent_ends_where_the_closed_form_does(numbers: dict[str, Any], label: str) -> None:
    run = numbers["gradient_descent"][label]
    expected = np.array(START) * (1 - run["rate"] * CURVATURES) ** run["steps"]
    np.testing.assert_allclose(run["end"], expected, atol=1e-4)
    assert run["loss"] == pytest.approx(np.sum(CURVATURES * run["end"] ** 2) / 2)


def test_the_high_rate_jumps_from_wall_to_wall_and_the_low_one_never(numbers: dict[str, Any]) -> None:
    high, low, _ = numbers["gradient_descent"].values()
    assert (high["rate"], low["rate"]) == (1e-2, 1e-7)
    w = high["points"][:, 1]
    assert np.all(np.sign(w[1:]) == -np.sign(w[:-1]))
    assert np.all(np.diff(low["points"][:, 1]) < 0)
    assert low["end"][1] < 0.01 * START[1]
    assert low["end"][0] < 0.999 * START[0]
    assert high["arrived"] is low["arrived"] is None


def test_the_best_rate_needs_the_closed_forms_steps(numbers: dict[str, Any]) -> None:
    factor = 1 - BEST_RATE * CURVATURES[0]
    assert factor == pytest.approx(-(1 - BEST_RATE * CURVATURES[1]), rel=1e-12)
    steps = np.log(NEAR) / np.log(factor)
    assert numbers["gradient_descent"]["gradient descent, best rate"]["arrived"] == pytest.approx(steps, abs=2)


def bowl_of_one(p: Any) -> Any:
    return CURVATURES[1] * (p**2).sum() / 2


@pytest.mark.parametrize(("product", "diverges"), [(1.99, False), (2.01, True)])
def test_above_a_product_of_two_it_diverges(product: float, diverges: bool) -> None:
    settings = ("optimizer.name=sgd", f"optimizer.learning_rate={product / CURVATURES[1]}")
    losses = descend(bowl_of_one, (1e-3,), settings, 2000).losses
    assert (losses[-1] > losses[0]) == diverges


@pytest.mark.parametrize(("product", "diverges"), [(37.5, False), (38.5, True)])
def test_a_mean_of_gradients_allows_a_product_of_38(product: float, diverges: bool) -> None:
    """Adam's direction is (1 - beta1) times the momentum's sum; the limit is 2 (1 + 0.9) / (1 - 0.9)."""
    settings = ("optimizer.name=momentum", f"optimizer.learning_rate={0.1 * product / CURVATURES[1]}")
    losses = descend(bowl_of_one, (1e-3,), settings, 2000).losses
    assert (losses[-100:].max() > losses[0]) == diverges


# The adaptive optimizers.


def notes_adagrad(g: np.ndarray, t: int, memory: dict) -> np.ndarray:
    memory["sum"] = memory.get("sum", 0) + g**2
    return g / np.sqrt(memory["sum"] / (t + 1))


def notes_rmsprop(g: np.ndarray, t: int, memory: dict) -> np.ndarray:
    memory["mean"] = g**2 if t == 0 else 0.99 * memory["mean"] + 0.01 * g**2
    return g / np.sqrt(memory["mean"])


def adagrad(g: np.ndarray, t: int, memory: dict) -> np.ndarray:
    memory["sum"] = memory.get("sum", 0) + g**2
    return g / (np.sqrt(memory["sum"]) + 1e-10)


def adam(g: np.ndarray, t: int, memory: dict) -> np.ndarray:
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return memory["m"] / (1 - 0.9 ** (t + 1)) / (np.sqrt(memory["v"] / (1 - 0.999 ** (t + 1))) + 1e-8)


@pytest.mark.parametrize("direction", [adagrad, adam, notes_adagrad, notes_rmsprop])
def test_the_ways_are_those_of_the_formulas(numbers: dict[str, Any], direction: Any) -> None:
    """Until bursts amplify rounding."""
    point, memory, path = np.array(START), {}, [np.array(START)]
    for t, centre in enumerate(centres()[:200]):
        point = point - RATE * direction(CURVATURES * (point - centre), t, memory)
        path.append(point)
    np.testing.assert_allclose(numbers["adaptive"][direction.__name__]["points"][:201], path, atol=1e-9)


def test_a_first_step_is_the_rate_whatever_the_curvature_but_for_rmsprop(numbers: dict[str, Any]) -> None:
    for label, (_, rate) in ADAPTIVE.items():
        length = rate * (10 if label == "rmsprop" else 1)
        first = numbers["adaptive"][label]["points"][1] - START
        np.testing.assert_allclose(first, [length, -length], rtol=1e-6)


def test_adaptive_optimizers_arrive_where_gradient_descent_does_not(numbers: dict[str, Any]) -> None:
    for label, run in numbers["adaptive"].items():
        if label == "adagrad":
            assert run["arrived"] is None  # its steps shrink: the higher rate is needed
            continue
        assert run["arrived"] < STEPS / 2
        assert run["arrived"] < numbers["gradient_descent"]["gradient descent, best rate"]["arrived"] / 20
        if run["arrived"] < PATH_POINTS:
            b = np.abs(run["points"][:, 0])
            assert b[run["arrived"]] <= NEAR * abs(START[0]) < b[run["arrived"] - 1]


# The bursts.


def test_where_the_notes_adagrad_bursts_its_product_has_exceeded_two(numbers: dict[str, Any]) -> None:
    run = numbers["schedules"]["notes_adagrad"]["constant"]
    window = (LATE - 1) // 10
    assert run["late_excursion"] > 0.1
    assert run["late_excursion"] == pytest.approx(run["largest_w"][window:].max())
    assert run["sharpness"][window:].max() > 2
    # Before it first exceeds 2 there is nothing but noise.
    first = np.argmax(run["sharpness"] > 2)
    assert run["largest_w"][10 : first - 1].max() < 1e-4
    # The sum of squares is that of the first way down until then, so sigma falls with the root of the step.
    t = 10 * np.arange(15, first)
    np.testing.assert_allclose(run["sharpness"][15:first] / np.sqrt(t + 1), run["sharpness"][15] / 151**0.5, rtol=1e-3)


@pytest.mark.parametrize("label", DECAYS)
def test_any_decay_keeps_the_notes_adagrad_from_bursting(numbers: dict[str, Any], label: str) -> None:
    run = numbers["schedules"]["notes_adagrad"][label]
    assert run["late_excursion"] < 1e-4
    assert run["sharpness"].max() < 2


def test_warm_up_alone_delays_the_burst(numbers: dict[str, Any]) -> None:
    constant, warm = (numbers["schedules"]["notes_adagrad"][label] for label in ("constant", "warm-up alone"))
    assert warm["late_step"] > 10 * constant["late_step"]
    assert warm["late_excursion"] > 0.1


@pytest.mark.parametrize("name", ["notes_rmsprop", "rmsprop"])
def test_rmsprop_jumps_for_ever_at_a_constant_rate_and_ends_quietly_with_decay(
    numbers: dict[str, Any], name: str
) -> None:
    runs = numbers["schedules"][name]
    np.testing.assert_allclose(np.abs(runs["constant"]["end"]), RATE / 2, rtol=1e-2)
    np.testing.assert_allclose(runs["constant"]["largest_w"][-100:], RATE / 2, rtol=1e-2)
    for label in DECAYS:
        assert runs[label]["loss"] < runs["constant"]["loss"] / 5
    excursions = [runs[label]["late_excursion"] for label in ("constant", "exponential, 0.999", "exponential, 0.998")]
    assert excursions == sorted(excursions, reverse=True)


def test_sigma_of_the_notes_rmsprop_falls_by_the_root_of_alpha(numbers: dict[str, Any]) -> None:
    product = numbers["schedules"]["notes_rmsprop"]["constant"]["sharpness"]
    np.testing.assert_allclose(product[16:40] / product[15:39], 0.99 ** (-10 / 2), rtol=1e-3)


def test_only_a_decay_as_fast_as_sigma_is_quiet_and_it_does_not_arrive(numbers: dict[str, Any]) -> None:
    for gamma, run in numbers["decays"].items():
        if float(gamma) < 0.997:
            assert run["late_excursion"] < 1e-4
            assert run["arrived"] is None
            assert abs(run["end"][0] - START[0]) < RATE / (1 - float(gamma))
        else:
            assert run["late_excursion"] > 0.01
            assert run["arrived"] is not None


def test_adam_bursts_later_and_lower(numbers: dict[str, Any]) -> None:
    runs = numbers["schedules"]
    assert runs["adam"]["constant"]["late_step"] > 10 * runs["notes_adagrad"]["constant"]["late_step"]
    for label in SCHEDULES:
        assert runs["adam"][label]["late_excursion"] < runs["rmsprop"][label]["late_excursion"] / 5


def test_turned_by_45_degrees_a_rate_for_each_is_no_better_than_one(numbers: dict[str, Any]) -> None:
    turned = numbers["turned"]
    both = [turned["gradient descent"][key] for key in ("along_axes", "turned")]
    np.testing.assert_allclose(both, abs(START[0]) * (1 - 1e-2 * CURVATURES[0]) ** STEPS, rtol=1e-6)
    for label in ("rmsprop", "notes_adagrad", "notes_rmsprop", "adam without momentum"):
        assert turned[label]["along_axes"] < 0.1
        assert turned[label]["turned"] > 0.9 * turned["gradient descent"]["turned"]
    assert turned["adam"]["turned"] < 1


def test_the_page_and_its_pictures(folder: Path, numbers: dict[str, Any]) -> None:
    text, stored = read_lesson(folder, "adaptive", {"ways": (1440, 1020), "bursts": (1320, 840)})
    for line in text.splitlines():
        if line.startswith("| schedule"):
            assert line.count("|") == len(numbers["schedules"]) + 2
    assert stored["adaptive"]["adagrad"]["arrived"] is None
    assert (
        stored["schedules"]["notes_adagrad"]["constant"]["late_step"]
        == (numbers["schedules"]["notes_adagrad"]["constant"]["late_step"])
    )
