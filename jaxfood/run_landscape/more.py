"""What `--more` measures of a checkpoint: its optimizer's own sharpness, layer by layer, Gauss-Newton and Fisher."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.config.loss import CrossEntropy, LossConfig
from jaxfood.config.sections import Config
from jaxfood.landscape import (
    Eigenvalue,
    Estimate,
    Matrix,
    NetworkLoss,
    Point,
    block,
    largest_eigenvalue,
    layers_of,
    rescaled,
    trace,
    trace_by_layer,
)
from jaxfood.model.networks import init_variables
from jaxfood.optim.plateau import rate_factor
from jaxfood.optim.stability import learning_rate, scales_parameters, stability
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import on_one_device
from jaxfood.training.metrics import zero_sums
from jaxfood.training.saved import restore_state
from jaxfood.training.state import TrainState

PRODUCTS = 30  # at most, for each largest eigenvalue


class Preconditioned(NamedTuple):
    """The sharpness that an optimizer sees, and up to which it is stable.

    Attributes:
        optimizer: its name.
        rate: the learning rate of the last update.
        sharpness: the largest eigenvalue of P^-1/2 (H + L2 penalty) P^-1/2.
        limit: beyond which steps of this rate grow.
    """

    optimizer: str
    rate: float
    sharpness: Eigenvalue
    limit: float


class Spread(NamedTuple):
    """What is known of a matrix: its largest eigenvalue and the sum of all of them."""

    largest: Eigenvalue
    trace: Estimate


@dataclass(frozen=True)
class More:
    """What `--more` measures, as far as it is measured.

    Attributes:
        preconditioned: by the optimizer's state; None where it has no scale for each parameter.
        matrices: Gauss-Newton, Fisher, empirical Fisher and the remainder.
        layers: each layer's block of the Hessian; their traces add up to its trace.
    """

    preconditioned: Preconditioned | None
    matrices: Mapping[Matrix, Spread] = field(default_factory=dict)
    layers: Mapping[str, Spread] = field(default_factory=dict)


class Stepping(NamedTuple):
    """What a checkpoint knows of its optimizer."""

    opt_state: Any
    params: Any  # those that it moves; of a run with a moving average not those that are evaluated
    rate: float  # of the last update


def load_stepping(run: Path, config: Config, which: str | int) -> Stepping:
    """The optimizer's state of a checkpoint, on the first device.

    Raises:
        UserError: no such checkpoint, or it does not fit the configuration.
    """
    with Checkpoints(run) as checkpoints:
        step = checkpoints.find(which)
        steps_per_epoch = checkpoints.read_progress(step).steps_per_epoch
        total = config.train.total_steps(max(1, steps_per_epoch))
        target = on_one_device(jax.eval_shape(lambda: TrainState.create(config, init_variables(config), total)))
        sums = on_one_device(jax.eval_shape(lambda: zero_sums(updates=True, unlabeled=bool(config.data.unlabeled))))
        state, _ = restore_state(checkpoints, step, target, sums)
    rate = learning_rate(config, max(0, step - 1), total, rate_factor(state.opt_state))
    return Stepping(state.opt_state, state.params, rate)


def planned_more(point: Point, config: Config) -> int:
    """About how many products `measure_more` takes at most."""
    # The remainder takes two products for one.
    matrices = len(Matrix) + 1 - fisher_is_gauss_newton(config.loss)
    largest = scales_parameters(config.optimizer) + len(layers_of(point)) + matrices
    return PRODUCTS * largest + config.landscape.trace_products * (1 + matrices)


def fisher_is_gauss_newton(loss: LossConfig) -> bool:
    """Whether both are one matrix: cross-entropy's second derivative by the logits is that of the softmax alone."""
    return isinstance(loss, CrossEntropy) and not loss.class_weights


def measure_more(
    point: Point,
    network: NetworkLoss,
    config: Config,
    stepping: Stepping,
    on_product: Callable[[], Any] | None = None,
) -> Iterator[More]:
    """After each part what is known with it; `on_product` is called after each product that is not the Hessian's.

    Raises:
        UserError: a product is not finite.
    """
    # A layer of few parameters is not worth its whole block: that would take as many products.
    settings = replace(config.landscape, max_products=PRODUCTS, dense_size=PRODUCTS)
    scaled = scales_parameters(config.optimizer)
    done = More(measure_preconditioned(point, config, stepping, settings) if scaled else None)
    yield done
    for matrix in Matrix:
        if matrix is Matrix.FISHER and fisher_is_gauss_newton(config.loss):
            found = done.matrices[Matrix.GAUSS_NEWTON]
        else:
            other = network.at(point, matrix, on_product)
            found = Spread(largest_eigenvalue(other, settings), trace(other, settings))
        done = replace(done, matrices={**done.matrices, matrix: found})
        yield done
    for layer, traced in trace_by_layer(point, settings).layers.items():
        found = Spread(largest_eigenvalue(block(point, layer), settings), traced)
        done = replace(done, layers={**done.layers, layer: found})
        yield done


def measure_preconditioned(
    point: Point, config: Config, stepping: Stepping, settings: SpectrumSettings
) -> Preconditioned:
    """The sharpness in the optimizer's own scale, and the limit of its steps."""
    found = stability(config, stepping.opt_state, stepping.params)
    scales, decay = np.sqrt(point.flat(found.inverse)), point.flat(found.decay)
    there = rescaled(point, scales, decay)
    limit = found.limit / stepping.rate if stepping.rate else np.inf
    return Preconditioned(config.optimizer.name, stepping.rate, largest_eigenvalue(there, settings), float(limit))
