"""PyTorch's optimizers as Optax chains: clip, L2, direction, learning rate, in PyTorch's order.

Each places eps, starts its accumulators and decays weights as `torch.optim` does; Optax's own defaults differ
(AdaGrad starts at 0.1 with eps inside the root, RMSProp has eps inside, `clip_by_global_norm` lacks the 1e-6).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfood.config import optimizers as settings
from jaxfood.config.optimizers import OptimizerConfig
from jaxfood.config.schema import Config
from jaxfood.optim.schedules import make_schedule


def make_optimizer(config: Config, total_steps: int) -> optax.GradientTransformation:
    """The optimizer, clipping and schedule of a configuration, for any pytree of parameters.

    Args:
        config: `optimizer` and `schedule` are read.
        total_steps: updates in the whole run, for schedules that end with it.
    """
    optimizer = config.optimizer
    schedule = make_schedule(config.schedule, optimizer, total_steps)
    decoupled = isinstance(optimizer, settings.AdamW)
    decay = optax.add_decayed_weights(optimizer.weight_decay) if optimizer.weight_decay else optax.identity()
    return optax.chain(
        clip_by_norm(optimizer.clip_norm),
        optax.identity() if decoupled else decay,
        _DIRECTIONS[type(optimizer)](optimizer),
        decay if decoupled else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`: scales by min(1, max_norm / (norm + 1e-6)), norm over all leaves together."""
    if max_norm == float("inf"):
        return optax.identity()

    def update(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        factor = jnp.minimum(1, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

    return optax.stateless(update)


class AdagradState(NamedTuple):
    """Steps taken, and the sum of squared gradients."""

    steps: jax.Array
    sum_of_squares: optax.Updates


def scale_by_adagrad(initial_accumulator_value: float, eps: float, lr_decay: float) -> optax.GradientTransformation:
    """`torch.optim.Adagrad`'s direction: g / (sqrt(sum of g^2) + eps) / (1 + t * lr_decay), t = 0, 1, ...

    Source: Duchi et al. 2011, and PyTorch's documentation of `torch.optim.Adagrad`.
    """

    def init(params: optax.Params) -> AdagradState:
        start = jax.tree.map(lambda p: jnp.full_like(p, initial_accumulator_value), params)
        return AdagradState(jnp.zeros([], jnp.int32), start)

    def update(
        updates: optax.Updates, state: AdagradState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdagradState]:
        sums = jax.tree.map(lambda s, g: s + jnp.square(g), state.sum_of_squares, updates)
        rate = 1 / (1 + state.steps * lr_decay)
        directions = jax.tree.map(lambda g, s: (rate * g / (jnp.sqrt(s) + eps)).astype(g.dtype), updates, sums)
        return directions, AdagradState(optax.safe_increment(state.steps), sums)

    return optax.GradientTransformation(init, update)


def _sgd(_: settings.Sgd) -> optax.GradientTransformation:
    return optax.identity()


def _momentum(c: settings.Momentum | settings.Nesterov) -> optax.GradientTransformation:
    return optax.trace(c.momentum, nesterov=isinstance(c, settings.Nesterov))


def _adagrad(c: settings.Adagrad) -> optax.GradientTransformation:
    return scale_by_adagrad(c.initial_accumulator_value, c.eps, c.lr_decay)


def _rmsprop(c: settings.RMSprop) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if c.centered else optax.scale_by_rms
    return optax.chain(
        scale(c.alpha, c.eps, eps_in_sqrt=False),
        optax.trace(c.momentum) if c.momentum else optax.identity(),
    )


def _adam(c: settings.Adam | settings.AdamW) -> optax.GradientTransformation:
    return optax.scale_by_adam(c.beta1, c.beta2, c.eps)


_DIRECTIONS: dict[type[OptimizerConfig], Callable[..., optax.GradientTransformation]] = {
    settings.Sgd: _sgd,
    settings.Momentum: _momentum,
    settings.Nesterov: _momentum,
    settings.Adagrad: _adagrad,
    settings.RMSprop: _rmsprop,
    settings.Adam: _adam,
    settings.AdamW: _adam,
}
