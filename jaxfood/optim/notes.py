"""The adaptive optimizers as the notes write them: theta <- theta - eta / sigma * g, and each sigma.

They have neither eps nor a correction of their start: at the first step sigma is |g_0|, so that each parameter moves by
the learning rate. Where sigma is 0 (every gradient so far was 0) the notes' quotient is undefined; nothing moves there.
Source: the notes' chapter on adaptive learning rates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Tree = Any  # of arrays: parameters, gradients, moments


class SigmaState(NamedTuple):
    """Steps taken, and sigma squared."""

    steps: jax.Array
    sigma_squared: Tree


def scale_by_adagrad() -> optax.GradientTransformation:
    """g_t / sigma_t with sigma_t the root of the mean of g_0^2 ... g_t^2."""
    return _scale_by_sigma(lambda steps: 1.0 / (steps + 1))


def scale_by_rmsprop(alpha: float) -> optax.GradientTransformation:
    """g_t / sigma_t with sigma_0 = |g_0| and sigma_t^2 = alpha sigma_{t-1}^2 + (1 - alpha) g_t^2."""
    return _scale_by_sigma(lambda steps: _share(alpha, steps))


class AdamState(NamedTuple):
    """The direction m, and RMSProp's sigma."""

    direction: Tree
    sigma: SigmaState


def scale_by_adam(momentum: float, alpha: float) -> optax.GradientTransformation:
    """m_t / sigma_t with RMSProp's sigma and m_0 = g_0, m_t = momentum m_{t-1} + (1 - momentum) g_t.

    The notes leave m open. It was chosen as a mean, in the way of sigma, so that a step is about the learning rate.
    """

    def update(updates: Tree, state: AdamState, params: optax.Params | None = None) -> tuple[Tree, AdamState]:
        share = _share(momentum, state.sigma.steps)
        direction = jax.tree.map(lambda m, g: (m + share * (g - m)).astype(m.dtype), state.direction, updates)
        sigma = _next_sigma(updates, state.sigma, _share(alpha, state.sigma.steps))
        return _over_sigma(direction, sigma), AdamState(direction, sigma)

    return optax.GradientTransformation(
        lambda params: AdamState(optax.tree.zeros_like(params), _no_sigma(params)), update
    )


def _scale_by_sigma(share: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformation:
    """g / sigma, where sigma squared is a mean in which the newest square has this share, by the steps before it."""

    def update(updates: Tree, state: SigmaState, params: optax.Params | None = None) -> tuple[Tree, SigmaState]:
        return _over_sigma(updates, new := _next_sigma(updates, state, share(state.steps))), new

    return optax.GradientTransformation(_no_sigma, update)


def _no_sigma(params: optax.Params) -> SigmaState:
    return SigmaState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))


def _share(decay: float, steps: jax.Array) -> jax.Array:
    """The share of what is new: all of it at the first step."""
    return jnp.where(steps == 0, 1.0, 1 - decay)


def _next_sigma(updates: Tree, state: SigmaState, share: jax.Array) -> SigmaState:
    squares = jax.tree.map(lambda s, g: (s + share * (jnp.square(g) - s)).astype(s.dtype), state.sigma_squared, updates)
    return SigmaState(optax.safe_increment(state.steps), squares)


def _over_sigma(directions: Tree, state: SigmaState) -> Tree:
    return jax.tree.map(
        lambda d, s: jnp.where(s > 0, d / jnp.sqrt(s), 0).astype(d.dtype), directions, state.sigma_squared
    )
