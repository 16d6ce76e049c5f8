"""Paths from one set of parameters to another: the straight line, and a curve around the wall that it may meet.

Two trained networks are mostly parted by a wall on the line between them and joined by a simple curve along which the
loss stays low (Garipov et al. 2018, arXiv 1802.10026; Draxler et al. 2018, arXiv 1803.00885).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.landscape.objective import BatchLoss, Tree


class Curve(NamedTuple):
    """A quadratic Bezier curve of parameters: (1 - t)^2 start + 2 t (1 - t) bend + t^2 end, t from 0 to 1."""

    start: Tree
    bend: Tree
    end: Tree

    def at(self, t: float | jax.Array) -> Tree:
        """The parameters at t."""
        shares = (1 - t) ** 2, 2 * t * (1 - t), t**2

        def mixed(*leaves: jax.Array) -> jax.Array:
            terms = (jnp.asarray(share, leaf.dtype) * leaf for share, leaf in zip(shares, leaves, strict=True))
            return sum(terms, start=jnp.zeros([], leaves[0].dtype))

        return jax.tree.map(mixed, *self)


def straight(start: Tree, end: Tree) -> Curve:
    """The line, (1 - t) start + t end: the curve that is bent at its middle."""
    return Curve(start, jax.tree.map(lambda a, b: (a + b) / 2, start, end), end)


def fit_curve(
    loss: BatchLoss,
    line: Curve,
    batches: Iterable[Any],
    *,
    updates: int,
    rate: float,
    momentum: float = 0.9,
    seed: int = 0,
    on_update: Callable[[float], Any] | None = None,
) -> Curve:
    """Bend a curve so that the mean loss along it is low: stochastic gradient descent on the loss at random places.

    The gradient for the bend is 2 t (1 - t) times the loss's at t, drawn from 0 to 1 at each update; the rate falls
    linearly to 0 over the second half of the updates.

    Args:
        loss: of parameters and a batch: the sum of losses and the sum of weights. With BatchNorm by the batch's
            statistics, as there are no others in the middle of nowhere.
        line: to begin with.
        batches: one for each update, at least `updates`.
        updates: how many.
        rate: of descent.
        momentum: of descent.
        seed: of the places.
        on_update: called with the loss of each, for a progress bar.
    """
    places = np.random.default_rng(seed).uniform(size=updates)
    schedule = optax.schedules.linear_schedule(rate, 0.0, max(1, updates // 2), transition_begin=updates - updates // 2)
    tx = optax.sgd(schedule, momentum=momentum)

    def mean(bend: Tree, ends: Curve, t: jax.Array, batch: Any) -> jax.Array:
        total, weight = loss(ends._replace(bend=bend).at(t), batch)
        return total / weight

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(bend: Tree, opt_state: Any, ends: Curve, t: jax.Array, batch: Any) -> tuple[Tree, Any, jax.Array]:
        value, gradient = jax.value_and_grad(mean)(bend, ends, t, batch)
        steps, opt_state = tx.update(gradient, opt_state)
        return optax.apply_updates(bend, steps), opt_state, value

    bend = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), line.bend)
    opt_state = tx.init(bend)
    for t, batch in zip(places, batches, strict=False):
        bend, opt_state, value = update(bend, opt_state, line, jnp.asarray(t, float), batch)
        if on_update is not None:
            on_update(float(value))
    return line._replace(bend=bend)


def barrier(places: np.ndarray, losses: np.ndarray) -> float:
    """The wall: how far the loss rises above the straight line between its values at both ends, at most; from 0 on."""
    level = losses[0] + (losses[-1] - losses[0]) * (places - places[0]) / (places[-1] - places[0])
    return float(np.max(np.where(np.isfinite(losses), losses - level, np.inf)))
