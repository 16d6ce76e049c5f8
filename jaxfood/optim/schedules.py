"""The learning rate as a function of the step, from the configuration."""

import optax

from jaxfood.config.optimizers import OptimizerConfig
from jaxfood.config.schedules import Constant, Exponential, ScheduleConfig, Step, WarmupCosine


def make_schedule(schedule: ScheduleConfig, optimizer: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The learning rate of step 0, 1, ..., `total_steps` - 1.

    Args:
        schedule: which shape.
        optimizer: its `learning_rate` is the highest value.
        total_steps: updates in the whole run; only `warmup_cosine` depends on it.
    """
    peak = optimizer.learning_rate
    match schedule:
        case Constant():
            return optax.constant_schedule(peak)
        case WarmupCosine():
            warmup_steps = min(round(schedule.warmup_ratio * total_steps), total_steps - 1)
            return optax.warmup_cosine_decay_schedule(
                init_value=0.0,
                peak_value=peak,
                warmup_steps=warmup_steps,
                decay_steps=max(total_steps - 1, warmup_steps + 1),  # so that the last step has the final value
                end_value=peak * schedule.final_ratio,
            )
        case Step():
            return optax.exponential_decay(peak, schedule.step_size, schedule.gamma, staircase=True)
        case Exponential():
            return optax.exponential_decay(peak, 1, schedule.gamma)
    raise TypeError(f"no schedule for {schedule}")
