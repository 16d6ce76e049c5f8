"""The learning-rate finder: its rates, where it stops, what it suggests, and that it repeats."""

from dataclasses import replace
from itertools import count
from math import inf, nan

import jax
import numpy as np
import pytest

from jaxfood.before_training import range_test
from jaxfood.before_training.range_test import examine, find_learning_rate, take_until_diverged
from jaxfood.config import Config, load_config
from jaxfood.config.schedule import RangeTest
from jaxfood.data.batches import epoch_order
from jaxfood.data.splits import load_splits
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.optim.schedules import make_schedule
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step

RATES = np.geomspace(1e-7, 10, 100)


def curve(fall: float = 1.0, cliff: float = 1.0) -> np.ndarray:
    """Flat up to 1e-4, then a fall that is steepest at 1e-3 and over at 1e-2, and a rise from `cliff` on."""
    losses = 2.3 - fall / (1 + np.exp(-4 * (np.log10(RATES) + 3)))
    return np.where(cliff < RATES, 2.3 + 10 * (RATES / cliff - 1), losses)


def test_the_rates_rise_by_one_factor_from_1e_7_to_10() -> None:
    config = load_config(None, ("optimizer.learning_rate=10",))
    schedule = make_schedule(RangeTest(), config.optimizer, total_steps=7)
    np.testing.assert_allclose(jax.vmap(schedule)(np.arange(100)), RATES, rtol=1e-5)


def test_no_run_can_choose_the_finders_schedule() -> None:
    with pytest.raises(UserError, match=r"schedule\.name = 'range_test': it takes one of: constant, "):
        load_config(None, ("schedule.name=range_test",))


def test_it_stops_where_the_running_mean_is_four_times_its_least() -> None:
    steps = count()
    losses, diverged = take_until_diverged([2.0] * 20 + [8.1] * 100, 100, lambda: next(steps))
    # 2 + 6.1 (1 - 0.9^n) times a correction is over 8 only as n grows: 1 - 0.9^n > 6 / 6.1
    assert diverged
    assert 55 < len(losses) < 65
    assert next(steps) == len(losses)
    losses, diverged = take_until_diverged([2.0] * 20 + [7.9] * 100, 100, lambda: None)
    assert (len(losses), diverged) == (100, False)


@pytest.mark.parametrize("bad", [nan, inf])
def test_it_stops_at_a_loss_that_is_not_finite(bad: float) -> None:
    losses, diverged = take_until_diverged([2.0, 2.1, bad, 1.0], 100, lambda: None)
    assert diverged
    assert len(losses) == 3
    assert take_until_diverged([bad], 100, lambda: None)[1]


def test_it_takes_no_more_losses_than_asked_for() -> None:
    taken = iter([2.0] * 10)
    assert take_until_diverged(taken, 4, lambda: None) == (pytest.approx([2.0] * 4), False)
    assert len(list(taken)) == 6


def test_the_rate_where_the_loss_falls_fastest_is_suggested() -> None:
    found = examine(RATES, curve(), diverged=True)
    assert found.suggestion == pytest.approx(found.fastest, rel=0.05)
    assert found.fastest == pytest.approx(1e-3, rel=0.2)
    assert 5e-3 < found.least < 1


def test_noise_of_the_batches_moves_it_little() -> None:
    """Here by 0.1 a batch, as of 64 photographs; the fall's steepest step is 0.08."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((20, 100))
    suggestions = np.array([examine(RATES, curve() + each, diverged=True).suggestion for each in noise])
    assert np.mean((suggestions > 2e-4) & (suggestions < 5e-3)) >= 0.9


def test_a_cliff_does_not_hide_the_fall_before_it() -> None:
    early = examine(RATES, curve(cliff=1e-2), diverged=True)
    assert 2e-3 < early.least < 1e-2
    assert early.fastest == pytest.approx(1e-3, rel=0.7)
    end = curve(cliff=1e-2)
    end[np.argmax(RATES > 1e-2) :] = nan
    np.testing.assert_allclose(examine(RATES, end, diverged=True).least, early.least, rtol=0.5)


@pytest.mark.parametrize(
    "losses",
    [np.full(100, 2.3), curve(fall=-1), curve(fall=0.02), np.array([nan]), np.array([inf, nan]), np.array([2.3])],
    ids=["flat", "rises", "hardly falls", "nan", "not finite", "one"],
)
def test_nothing_is_suggested_where_the_loss_never_falls(losses: np.ndarray) -> None:
    found = examine(RATES[: len(losses)], losses, diverged=True)
    assert found.suggestion is None
    assert found.fastest is None


def by_hand(config: Config, steps: int) -> list[float]:
    """The first losses of a loop that anybody would write."""
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=False)
    rising = load_config(None, ("optimizer.name=momentum", "optimizer.learning_rate=10", "model.num_classes=3"))
    state = TrainState.create(replace(rising, schedule=RangeTest()), init_variables(config), total_steps=6)
    losses = []
    for step in range(steps):
        order = epoch_order(config.train.seed, step // 3, 21)[8 * (step % 3) : 8 * (step % 3 + 1)]
        batch = {"image": splits.train.images[order], "label": splits.train.labels[order]}
        state, metrics = train_step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_it_trains_by_the_runs_own_update_and_repeats(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ("optimizer.name=momentum",))
    config = replace(tiny_config, optimizer=config.optimizer)
    splits = load_splits(config.data, 3, seed=config.train.seed, progress=False)
    first, second = (find_learning_rate(config, splits, make_mesh(config.device), lambda: None) for _ in range(2))
    np.testing.assert_array_equal(first.losses, second.losses)
    assert len(first.losses) > 50
    np.testing.assert_allclose(first.losses[:70], by_hand(config, 70), rtol=2e-3)
    assert first.losses[70:].min() < 0.5 * first.losses[0]
    monkeypatch.setattr(range_test, "HIGHEST", 1e-3)
    slower = find_learning_rate(config, splits, make_mesh(config.device), lambda: None)
    assert slower.rates[-1] == pytest.approx(1e-3)
    assert not slower.diverged


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_a_batch_larger_than_the_data_on_eight_devices(tiny_config: Config) -> None:
    config = replace(tiny_config, train=replace(tiny_config.train, batch_size=64))
    config = replace(config, augment=replace(config.augment, flip=True), device=replace(config.device, count=0))
    splits = load_splits(config.data, 3, seed=config.train.seed, progress=False)
    found = find_learning_rate(config, splits, make_mesh(config.device), lambda: None)
    assert found.suggestion is not None
