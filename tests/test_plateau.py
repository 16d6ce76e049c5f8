"""Reduce on plateau: PyTorch's epoch by epoch, by hand, and its factor in the optimizer's state."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfood.config import Config, load_config
from jaxfood.optim import plateau
from jaxfood.optim.optimizers import make_optimizer

PEAK = 0.5


def configuration(*settings: str) -> Config:
    rate = ("optimizer.name=sgd", f"optimizer.learning_rate={PEAK}", "schedule.name=plateau")
    return load_config(None, (*rate, *(f"schedule.{text}" for text in settings)))


def rates(config: Config, metrics: Iterable[float]) -> list[float]:
    """The learning rate after each epoch's metric."""
    state = make_optimizer(config, 10).init({"a": jnp.zeros(2)})
    result = []
    for metric in metrics:
        state = plateau.after_epoch(config, state, {config.schedule.monitor: metric})
        result.append(PEAK * plateau.rate_factor(state))
    return result


# PyTorch's.


def settings_of(rng: np.random.Generator) -> dict[str, Any]:
    """Drawn settings of `ReduceLROnPlateau`."""
    return {
        "factor": float(rng.uniform(0.1, 0.9)),
        "patience": int(rng.integers(0, 4)),
        "threshold": float(rng.choice([0, 1e-4, 0.02, 0.3])),
        "cooldown": int(rng.integers(0, 4)),
        "min_lr": float(rng.choice([0, 1e-3, 0.2])),
    }


