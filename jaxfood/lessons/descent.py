"""Descending a function of a few parameters with the optimizers of `jaxfood.optim`, in float64."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.config import load_config
from jaxfood.optim.optimizers import make_optimizer


class Descent(NamedTuple):
    """A trajectory: the point, the loss and the gradient's norm before each update, and after the last."""

    points: np.ndarray  # [steps + 1, parameters]
    losses: np.ndarray  # [steps + 1]
    gradient_norms: np.ndarray  # [steps + 1]


def optimizer_settings(name: str, rate: float, *more: str) -> tuple[str, ...]:
    """Overrides for an optimizer without weight decay at a learning rate, and `more` of them."""
    return f"optimizer.name={name}", f"optimizer.learning_rate={rate!r}", "optimizer.weight_decay=0", *more


def first_step(reached: np.ndarray) -> int | None:
    """The first step at which it holds; None where it never does."""
    return int(reached.argmax()) if reached.any() else None


def steps_in_words(steps: int | None) -> str:
    """A number of steps, or "never"."""
    return "never" if steps is None else f"{steps:,}"


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
    tx = unclipped_optimizer(settings, steps)

    def update(carry: Any, _: None) -> Any:
        point, state = carry
        new_point, state, value, gradient_norm = take_step(tx, loss, point, state)
        return (new_point, state), (point, value, gradient_norm)

    @jax.jit
    def run(point: jax.Array) -> Any:
        # One update more than asked for, whose outcome is dropped: it records where the last one led.
        return jax.lax.scan(update, (point, tx.init(point)), length=steps + 1)[1]

    with jax.enable_x64(True):
        return Descent(*jax.device_get(run(np.asarray(start, np.float64))))


def descend_batches(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    start: Sequence[float],
    settings: Sequence[str],
    batches: np.ndarray,
) -> np.ndarray:
    """Take one update on each batch: the points before each update, and after the last, `[steps + 1, parameters]`.

    Args:
        loss: of parameters `[parameters]` and a batch.
        start: the parameters before the first update.
        settings: overrides, as in `descend`.
        batches: one a step, `[steps, ...]`.
    """
    tx = unclipped_optimizer(settings, len(batches))

    def update(carry: Any, batch: Any) -> Any:
        point, state, *_ = take_step(tx, lambda point: loss(point, batch), *carry)
        return (point, state), point

    @jax.jit
    def run(point: jax.Array) -> Any:
        points = jax.lax.scan(update, (point, tx.init(point)), batches)[1]
        return jnp.concatenate([point[None], points])

    with jax.enable_x64(True):
        return np.asarray(run(np.asarray(start, np.float64)))


def unclipped_optimizer(settings: Sequence[str], steps: int) -> optax.GradientTransformation:
    """The optimizer of these overrides for a run of so many updates; nothing is clipped unless they say so."""
    return make_optimizer(load_config(None, ("optimizer.clip_norm=inf", *settings)), steps)


def take_step(
    tx: optax.GradientTransformation, loss: Callable[[jax.Array], jax.Array], point: jax.Array, state: Any
) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """One update: the new point, the optimizer's new state; the loss and the gradient's norm at the old point."""
    value, gradient = jax.value_and_grad(loss)(point)
    updates, state = tx.update(gradient, state, point)
    return optax.apply_updates(point, updates), state, value, optax.tree.norm(gradient)
