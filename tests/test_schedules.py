"""The schedules: values at named steps, PyTorch's, and the shortest and longest runs."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from jaxfood.config import SCHEDULES, load_config
from jaxfood.optim.schedules import make_schedule

pytestmark = pytest.mark.smoke

PEAK = 0.5


def rates(total_steps: int, *overrides: str, x64: bool = False) -> np.ndarray:
    """The learning rate of every step, taken under jit as the update does."""
    config = load_config(None, [f"optimizer.learning_rate={PEAK}", *(f"schedule.{text}" for text in overrides)])
    with jax.enable_x64(x64):
        schedule = make_schedule(config.schedule, config.optimizer, total_steps)
        return np.asarray(jax.jit(jax.vmap(schedule))(np.arange(total_steps)), np.float64)


# By hand, as shares of the highest rate.


@pytest.mark.parametrize(
    ("total_steps", "overrides", "shares"),
    [
        (10, "name=constant", {0: 1, 9: 1}),
        (101, "name=constant warmup_ratio=0.1", {0: 0, 1: 0.1, 9: 0.9, 10: 1, 11: 1, 100: 1}),
        (101, "name=warmup_cosine", {0: 0, 5: 0.5, 10: 1, 40: 0.75, 55: 0.5, 70: 0.25, 100: 0}),
        (101, "name=warmup_cosine warmup_ratio=0.2 final_ratio=0.1", {0: 0, 10: 0.5, 20: 1, 60: 0.55, 100: 0.1}),
        (11, "name=warmup_cosine warmup_ratio=0", {0: 1, 5: 0.5, 10: 0}),
        (100, "name=step step_size=20 gamma=0.5", {0: 1, 19: 1, 20: 0.5, 39: 0.5, 40: 0.25, 99: 1 / 16}),
        (100, "name=step step_size=20 gamma=0.5 warmup_ratio=0.1", {0: 0, 9: 0.9, 10: 1, 29: 1, 30: 0.5, 50: 0.25}),
        (4, "name=exponential gamma=0.5", {0: 1, 1: 0.5, 2: 0.25, 3: 0.125}),
        (10, "name=exponential gamma=0.5 warmup_ratio=0.2", {0: 0, 1: 0.5, 2: 1, 3: 0.5, 9: 1 / 128}),
        (1000, "name=inverse_sqrt", {0: 0, 50: 0.5, 99: 0.99, 100: 1, 400: 1 / 2, 900: 1 / 3}),
        (100, "name=inverse_sqrt warmup_ratio=0", {0: 1, 3: 1 / 2, 8: 1 / 3, 99: 1 / 10}),
        # The rise ends at a quarter of all steps, less one; the fall takes the 75 steps that are left.
        (100, "name=one_cycle warmup_ratio=0.25", {0: 1 / 25, 12: 0.52, 24: 1, 99: 4e-6}),
        (
            100,
            "name=one_cycle warmup_ratio=0.25 div_factor=4 final_div_factor=5",
            {0: 0.25, 12: 0.625, 24: 1, 49: 0.05 + 0.95 * 0.75, 74: 0.05 + 0.95 * 0.25, 99: 0.05},
        ),
        (10, "name=plateau", {0: 1, 9: 1}),
        (10, "name=plateau warmup_ratio=0.5", {0: 0, 4: 0.8, 5: 1, 9: 1}),
    ],
)
def test_values_at_named_steps(total_steps: int, overrides: str, shares: dict[int, float]) -> None:
    values = rates(total_steps, *overrides.split())
    expected = [PEAK * share for share in shares.values()]
    np.testing.assert_allclose(values[list(shares)], expected, rtol=5e-6, atol=1e-12)
    assert np.all(values <= PEAK * (1 + 1e-7))


@pytest.mark.parametrize("step_size", [1, 3, 7, 49, 1000])
def test_step_decays_exactly_at_its_steps(step_size: int) -> None:
    """A division that rounds down by one bit would decay a step late."""
    values = rates(step_size * 12, "name=step", f"step_size={step_size}", "gamma=0.5")
    np.testing.assert_allclose(values, PEAK * 0.5 ** (np.arange(step_size * 12) // step_size), rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_learning_rate_is_none_at_any_step(name: str) -> None:
    config = load_config(None, ["optimizer.learning_rate=0", f"schedule.name={name}"])
    schedule = make_schedule(config.schedule, config.optimizer, 10)
    assert [float(schedule(step)) for step in range(10)] == [0.0] * 10


# The shortest runs.


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_runs(name: str, total_steps: int) -> None:
    values = rates(total_steps, f"name={name}")
    assert np.all((values >= 0) & (values <= PEAK))
    assert values[0] == pytest.approx(PEAK)  # the default warm-up rounds to no step here


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_something_is_learned_however_short_the_run_and_long_the_warm_up(
    name: str, ratio: float, total_steps: int
) -> None:
    values = rates(total_steps, f"name={name}", f"warmup_ratio={ratio}")
    assert np.isfinite(values).all()
    assert values.max() > 0.03 * PEAK  # what one_cycle begins with is 0.04


# PyTorch's.

WARM = 0.2  # of 10, 100, 1000, ... steps


def warmed_up(schedulers: Any, optimizer: Any, then: Any, total_steps: int) -> Any:
    """PyTorch's rise may not begin at 0."""
    warmup = round(WARM * total_steps)
    rise = schedulers.LinearLR(optimizer, start_factor=1e-13, total_iters=warmup)
    return schedulers.SequentialLR(optimizer, [rise, then], [warmup])


