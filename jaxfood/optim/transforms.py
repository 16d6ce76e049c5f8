"""Gradient transformations of `torch.optim` that Optax lacks or gives another meaning; the learning rate comes after.

Optax's Adam means the same; ours stands here for float32 alone. There Optax has 1 - 0.999^t wrong by 1.3e-5, which
leads up to 1.5e-5 away from PyTorch's first updates (PyTorch computes that number in float64); as -expm1(t log beta),
with the logarithm of Python's own beta, 4e-7 (NOTES.md, "Optax's Adam in float32").
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Tree = Any  # of arrays: parameters, gradients, moments


class AdagradState(NamedTuple):
    """Steps taken, and the sum of squared gradients."""

    steps: jax.Array
    sum_of_squares: Tree


def scale_by_adagrad(initial_accumulator_value: float, eps: float, lr_decay: float) -> optax.GradientTransformation:
    """`torch.optim.Adagrad`: g / (sqrt(sum of g^2) + eps) / (1 + t * lr_decay), t = 0, 1, ...

    Source: Duchi et al. 2011, and PyTorch's documentation.
    """

    def init(params: optax.Params) -> AdagradState:
        start = jax.tree.map(lambda p: jnp.full_like(p, initial_accumulator_value), params)
        return AdagradState(jnp.zeros([], jnp.int32), start)

    def update(updates: Tree, state: AdagradState, params: optax.Params | None = None) -> tuple[Tree, AdagradState]:
        sums = jax.tree.map(lambda s, g: s + jnp.square(g), state.sum_of_squares, updates)
        rate = 1 / (1 + state.steps * lr_decay)
        scaled = jax.tree.map(lambda g, s: (rate * g / (jnp.sqrt(s) + eps)).astype(g.dtype), updates, sums)
        return scaled, AdagradState(optax.safe_increment(state.steps), sums)

    return optax.GradientTransformation(init, update)


class AdamState(NamedTuple):
    """Steps taken, and the decaying means of gradient and squared gradient, uncorrected."""

    steps: jax.Array
    mu: Tree
    nu: Tree


def scale_by_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """`torch.optim.Adam`: corrected mean gradient / (root of the corrected mean square + eps).

    Source: Kingma and Ba 2015, and PyTorch's documentation.
    """

    def update(updates: Tree, state: AdamState, params: optax.Params | None = None) -> tuple[Tree, AdamState]:
        adam = _next_moments(updates, state, beta1, beta2)
        return _corrected_quotient(adam, adam.nu, beta1, beta2, eps), adam

    return optax.GradientTransformation(_no_moments, update)


class AmsgradState(NamedTuple):
    """Adam's state, and the largest mean square so far, uncorrected."""

    adam: AdamState
    nu_max: Tree


def scale_by_amsgrad(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """`torch.optim.Adam(amsgrad=True)`: Adam, divided by the largest mean square so far, then corrected.

    Source: Reddi et al. 2018, and PyTorch's documentation; Optax's takes the largest of the corrected ones.
    """

    def update(updates: Tree, state: AmsgradState, params: optax.Params | None = None) -> tuple[Tree, AmsgradState]:
        adam = _next_moments(updates, state.adam, beta1, beta2)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, adam.nu)
        return _corrected_quotient(adam, nu_max, beta1, beta2, eps), AmsgradState(adam, nu_max)

    return optax.GradientTransformation(
        lambda params: AmsgradState(_no_moments(params), optax.tree.zeros_like(params)), update
    )


class NadamState(NamedTuple):
    """Adam's state, and the product of all momenta so far."""

    adam: AdamState
    momentum_product: jax.Array


def scale_by_nadam(beta1: float, beta2: float, eps: float, momentum_decay: float) -> optax.GradientTransformation:
    """`torch.optim.NAdam`: Adam whose mean gradient already counts the next step's share of this gradient.

    The momentum of step t is beta1 * (1 - 0.96^(t * momentum_decay) / 2). Source: Dozat 2016, and PyTorch's
    documentation; Optax's has a constant momentum.
    """

    def update(updates: Tree, state: NadamState, params: optax.Params | None = None) -> tuple[Tree, NadamState]:
        adam = _next_moments(updates, state.adam, beta1, beta2)
        momentum, next_momentum = (
            beta1 * (1 - jnp.exp(t * (momentum_decay * math.log(0.96))) / 2) for t in (adam.steps, adam.steps + 1)
        )
        product = state.momentum_product * momentum
        now, ahead = (1 - momentum) / (1 - product), next_momentum / (1 - product * next_momentum)
        correction2 = one_minus_power(beta2, adam.steps)
        scaled = jax.tree.map(
            lambda g, m, v: ((now * g + ahead * m) / (jnp.sqrt(v / correction2) + eps)).astype(g.dtype),
            *(updates, adam.mu, adam.nu),
        )
        return scaled, NadamState(adam, product)

    return optax.GradientTransformation(lambda params: NadamState(_no_moments(params), jnp.ones([])), update)


def _no_moments(params: optax.Params) -> AdamState:
    return AdamState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params))


def _next_moments(updates: Tree, state: AdamState, beta1: float, beta2: float) -> AdamState:
    mu = optax.tree.update_moment(updates, state.mu, beta1, 1)
    nu = optax.tree.update_moment(updates, state.nu, beta2, 2)
    return AdamState(optax.safe_increment(state.steps), mu, nu)


def _corrected_quotient(adam: AdamState, nu: Tree, beta1: float, beta2: float, eps: float) -> Tree:
    """Adam's mean gradient by the root of a mean square, both corrected for their start, plus eps."""
    correction1, correction2 = one_minus_power(beta1, adam.steps), one_minus_power(beta2, adam.steps)
    return jax.tree.map(
        lambda m, v: ((m / correction1) / (jnp.sqrt(v / correction2) + eps)).astype(m.dtype), adam.mu, nu
    )


def one_minus_power(decay: float, steps: jax.Array) -> jax.Array:
    """1 - decay^steps."""
    return -jnp.expm1(steps * (math.log(decay) if decay else -math.inf))
