"""The loss's second-order Taylor expansion along a direction, and how far the loss departs from it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxfood.landscape.point import Point


class Expansion(NamedTuple):
    """L(theta + t d) = loss + slope t + curvature t^2 / 2, with slope d.g and curvature d.H d."""

    loss: float
    slope: float
    curvature: float

    def __call__(self, steps: Sequence[float] | np.ndarray) -> np.ndarray:
        """The expansion's value at each step t."""
        t = np.asarray(steps, np.float64)
        return self.loss + t * (self.slope + t * self.curvature / 2)

    @property
    def decrease(self) -> float:
        """How far the expansion falls below `loss` at most; infinite where it has no least value."""
        if self.curvature > 0:
            return self.slope * (self.slope / self.curvature) / 2
        return math.inf if self.slope or self.curvature else 0.0


class Comparison(NamedTuple):
    """The loss and its expansion at each step."""

    losses: np.ndarray  # [steps]
    expansion: np.ndarray  # [steps]

    @property
    def errors(self) -> np.ndarray:
        """What the expansion lacks `[steps]`: of third order in the step where the loss is smooth."""
        return self.losses - self.expansion


def expand(point: Point, direction: np.ndarray) -> Expansion:
    """The expansion along a direction, of its own length; one Hessian-vector product."""
    curvature = inner(direction, point.product(direction)) if np.any(direction) else 0.0
    return Expansion(point.loss, inner(direction, point.gradient), curvature)


def expand_downhill(point: Point) -> Expansion:
    """The expansion along the unit vector of -g; of slope and curvature 0 where the gradient is exactly 0."""
    return expand(point, -unit(point.gradient))


def compare(point: Point, direction: np.ndarray, steps: Sequence[float] | np.ndarray) -> Comparison:
    """The loss against its expansion at each step along a direction."""
    losses = np.array([point.loss_at(t * direction) for t in steps])
    return Comparison(losses, expand(point, direction)(steps))


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """The inner product of two vectors, summed in float64."""
    return float(np.dot(a.astype(np.float64), b.astype(np.float64)))


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1; 0 stays 0."""
    length = np.linalg.norm(vector.astype(np.float64))
    return (vector / length).astype(vector.dtype) if length else vector