TORCH_SCHEDULERS = {
    "name=constant": lambda s, o, n: s.ConstantLR(o, factor=1),
    "name=warmup_cosine warmup_ratio=0": lambda s, o, n: s.CosineAnnealingLR(o, T_max=n - 1),
    "name=warmup_cosine warmup_ratio=0 final_ratio=0.1": lambda s, o, n: s.CosineAnnealingLR(
        o, T_max=n - 1, eta_min=0.1 * PEAK
    ),
    f"name=warmup_cosine warmup_ratio={WARM} final_ratio=0.1": lambda s, o, n: warmed_up(
        s, o, s.CosineAnnealingLR(o, T_max=n - 1 - round(WARM * n), eta_min=0.1 * PEAK), n
    ),
    "name=step step_size=7 gamma=0.97": lambda s, o, n: s.StepLR(o, step_size=7, gamma=0.97),
    f"name=step step_size=7 gamma=0.97 warmup_ratio={WARM}": lambda s, o, n: warmed_up(
        s, o, s.StepLR(o, step_size=7, gamma=0.97), n
    ),
    "name=exponential gamma=0.997": lambda s, o, n: s.ExponentialLR(o, gamma=0.997),
    f"name=exponential gamma=0.997 warmup_ratio={WARM}": lambda s, o, n: warmed_up(
        s, o, s.ExponentialLR(o, gamma=0.997), n
    ),
    "name=one_cycle": lambda s, o, n: s.OneCycleLR(o, PEAK, total_steps=n, cycle_momentum=False),
    "name=one_cycle warmup_ratio=0.47 div_factor=7 final_div_factor=30": lambda s, o, n: s.OneCycleLR(
        o, PEAK, total_steps=n, pct_start=0.47, div_factor=7, final_div_factor=30, cycle_momentum=False
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("total_steps", [10, 100, 2000])
@pytest.mark.parametrize("overrides", TORCH_SCHEDULERS)
def test_pytorchs_rates(overrides: str, total_steps: int) -> None:
    """Relative to each rate, the smallest of the last steps included."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = TORCH_SCHEDULERS[overrides](torch.optim.lr_scheduler, optimizer, total_steps)
    expected = []
    for _ in range(total_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < total_steps:
            scheduler.step()
    np.testing.assert_allclose(rates(total_steps, *overrides.split(), x64=True), expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(rates(total_steps, *overrides.split()), expected, rtol=1e-5, atol=1e-13)


# Long runs: float32 keeps its digits.


@pytest.mark.parametrize(
    "overrides", ["name=warmup_cosine", "name=one_cycle", "name=exponential gamma=0.9995", "name=inverse_sqrt"]
)
def test_float32_after_many_steps(overrides: str) -> None:
    exact = rates(30_000, *overrides.split(), x64=True)
    np.testing.assert_allclose(rates(30_000, *overrides.split()), exact, rtol=1e-5, atol=1e-15)


def test_the_exponentials_last_rate_after_many_steps() -> None:
    values = rates(20_001, "name=exponential", "gamma=0.9995")
    np.testing.assert_allclose(values[-1], PEAK * math.pow(0.9995, 20_000), rtol=1e-5)
