"""The critical learning rate of a training, by a few losses."""

from typing import Any

import jax
import numpy as np
import optax

from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures
from jaxfood.landscape import find_critical_rate
from jaxfood.optim.stability import stability
from jaxfood.run_landscape.objective import make_point


def critical_rate_metrics(
    config: Config, variables: dict[str, Any], opt_state: optax.OptState, pictures: Pictures, rate: float
) -> dict[str, float]:
    """The smallest learning rate at which a gradient step raises the loss of these pictures, and 2 / it.

    The step is the optimizer's own without its momentum: the gradient, of an adaptive one by the root of its mean
    squares. So the rate is in the units of `optimizer.learning_rate`, and 2 / it an estimate of the (preconditioned)
    sharpness along the gradient: Kalra et al. 2026, arXiv 2601.16979, whose direction is the whole update, which may
    lead uphill.

    Args:
        config: `model`, `loss`, `landscape` and `optimizer` are read.
        variables: `{"params": ..., "batch_stats": ...}`, on one device.
        opt_state: the optimizer's, there too.
        pictures: those that the loss is taken on.
        rate: that is tried first.

    Raises:
        UserError: the loss or its gradient is not finite here.
    """
    point = make_point(config, variables, pictures)
    inverse = stability(config, opt_state, variables["params"]).inverse
    direction = point.gradient * np.asarray(point.flat(jax.device_get(inverse)))
    found = find_critical_rate(lambda step: point.loss_at(-step * direction), point.loss, rate)
    return {"critical_learning_rate": found.value, "critical_sharpness": found.sharpness}