@pytest.mark.torch
@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy", "train_loss", "train_accuracy"])
@pytest.mark.parametrize("drawn", ["noise", "ties", "progress"])
def test_every_epochs_rate_is_pytorchs(monitor: str, drawn: str) -> None:
    """On random metrics: any number, shares of 750 pictures that repeat, and progress that slows down."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    mode = "max" if monitor.endswith("accuracy") else "min"
    reductions = 0
    for seed in range(20):
        rng = np.random.default_rng([seed, len(drawn)])
        settings = settings_of(rng)
        metrics = {
            "noise": rng.uniform(0.3, 0.6, 40),
            "ties": rng.integers(300, 320, 40) / 750,
            "progress": np.exp((0.5 if mode == "max" else -0.5) * np.sqrt(np.arange(40))) * rng.uniform(0.9, 1.1, 40),
        }[drawn]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, **settings)
        expected = []
        for metric in metrics:
            scheduler.step(metric)
            expected.append(optimizer.param_groups[0]["lr"])
        reductions += len(set(expected)) - 1
        settings["min_learning_rate"] = settings.pop("min_lr")
        config = configuration(f"monitor={monitor}", *(f"{name}={value}" for name, value in settings.items()))
        np.testing.assert_allclose(rates(config, metrics), expected, rtol=1e-5, err_msg=str(settings))
    assert reductions > 20


def test_defaults_are_pytorchs_but_for_patience() -> None:
    """Its 10 would never be reached before `train.patience` ends a run."""
    c = configuration().schedule
    assert (c.monitor, c.factor, c.patience, c.threshold) == ("valid_loss", 0.1, 2, 1e-4)
    assert (c.cooldown, c.min_learning_rate, c.warmup_ratio) == (0, 0, 0)


# By hand: each rate as a share of the first.


@pytest.mark.parametrize(
    ("settings", "metrics", "shares"),
    [
        # Patience is exceeded by the third bad epoch in a row; counting begins anew after a decay.
        ("patience=2", [5, 5, 5, 5, 5, 5, 5], [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ("patience=2", [5, 6, 6, 4, 4, 4, 4], [1, 1, 1, 1, 1, 1, 0.5]),
        ("patience=0", [5, 5, 4, 6], [1, 0.5, 0.5, 0.25]),
        ("patience=0 monitor=train_loss", [2, 1, 1], [1, 1, 0.5]),
        ("patience=0 monitor=train_accuracy", [1, 2, 2], [1, 1, 0.5]),
        # Just the threshold is no improvement, and the best stays the best.
        ("patience=0 threshold=0.5", [8, 4, 3.99, 2], [1, 0.5, 0.5, 0.25]),
        ("patience=0 threshold=0.5 monitor=valid_accuracy", [2, 3, 3.01, 4.5], [1, 0.5, 0.5, 0.25]),
        ("patience=0 threshold=0", [5, 5, 4.999], [1, 0.5, 0.5]),
        ("patience=1 threshold=0.5", [8, 5, 4.5], [1, 1, 0.5]),
        # Two epochs of cooling down count for nothing, though a best among them is remembered.
        ("patience=0 cooldown=2", [5, 5, 5, 5, 5], [1, 0.5, 0.5, 0.5, 0.25]),
        ("patience=1 cooldown=1", [5, 5, 5, 5, 5, 5], [1, 1, 0.5, 0.5, 0.5, 0.25]),
        ("patience=0 cooldown=1", [5, 5, 3, 4], [1, 0.5, 0.5, 0.25]),
        # The least rate, 0.15 of 0.5, is reached and kept.
        ("patience=0 min_learning_rate=0.15", [5, 5, 5, 5], [1, 0.5, 0.3, 0.3]),
        ("patience=0 min_learning_rate=0.9", [5, 5, 5], [1, 1, 1]),
        # nan is never better.
        ("patience=1", [5, float("nan"), float("nan"), 4], [1, 1, 0.5, 0.5]),
    ],
)
def test_rates_after_named_metrics(settings: str, metrics: list[float], shares: list[float]) -> None:
    config = configuration("factor=0.5", *settings.split())
    np.testing.assert_allclose(rates(config, metrics), PEAK * np.array(shares), rtol=1e-6)


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy"])
def test_a_metric_is_never_better_than_itself(monitor: str) -> None:
    """The best is kept in float32, above the metric or below."""
    config = configuration(f"monitor={monitor}", "patience=0", "threshold=0", "factor=0.5")
    for pictures in range(1, 50):
        assert rates(config, [pictures / 750] * 2)[-1] == PEAK / 2


def test_a_reduction_by_less_than_pytorchs_eps_is_none() -> None:
    config = configuration("patience=0", "factor=1e-4")
    smallest = rates(config, [1.0] * 6)
    np.testing.assert_allclose(smallest, [PEAK, PEAK * 1e-4, *[PEAK * 1e-8] * 4], rtol=1e-6)


# In the optimizer's state.


def test_the_factor_reaches_the_updates_and_compiles_nothing() -> None:
    config = configuration("patience=0", "factor=0.25", "warmup_ratio=0.1")
    tx = make_optimizer(config, total_steps=20)
    grads = {"a": jnp.full(3, 2.0), "half": jnp.ones(2, jnp.bfloat16)}
    update = jax.jit(tx.update)
    state, grads = jax.device_put((tx.init(grads), grads), jax.devices()[0])  # the loop's state has its place too
    moved = []
    for _ in range(3):
        for _ in range(2):
            updates, state = update(grads, state, grads)
            moved.append(float(updates["a"][0]))
        state = plateau.after_epoch(config, state, {"valid_loss": 1.0, "train_loss": 0.0})
    rising = -2 * PEAK * np.array([0, 0.5, 1, 1, 1, 1])  # two steps of warm-up
    clip = min(1, 10 / np.sqrt(14))
    np.testing.assert_allclose(moved, clip * rising * [1, 1, 1, 1, 0.25, 0.25], rtol=1e-6)
    assert updates["half"].dtype == jnp.bfloat16
    assert update._cache_size() == 1


@pytest.mark.parametrize("x64", [False, True])
def test_after_an_epoch_the_state_is_as_it_was_but_for_its_values(x64: bool) -> None:
    with jax.enable_x64(x64):
        config = configuration("patience=0")
        device = jax.devices()[3]
        state = jax.device_put(make_optimizer(config, 10).init({"a": jnp.zeros(2)}), device)
        new = plateau.after_epoch(config, plateau.after_epoch(config, state, {"valid_loss": 0.1}), {"valid_loss": 1.0})
        assert plateau.rate_factor(new) == pytest.approx(0.1)

        def kind(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type, leaf.devices()), tree)

        assert kind(new) == kind(state)


def test_other_schedules_have_no_plateau() -> None:
    config = load_config(None, ["optimizer.name=momentum"])
    state: optax.OptState = make_optimizer(config, 10).init({"a": jnp.zeros(2)})
    assert plateau.after_epoch(config, state, {}) is state
    assert plateau.rate_factor(state) == 1
