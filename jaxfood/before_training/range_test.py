"""The learning-rate finder: train a few steps at a rising rate, and see where the loss falls and where it diverges.

Smith 2015, "Cyclical Learning Rates for Training Neural Networks" (the "LR range test"), with the exponential rise and
the stop of fastai's `lr_find`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood.config.schedule import RangeTest
from jaxfood.config.sections import Config
from jaxfood.data.splits import Splits
from jaxfood.optim.schedules import make_schedule
from jaxfood.training.distillation import load_teachers
from jaxfood.training.failures import enough_memory
from jaxfood.training.logbook import Stopwatch
from jaxfood.training.loop import Training

HIGHEST = 10.0  # fastai's; the lowest is 1e-7
DIVERGED = 4.0  # times the least loss, smoothed
_MEMORY = 0.9  # of the running mean that tells divergence: some 10 steps
_WIDTH = 4.0  # steps, the standard deviation of the curve's smoothing
_CEILING = 1.5  # times the first loss: what is higher counts as that
_LEAST_FALL = 0.02  # of the first loss, below which nothing was learnt


@dataclass(frozen=True, eq=False)
class Found:
    """What a range test found.

    Attributes:
        rates: [n], of each step.
        losses: [n], of each step's batch before its update.
        smoothed: [n].
        diverged: whether the loss ended the test, not the highest rate.
        fastest: the rate at which the smoothed loss falls fastest; None where it never falls.
        least: the rate at which it is least; None where it never falls.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    fastest: float | None
    least: float | None

    @property
    def suggestion(self) -> float | None:
        """The rate at which the loss falls fastest, to two digits.

        Not a tenth of the rate of the least loss, the other rule: that is for a running mean, whose least comes late.
        """
        return None if self.fastest is None else float(f"{self.fastest:.1e}")


def find_learning_rate(config: Config, splits: Splits, mesh: Mesh, update_bar: Callable[[], object]) -> Found:
    """Train new weights for at most 100 steps from a rate of 1e-7 to one of 10, and forget them.

    Network, optimizer, loss, augmentation and batches are the configuration's, its learning rate and its schedule are
    not. Equal configurations find the same.

    Args:
        config: a run's.
        splits: its pictures.
        mesh: its devices.
        update_bar: called after each step.
    """
    schedule = RangeTest()
    optimizer = dataclasses.replace(config.optimizer, learning_rate=HIGHEST)
    rates = np.asarray(jax.vmap(make_schedule(schedule, optimizer, schedule.steps))(np.arange(schedule.steps)))
    with enough_memory(config):
        training = Training(
            dataclasses.replace(config, optimizer=optimizer, schedule=schedule),
            splits,
            mesh,
            {},
            Stopwatch(),
            teachers=load_teachers(config, splits.classes, mesh),
        )
        training.compile()
        losses, diverged = take_until_diverged(training.losses(), schedule.steps, update_bar)
    return examine(rates[: len(losses)], losses, diverged=diverged)


def take_until_diverged(
    losses: Iterable[float], most: int, update_bar: Callable[[], object]
) -> tuple[np.ndarray, bool]:
    """The losses up to where they diverge, `most` of them otherwise; and whether they did.

    They do where one is not finite, or their running mean is over four times the least that it was.
    """
    taken: list[float] = []
    mean, least = 0.0, math.inf
    for loss in losses:
        taken.append(loss)
        update_bar()
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        unbiased = mean / (1 - _MEMORY ** len(taken))
        least = min(least, unbiased)
        if not math.isfinite(loss) or unbiased > DIVERGED * least:
            return np.array(taken), True
        if len(taken) == most:
            break
    return np.array(taken), False


def examine(rates: np.ndarray, losses: np.ndarray, *, diverged: bool) -> Found:
    """Where the losses fall fastest and where they are least.

    By a mean over the steps on both sides: a running one lags behind, and would find rates that are too high.

    Args:
        rates: [n], rising.
        losses: [n]; what is not finite counts as the highest that is.
        diverged: whether the last ended the test.
    """
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return Found(rates, losses, losses, diverged, None, None)
    # The divergence is a cliff: kept as high as it is, its smoothing would hide the last of the fall before it.
    bounded = np.minimum(np.where(np.isfinite(losses), losses, np.inf), _CEILING * finite[0])
    smoothed = _smooth(bounded)
    lowest = int(np.argmin(smoothed))
    if lowest == 0 or smoothed[lowest] > (1 - _LEAST_FALL) * smoothed[0]:
        return Found(rates, losses, smoothed, diverged, None, None)
    slopes = np.gradient(smoothed, np.log(rates))[: lowest + 1]
    return Found(rates, losses, smoothed, diverged, float(rates[np.argmin(slopes)]), float(rates[lowest]))


def _smooth(values: np.ndarray) -> np.ndarray:
    """A Gaussian mean [n], at the ends over what is there."""
    steps = np.arange(len(values))
    weights = np.exp(-0.5 * np.square((steps[:, None] - steps) / _WIDTH))
    return weights @ values / weights.sum(axis=1)
