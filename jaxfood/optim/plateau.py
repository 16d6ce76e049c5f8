"""`torch.optim.lr_scheduler.ReduceLROnPlateau`: a factor of the learning rate that an epoch's metric may reduce.

It lives in the optimizer's state, where every checkpoint keeps it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.config.schedule import Plateau
from jaxfood.config.sections import Config

_LEAST_CHANGE = 1e-8  # PyTorch's eps: a rate is not reduced by less


class PlateauState(NamedTuple):
    """The factor of the learning rate, the best metric so far, epochs since then, epochs of cooling down left."""

    factor: Any
    best: Any
    bad_epochs: Any
    cooldown: Any


def scale_by_plateau(schedule: Plateau) -> optax.GradientTransformation:
    """Multiplies updates by the state's factor, which only `after_epoch` changes."""

    def init(params: optax.Params) -> PlateauState:
        worst = -math.inf if _rises(schedule) else math.inf
        return PlateauState(jnp.ones([]), jnp.array(worst, float), jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates, state: PlateauState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, PlateauState]:
        return jax.tree.map(lambda u: u * state.factor.astype(u.dtype), updates), state

    return optax.GradientTransformation(init, update)


def rate_factor(opt_state: optax.OptState) -> float:
    """By what the schedule's learning rate is multiplied; 1 where no plateau was chosen."""
    state = optax.tree.get(opt_state, PlateauState.__name__)
    return 1.0 if state is None else float(state.factor)


def after_epoch(config: Config, opt_state: optax.OptState, metrics: Mapping[str, float]) -> optax.OptState:
    """The optimizer's state after an epoch of these metrics, on the devices where it was.

    Args:
        config: `optimizer.learning_rate` and `schedule` are read; without a plateau nothing changes.
        opt_state: a state of this configuration's optimizer.
        metrics: the epoch's, as in metrics.jsonl; the schedule's `monitor` names one of them.
    """
    schedule = config.schedule
    if not isinstance(schedule, Plateau):
        return opt_state

    state = optax.tree.get(opt_state, PlateauState.__name__)
    # In the type that the best is kept in: a metric rounded there could otherwise be better than itself.
    metric = np.asarray(metrics[schedule.monitor], state.best.dtype).item()
    new = _next(schedule, config.optimizer.learning_rate, PlateauState(*(leaf.item() for leaf in state)), metric)
    placed = jax.tree.map(lambda old, value: jax.device_put(np.asarray(value, old.dtype), old.sharding), state, new)
    return optax.tree.set(opt_state, **{PlateauState.__name__: placed})


def _next(c: Plateau, peak: float, state: PlateauState, metric: float) -> PlateauState:
    """PyTorch's `step(metric)`, `threshold_mode="rel"`, on the host."""
    factor, best, bad_epochs, cooldown = state
    if metric > best * (1 + c.threshold) if _rises(c) else metric < best * (1 - c.threshold):
        best, bad_epochs = metric, 0
    else:
        bad_epochs += 1
    if cooldown > 0:
        cooldown, bad_epochs = cooldown - 1, 0
    if bad_epochs > c.patience:
        old = peak * factor
        new = max(old * c.factor, c.min_learning_rate)
        if old - new > _LEAST_CHANGE:
            factor = new / peak
        cooldown, bad_epochs = c.cooldown, 0
    return PlateauState(factor, best, bad_epochs, cooldown)


def _rises(schedule: Plateau) -> bool:
    return schedule.monitor.endswith("accuracy")
