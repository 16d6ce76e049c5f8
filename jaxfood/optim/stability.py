"""How an optimizer scales each parameter's steps, and up to which curvature its steps stay stable.

With gradients preconditioned by P, as far as P stays what it is, one step is a linear map along each eigenvector of
P^-1/2 H P^-1/2, and grows without end where the eigenvalue is beyond the limit: 2 / rate of gradient descent, 38 / rate
of Adam. Sharpness rises to that limit and stays there (Cohen et al. 2021, arXiv 2103.00065, of gradient descent with
momentum or without; Cohen et al. 2022, arXiv 2207.14484, of adaptive methods).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.config import optimizer as settings
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.optim import transforms
from jaxfood.optim.optimizers import is_weight_matrix
from jaxfood.optim.schedules import make_schedule

Tree = Any  # of arrays


class Stability(NamedTuple):
    """An optimizer's steps at a state of it.

    Attributes:
        inverse: P^-1 of each parameter, a tree of theirs: 0 where a parameter gets no step.
        decay: curvature that the L2 penalty adds to the loss, of each parameter; AdamW's, which is none of the loss, is
            left out.
        limit: times 1 / the learning rate: the largest eigenvalue of P^-1/2 (H + decay) P^-1/2 that is stable.
    """

    inverse: Tree
    decay: Tree
    limit: float


def scales_parameters(optimizer: settings.OptimizerConfig) -> bool:
    """Whether it has a scale for each parameter, 1 at least; Muon turns whole kernels, and no such limit is known."""
    return not isinstance(optimizer, settings.Muon)


def stability(config: Config, opt_state: optax.OptState, params: Tree) -> Stability:
    """The preconditioner that an optimizer's state holds, with its corrections and eps, and the stable curvature.

    Clipping, which only shortens steps, is left out.

    Args:
        config: `optimizer` is read.
        opt_state: of `make_optimizer`'s chain.
        params: as the state was made for.

    Raises:
        UserError: the optimizer has no scale for each parameter.
    """
    c = config.optimizer
    if not scales_parameters(c):
        raise UserError(f"{c.name} has no scale for each parameter, so the curvature that its steps bear is not known")
    inverse = jax.tree.map(jnp.ones_like, params)
    momentum, direct, averaged = getattr(c, "momentum", 0.0), 1.0, 0.0
    match c:
        case settings.Nesterov():  # g + momentum * buffer, the buffer a mean of gradients times 1 / (1 - momentum)
            averaged = momentum / (1 - momentum)
        case settings.Sgd() | settings.Momentum() | settings.NotesMomentum() | settings.RMSprop():
            direct, averaged = (0.0, 1 / (1 - momentum)) if momentum else (1.0, 0.0)
        case settings.NotesAdam():
            direct, averaged = 0.0, 1.0
        case settings.Nadam():
            momentum, (direct, averaged) = c.beta1, _nadam_shares(c, opt_state)
        case settings.Adam() | settings.AdamW() | settings.Amsgrad():
            momentum, direct, averaged = c.beta1, 0.0, 1.0
    sizes = _roots(c, opt_state)
    if sizes is not None:
        found = dict(jax.tree_util.tree_leaves_with_path(sizes))
        inverse = jax.tree_util.tree_map_with_path(lambda path, p: _inverse(found.get(path), p), params)
    masks = jax.tree.map(lambda p: True, params) if c.decay_biases_and_norms else is_weight_matrix(params)
    penalty = 0.0 if isinstance(c, settings.AdamW) else c.weight_decay
    decay = jax.tree.map(lambda p, decayed: jnp.full_like(p, penalty * decayed), params, masks)
    return Stability(inverse, decay, stable_curvature(momentum, direct, averaged))


def stable_curvature(momentum: float, direct: float, averaged: float) -> float:
    """The largest stable curvature times the rate, of steps -rate * (direct g + averaged m).

    m is the mean of gradients m <- momentum m + (1 - momentum) g. With T the trace and D the determinant of one step of
    (x, m), it is stable while |T| <= 1 + D and |D| <= 1 (Jury's conditions): up to 2 for gradient descent,
    2 + 2 momentum for a heavy ball, (2 + 2 momentum) / (1 + 2 momentum) for Nesterov's, 38 for Adam's mean of 0.9.
    """
    turning = (2 + 2 * momentum) / (direct * (1 + momentum) + averaged * (1 - momentum))
    return min(turning, (1 + momentum) / (momentum * direct)) if momentum * direct else turning


def _roots(c: settings.OptimizerConfig, opt_state: optax.OptState) -> Tree | None:
    """P of each parameter, leaves that are not trained left out; None: 1 of all."""

    def state(name: str) -> Any:
        return optax.tree.get(opt_state, name)

    match c:
        case settings.Adagrad():
            steps, sums = state("AdagradState")
            slower = 1 + jnp.maximum(steps - 1, 0) * c.lr_decay
            return jax.tree.map(lambda s: (jnp.sqrt(s) + c.eps) * slower.astype(s.dtype), sums)
        case settings.RMSprop():
            if c.centered:
                mean, square = state("mu"), state("nu")
                return jax.tree.map(lambda m, v: jnp.sqrt(jnp.maximum(v - m**2, 0)) + c.eps, mean, square)
            return jax.tree.map(lambda v: jnp.sqrt(v) + c.eps, state("nu"))
        case settings.Adadelta():
            return jax.tree.map(lambda g, x: jnp.sqrt((g + c.eps) / (x + c.eps)), state("e_g"), state("e_x"))
        case settings.Adam() | settings.AdamW() | settings.Amsgrad() | settings.Nadam():
            adam = state("AdamState")
            squares = state("nu_max") if isinstance(c, settings.Amsgrad) else adam.nu
            steps = jnp.maximum(adam.steps, 1)
            correction1 = 1.0 if isinstance(c, settings.Nadam) else transforms.one_minus_power(c.beta1, steps)
            correction2 = transforms.one_minus_power(c.beta2, steps)
            return jax.tree.map(lambda v: ((jnp.sqrt(v / correction2) + c.eps) * correction1).astype(v.dtype), squares)
        case settings.NotesAdagrad() | settings.NotesRMSprop() | settings.NotesAdam():
            return jax.tree.map(jnp.sqrt, state("sigma_squared"))
    return None


def _nadam_shares(c: settings.Nadam, opt_state: optax.OptState) -> tuple[float, float]:
    """How much of the newest gradient and of the mean of all NAdam's step has, corrected as in its last one."""
    steps = max(1, int(optax.tree.get(opt_state, "AdamState").steps))
    product = float(optax.tree.get(opt_state, "momentum_product"))
    now, ahead = (c.beta1 * (1 - 0.96 ** (t * c.momentum_decay) / 2) for t in (steps, steps + 1))
    product = product if product < 1 else now
    return (1 - now) / (1 - product), ahead / (1 - product * ahead)


def _inverse(root: jax.Array | None, param: jax.Array) -> jax.Array:
    if root is None:  # frozen
        return jnp.zeros_like(param)
    return jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0).astype(param.dtype)


def learning_rate(config: Config, step: int, total_steps: int, factor: float = 1.0) -> float:
    """The schedule's rate of an update, times a plateau's factor."""
    return float(np.asarray(make_schedule(config.schedule, config.optimizer, total_steps)(step))) * factor
