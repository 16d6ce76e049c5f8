"""The schedules: values at named steps, PyTorch's, and the shortest runs."""

import math
from collections.abc import Callable

import jax
import numpy as np
import pytest

from jaxfood.config import SCHEDULES, load_config
from jaxfood.optim.schedules import make_schedule

PEAK = 0.5


def rates(total_steps: int, *overrides: str) -> np.ndarray:
    """The learning rate of every step, taken under jit as the update does."""
    config = load_config(None, [f"optimizer.learning_rate={PEAK}", *(f"schedule.{text}" for text in overrides)])
    schedule = make_schedule(config.schedule, config.optimizer, total_steps)
    return np.asarray(jax.jit(jax.vmap(schedule))(np.arange(total_steps)), np.float64)


def test_constant() -> None:
    config = load_config(None, [f"optimizer.learning_rate={PEAK}"])
    schedule = make_schedule(config.schedule, config.optimizer, 10)
    assert [float(schedule(step)) for step in (0, 9)] == [PEAK, PEAK]


def test_warmup_cosine_rises_from_zero_peaks_and_ends_at_its_final_value() -> None:
    values = rates(101, "name=warmup_cosine", "warmup_ratio=0.2", "final_ratio=0.1")
    assert values[0] == 0
    np.testing.assert_allclose(values[:21], PEAK * np.arange(21) / 20, rtol=1e-6)
    assert values.argmax() == 20
    cosine = (1 + np.cos(math.pi * np.arange(81) / 80)) / 2
    np.testing.assert_allclose(values[20:], PEAK * (0.1 + 0.9 * cosine), rtol=2e-6)
    np.testing.assert_allclose(values[-1], PEAK * 0.1, rtol=1e-5)


def test_warmup_cosine_without_warm_up_starts_at_the_peak_and_ends_at_zero() -> None:
    values = rates(11, "name=warmup_cosine", "warmup_ratio=0")
    np.testing.assert_allclose(values[[0, 5, 10]], [PEAK, PEAK / 2, 0], atol=1e-7)


def test_warmup_cosine_of_no_learning_rate() -> None:
    config = load_config(None, ["optimizer.learning_rate=0", "schedule.name=warmup_cosine"])
    schedule = make_schedule(config.schedule, config.optimizer, 10)
    assert [float(schedule(step)) for step in range(10)] == [0.0] * 10


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_runs(name: str, total_steps: int) -> None:
    config = load_config(None, [f"optimizer.learning_rate={PEAK}", f"schedule.name={name}"])
    schedule = make_schedule(config.schedule, config.optimizer, total_steps)
    values = [float(schedule(step)) for step in range(total_steps)]
    assert all(0 <= value <= PEAK for value in values)
    assert values[0] == pytest.approx(PEAK)  # the default warm-up rounds to no step here


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.99])
def test_warmup_cosine_learns_something_however_short_the_run(total_steps: int, ratio: float) -> None:
    values = rates(total_steps, "name=warmup_cosine", f"warmup_ratio={ratio}")
    assert np.isfinite(values).all()
    assert values.max() > 0


@pytest.mark.parametrize("step_size", [1, 3, 7, 49, 1000])
def test_step_decays_exactly_at_its_steps(step_size: int) -> None:
    """A division that rounds down by one bit would decay a step late."""
    values = rates(step_size * 12, "name=step", f"step_size={step_size}", "gamma=0.5")
    np.testing.assert_allclose(values, PEAK * 0.5 ** (np.arange(step_size * 12) // step_size), rtol=1e-6)


def test_exponential_decays_every_step() -> None:
    np.testing.assert_allclose(rates(4, "name=exponential", "gamma=0.5"), PEAK * np.array([1, 0.5, 0.25, 0.125]))


def test_exponential_after_many_steps() -> None:
    values = rates(20_001, "name=exponential", "gamma=0.9995")
    np.testing.assert_allclose(values[-1], PEAK * 0.9995**20_000, rtol=1e-3)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("overrides", "scheduler"),
    [
        (
            ("name=step", "step_size=7", "gamma=0.3"),
            lambda s, o: s.StepLR(o, step_size=7, gamma=0.3),
        ),
        (
            ("name=exponential", "gamma=0.97"),
            lambda s, o: s.ExponentialLR(o, gamma=0.97),
        ),
    ],
)
def test_pytorchs_rates(overrides: tuple[str, ...], scheduler: Callable) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = scheduler(torch.optim.lr_scheduler, optimizer)
    expected = []
    for _ in range(60):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(60, *overrides), expected, rtol=1e-5)
