"""Descending a function of a few parameters with the optimizers of `jaxfood.optim`, in float64."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfood.config import load_config
from jaxfood.optim.optimizers import make_optimizer


class Descent(NamedTuple):
    """The way down: the point, the loss and the gradient's norm before each update, and after the last."""

    points: np.ndarray  # [steps + 1, parameters]
    losses: np.ndarray  # [steps + 1]
    gradient_norms: np.ndarray  # [steps + 1]


def descend(
    loss: Callable[[jax.Array], jax.Array], start: Sequence[float], settings: Sequence[str], steps: int
) -> Descent:
    """Take so many updates from a point.

    Args:
        loss: of parameters `[parameters]`.
        start: the parameters before the first update.
        settings: overrides such as `"optimizer.name=adam"` and `"schedule.name=step"`; nothing is clipped unless said.
        steps: updates.
    """
    config = load_config(None, ("optimizer.clip_norm=inf", *settings))
    tx = make_optimizer(config, steps)

    def update(carry: Any, _: None) -> Any:
        point, state = carry
        value, gradient = jax.value_and_grad(loss)(point)
        updates, state = tx.update(gradient, state, point)
        return (optax.apply_updates(point, updates), state), (point, value, optax.tree.norm(gradient))

    @jax.jit
    def run(point: jax.Array) -> Any:
        # One update more than asked for, whose outcome is dropped: it records where the last one led.
        return jax.lax.scan(update, (point, tx.init(point)), length=steps + 1)[1]

    with jax.enable_x64(True):
        return Descent(*jax.device_get(run(np.asarray(start, np.float64))))
