"""The learning rate as a function of the step, from the configuration."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxfood.config import schedule as settings
from jaxfood.config.optimizer import OptimizerConfig

Curve = Callable[[jax.Array], jax.Array]


def make_schedule(schedule: settings.ScheduleConfig, optimizer: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of step 0, 1, ..., `total_steps` - 1.

    Args:
        schedule: which shape. Of `plateau` this is the part that no metric changes.
        optimizer: its `learning_rate` is the highest value.
        total_steps: updates in the whole run: warm-ups, `warmup_cosine` and `one_cycle` depend on it.
    """
    if isinstance(schedule, settings.OneCycle):
        curve = _one_cycle(schedule, total_steps)
    else:
        warmup = min(round(schedule.warmup_ratio * total_steps), total_steps - 1)
        curve = _rise(warmup, then=_decay(schedule, warmup, total_steps))
    return lambda step: optimizer.learning_rate * curve(jnp.asarray(step, float))


def _rise(warmup: int, then: Curve) -> Curve:
    """From 0 to 1 at step `warmup`, then a curve that counts its steps from there."""
    return lambda step: jnp.where(step < warmup, step / max(warmup, 1), then(jnp.maximum(step - warmup, 0)))


def _decay(schedule: settings.ScheduleConfig, warmup: int, total_steps: int) -> Curve:
    """The share of the highest rate after the warm-up. Powers by exp, which keeps float32's digits for long runs."""
    match schedule:
        case settings.Constant() | settings.Plateau():
            return jnp.ones_like
        case settings.WarmupCosine():
            return _cosine(1.0, schedule.final_ratio, steps=total_steps - 1 - warmup)
        case settings.Step():
            return lambda step: jnp.exp(step // schedule.step_size * math.log(schedule.gamma))
        case settings.Exponential():
            return lambda step: jnp.exp(step * math.log(schedule.gamma))
        case settings.RangeTest():
            growth = -math.log(schedule.start_ratio) / (schedule.steps - 1)
            return lambda step: jnp.exp((step - (schedule.steps - 1)) * growth)
        case settings.InverseSqrt():
            return lambda step: jnp.sqrt(max(warmup, 1) / (max(warmup, 1) + step))
    raise TypeError(f"no schedule for {schedule}")


def _cosine(start: float, end: float, steps: float, begin: float = 0.0) -> Curve:
    """Half a cosine from `start` at step `begin` to `end` so many steps later.

    (1 + cos) / 2 as the squared sine of what is left, which keeps float32's digits near the end.
    """

    def curve(step: jax.Array) -> jax.Array:
        left = (begin + steps - step) / steps if steps else jnp.ones_like(step)
        return end + (start - end) * jnp.square(jnp.sin(math.pi / 2 * left))

    return curve


def _one_cycle(schedule: settings.OneCycle, total_steps: int) -> Curve:
    """PyTorch's two phases; its first ends at `pct_start * total_steps - 1`, a fraction of a step included.

    A run too short for a rise begins at the top.
    """
    first = 1 / schedule.div_factor
    last = first / schedule.final_div_factor
    top = max(0.0, schedule.warmup_ratio * total_steps - 1)
    rise, fall = _cosine(first, 1.0, top), _cosine(1.0, last, total_steps - 1 - top, begin=top)
    return lambda step: jnp.where((step <= top) & (top > 0), rise(step), fall(step))
