"""The notes' own optimizers against the notes' formulas, written out here with all gradients so far."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optimizer_parity import PROBLEMS, Gradient, Tree, deviation, make_update, trajectory

from jaxfood.config import OPTIMIZERS

RATE, LAMBDA, ALPHA = 0.02, 0.7, 0.8
STEPS = 12
Gradients = list[np.ndarray]  # g_0 ... g_t of one leaf
Formula = Callable[[Gradients], np.ndarray]  # what is added to a parameter at step t


def over(direction: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """direction / sigma; 0 where sigma is."""
    return np.divide(direction, sigma, out=np.zeros_like(direction), where=sigma > 0)


def recursion(decay: float, values: Gradients) -> np.ndarray:
    """x_0 is the first value, x_t = decay x_{t-1} + (1 - decay) value."""
    x = values[0]
    for value in values[1:]:
        x = decay * x + (1 - decay) * value
    return x


def momentum(g: Gradients) -> np.ndarray:
    """m_0 = 0, m_1 = lambda m_0 - eta g_0, m_2 = lambda m_1 - eta g_1."""
    m = np.zeros_like(g[0])
    for gradient in g:
        m = LAMBDA * m - RATE * gradient
    return m


def adagrad(g: Gradients) -> np.ndarray:
    """sigma_t is the root of the mean of g_0^2 ... g_t^2."""
    sigma = np.sqrt(sum(gradient**2 for gradient in g) / len(g))
    return -RATE * over(g[-1], sigma)


def rmsprop(g: Gradients) -> np.ndarray:
    """sigma_0 = |g_0|, sigma_t^2 = alpha sigma_{t-1}^2 + (1 - alpha) g_t^2."""
    sigma = np.sqrt(recursion(ALPHA, [gradient**2 for gradient in g]))
    return -RATE * over(g[-1], sigma)


def adam(g: Gradients) -> np.ndarray:
    """RMSProp's sigma under the momentum's direction."""
    sigma = np.sqrt(recursion(ALPHA, [gradient**2 for gradient in g]))
    return -RATE * over(recursion(LAMBDA, g), sigma)


FORMULAS = [
    (f"notes_momentum learning_rate={RATE} momentum={LAMBDA}", momentum),
    (f"notes_adagrad learning_rate={RATE}", adagrad),
    (f"notes_rmsprop learning_rate={RATE} alpha={ALPHA}", rmsprop),
    (f"notes_adam learning_rate={RATE} momentum={LAMBDA} alpha={ALPHA}", adam),
]


def by_hand(formula: Formula, start: Tree, gradient: Gradient) -> list[Tree]:
    params, result = start, []
    seen: dict[str, Gradients] = {name: [] for name in start}
    for step in range(STEPS):
        grads = gradient(step, params)
        for name, g in grads.items():
            seen[name].append(g)
        params = {name: p + formula(seen[name]) for name, p in params.items()}
        result.append(params)
    return result


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("case", "formula"), FORMULAS)
def test_every_update_is_the_formulas(case: str, formula: Formula, problem: str) -> None:
    case += " clip_norm=inf"
    ours = trajectory(case, *PROBLEMS[problem], steps=STEPS)
    assert deviation(ours, by_hand(formula, *PROBLEMS[problem])) < 1e-11
    assert make_update(case, "float64")[1]._cache_size() == 1, "an update after the first compiled something"


@pytest.mark.parametrize("problem", ["bowl", "scales"])
@pytest.mark.parametrize(("case", "formula"), FORMULAS)
def test_float32_keeps_its_digits(case: str, formula: Formula, problem: str) -> None:
    """For the gradients that float64 saw."""
    start, gradient = PROBLEMS[problem]
    exact = by_hand(formula, start, gradient)
    before = [start, *exact]
    params = trajectory(
        f"{case} clip_norm=inf",
        start,
        lambda step, _: {name: g.astype(np.float32) for name, g in gradient(step, before[step]).items()},
        "float32",
        steps=STEPS,
    )
    assert deviation(params, exact) < 1e-5


@pytest.mark.parametrize("name", ["notes_adagrad", "notes_rmsprop", "notes_adam"])
def test_the_first_step_is_the_rate_whatever_the_gradients_size(name: str) -> None:
    """sigma_0 = |g_0|. Where there is no gradient nothing moves."""
    start = {"kernel": np.zeros((1, 2)), "bias": np.zeros(3)}
    grads = {"kernel": np.array([[1e-12, -1e6]]), "bias": np.array([0, 0.3, -7])}
    (params,) = trajectory(f"{name} learning_rate=0.5 clip_norm=inf", start, lambda *_: grads, steps=1)
    np.testing.assert_allclose(params["kernel"], [[-0.5, 0.5]], rtol=1e-14)
    np.testing.assert_allclose(params["bias"], [0, -0.5, 0.5], rtol=1e-14)


def test_the_movement_keeps_the_rate_that_it_began_with() -> None:
    """A schedule's new rate meets the new gradient alone: m_1 = lambda m_0 - eta g. PyTorch's meets the sum."""

    def moved(name: str) -> np.ndarray:
        case = f"{name} learning_rate=1 momentum=0.5 schedule.name=step schedule.step_size=1 schedule.gamma=0.1"
        one = {"bias": np.ones(1)}
        steps = trajectory(case, {"bias": np.zeros(1)}, lambda *_: one, steps=3)
        return np.diff([0.0, *(params["bias"][0] for params in steps)])

    np.testing.assert_allclose(moved("notes_momentum"), [-1, -0.5 - 0.1, -0.3 - 0.01], rtol=1e-14)
    np.testing.assert_allclose(moved("momentum"), [-1, -0.1 * 1.5, -0.01 * 1.75], rtol=1e-14)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_momentum_at_a_constant_rate_is_pytorchs(problem: str) -> None:
    options = "learning_rate=0.02 weight_decay=0.1 clip_norm=1"
    notes, pytorchs = (
        trajectory(f"{name} {options}", *PROBLEMS[problem], steps=STEPS) for name in ("notes_momentum", "momentum")
    )
    assert deviation(notes, pytorchs) < 1e-13


@pytest.mark.parametrize(("case", "formula"), FORMULAS)
def test_clipping_and_l2_come_before_the_formula(case: str, formula: Formula) -> None:
    start, gradient = PROBLEMS["bowl"]

    def clipped_and_decayed(step: int, params: Tree) -> Tree:
        grads = gradient(step, params)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        assert norm > 0.5
        return {name: 0.5 * g / (norm + 1e-6) + 0.3 * params[name] for name, g in grads.items()}

    ours = trajectory(f"{case} clip_norm=0.5 weight_decay=0.3", start, gradient, steps=STEPS)
    assert deviation(ours, by_hand(formula, start, clipped_and_decayed)) < 1e-11


def test_the_notes_optimizers_have_the_notes_rate_of_adam() -> None:
    defaults: dict[str, dict[str, Any]] = {
        "notes_momentum": {"learning_rate": 1e-3, "momentum": 0.9},
        "notes_adagrad": {"learning_rate": 3e-4},
        "notes_rmsprop": {"learning_rate": 3e-4, "alpha": 0.99},
        "notes_adam": {"learning_rate": 3e-4, "momentum": 0.9, "alpha": 0.999},
    }
    for name, expected in defaults.items():
        optimizer = OPTIMIZERS[name]()
        assert {key: getattr(optimizer, key) for key in expected} == expected
        assert optimizer.weight_decay == 0
