"""An optimizer of the configuration as an Optax chain: clip, L2, transform, learning rate, in PyTorch's order.

How each places eps, starts its accumulators and decays weights is `torch.optim`'s (`transforms.py`) or the notes'
(`notes.py`), not Optax's own: its AdaGrad starts at 0.1 with eps inside the root, its RMSProp has eps inside, its
AMSGrad takes the largest of the corrected mean squares, its NAdam a constant momentum, `clip_by_global_norm` lacks the
1e-6.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from jaxfood.config import optimizer as settings
from jaxfood.config.schedule import Plateau
from jaxfood.config.sections import Config
from jaxfood.optim import notes, transforms
from jaxfood.optim.freeze import frozen_mask
from jaxfood.optim.plateau import scale_by_plateau
from jaxfood.optim.schedules import make_schedule


def make_optimizer(config: Config, total_steps: int) -> optax.GradientTransformation:
    """The optimizer, clipping and schedule of a configuration, for any pytree of parameters.

    Args:
        config: `optimizer`, `schedule` and `train.freeze` are read.
        total_steps: updates in the whole run, for schedules that depend on it.
    """
    optimizer = config.optimizer
    transform = make_transform(optimizer)
    rate = optax.scale_by_learning_rate(make_schedule(config.schedule, optimizer, total_steps))
    if isinstance(config.schedule, Plateau):
        rate = optax.chain(rate, scale_by_plateau(config.schedule))
    decay = optax.identity()
    if optimizer.weight_decay:
        mask = None if optimizer.decay_biases_and_norms else is_weight_matrix
        decay = optax.add_decayed_weights(optimizer.weight_decay, mask)
    match optimizer:
        case settings.AdamW():  # and Muon; decoupled: the decay meets the learning rate alone
            steps = (transform, decay, rate)
        case settings.NotesMomentum():  # the learning rate is inside the movement
            steps = (decay, rate, transform)
        case _:
            steps = (decay, transform, rate)
    chain = optax.chain(clip_by_value(optimizer.clip_value), clip_by_norm(optimizer.clip_norm), *steps)
    if config.train.freeze:
        return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, partial(_labels, config.train.freeze))
    return chain


def _labels(freeze: str, params: optax.Params) -> Any:
    return jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen_mask(params, freeze))


def make_transform(c: settings.OptimizerConfig) -> optax.GradientTransformation:
    """What makes the optimizer that it is: of gradients, what the learning rate multiplies."""
    match c:
        case settings.Sgd():
            return optax.identity()
        case settings.Momentum() | settings.Nesterov() | settings.NotesMomentum():
            return optax.trace(c.momentum, nesterov=c.name == "nesterov")
        case settings.Adagrad():
            return transforms.scale_by_adagrad(c.initial_accumulator_value, c.eps, c.lr_decay)
        case settings.RMSprop():
            scale = optax.scale_by_stddev if c.centered else optax.scale_by_rms
            trace = optax.trace(c.momentum) if c.momentum else optax.identity()
            return optax.chain(scale(c.alpha, c.eps, eps_in_sqrt=False), trace)
        case settings.Adadelta():
            return optax.scale_by_adadelta(c.rho, c.eps)
        case settings.Muon():
            return optax.partition(
                {True: _scale_by_muon(c.momentum), False: transforms.scale_by_adam(c.beta1, c.beta2, c.eps)},
                is_weight_matrix,
            )
        case settings.Adam() | settings.AdamW():
            return transforms.scale_by_adam(c.beta1, c.beta2, c.eps)
        case settings.Amsgrad():
            return transforms.scale_by_amsgrad(c.beta1, c.beta2, c.eps)
        case settings.Nadam():
            return transforms.scale_by_nadam(c.beta1, c.beta2, c.eps, c.momentum_decay)
        case settings.NotesAdagrad():
            return notes.scale_by_adagrad()
        case settings.NotesRMSprop():
            return notes.scale_by_rmsprop(c.alpha)
        case settings.NotesAdam():
            return notes.scale_by_adam(c.momentum, c.alpha)
    raise TypeError(f"no optimizer for {c}")


def _scale_by_muon(momentum: float) -> optax.GradientTransformation:
    """Orthogonalised momentum of kernels, whose last axis is the output, of the size of Adam's steps.

    In float32 at least: five rounds of a polynomial would leave bfloat16's three digits at two.
    """

    def as_matrices(params: optax.Params) -> Any:
        return jax.tree.map(lambda p: MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1), params)

    def resized(step: jax.Array, like: jax.Array) -> jax.Array:
        # An orthogonal matrix's mean square is one over its longer side; Adam's steps have about 0.2 (Liu et al. 2025).
        return (0.2 * max(step.size // step.shape[-1], step.shape[-1]) ** 0.5 * step).astype(like.dtype)

    muon = scale_by_muon(beta=momentum, weight_dimension_numbers=as_matrices)

    def widened(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Any:
        steps, state = muon.update(widened(updates), state, params)
        return jax.tree.map(resized, steps, updates), state

    return optax.GradientTransformation(lambda params: muon.init(widened(params)), update)


def clip_by_value(max_value: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_value_`: each element of the gradient into [-max_value, max_value]."""
    return optax.identity() if max_value == float("inf") else optax.clip(max_value)


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`: scales by min(1, max_norm / (norm + 1e-6)), norm over all leaves together."""
    if max_norm == float("inf"):
        return optax.identity()

    def update(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

    return optax.stateless(update)


def is_weight_matrix(params: optax.Params) -> Any:
    """For each leaf whether it is a kernel: biases and BatchNorm's parameters are vectors, and nothing else is."""
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)
