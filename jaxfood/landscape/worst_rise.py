"""How sharp a minimum is: the worst rise of the loss within a ball around it."""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from jaxfood.errors import UserError
from jaxfood.landscape.expansion import inner, unit
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import Eigenpairs


class Sharpness(NamedTuple):
    """The worst rise found within a ball."""

    radius: float
    largest_eigenvalue: float
    model_rise: float  # what the second-order model says of its highest place in the ball
    rise_there: float  # the true loss's at that place
    rise: float  # the true loss's at the highest place found; infinite where it overflows
    displacement: np.ndarray  # [size], that place


def sharpness(point: Point, pairs: Eigenpairs, radius: float, ascent_steps: int) -> Sharpness:
    """The worst rise of the loss within so far of a point.

    First the second-order model's highest place, within the span of the gradient and the eigenvectors found, and its
    mirror image, which is as high where the gradient is 0. From the higher one projected gradient ascent on the true
    loss: each step is at first as long as the radius, and half as long after each one that did not rise.

    Args:
        point: where.
        pairs: its extreme eigenvalues.
        radius: of the ball, in the parameters' Euclidean norm.
        ascent_steps: gradients taken after the first.

    Raises:
        UserError: the radius is not positive, or the loss not finite here.
    """
    if not radius > 0:
        raise UserError(f"the ball's radius is {radius}: give a positive one")
    model_rise, peak = _model_peak(point, pairs, radius)
    best = max((peak, -peak), key=lambda place: _height(point.loss_at(place)))
    loss, gradient = point.loss_and_gradient_at(best)
    rise_there = _height(loss) - point.loss
    size = 1.0
    for _ in range(ascent_steps):
        if not (math.isfinite(loss) and np.any(gradient)):
            break
        place = _into_ball(best + size * radius * unit(gradient), radius)
        next_loss, next_gradient = point.loss_and_gradient_at(place)
        if _height(next_loss) > loss:
            best, loss, gradient = place, next_loss, next_gradient
        else:
            size /= 2
    return Sharpness(radius, float(pairs.values[-1]), model_rise, rise_there, _height(loss) - point.loss, best)


def _height(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _into_ball(place: np.ndarray, radius: float) -> np.ndarray:
    length = np.linalg.norm(place)
    return place * (radius / length) if length > radius else place


def _model_peak(point: Point, pairs: Eigenpairs, radius: float) -> tuple[float, np.ndarray]:
    """How far the second-order model rises in the ball, and where, as far as gradient and eigenvectors span."""
    rest = point.gradient
    for _ in range(2):
        rest = rest - (pairs.vectors @ rest) @ pairs.vectors
    curvature = np.diag(pairs.values)
    span = pairs.vectors
    if np.linalg.norm(rest) > np.finfo(point.dtype).eps * np.linalg.norm(point.gradient):
        rest = unit(rest)
        product = point.product(rest)
        span = np.vstack([span, rest])
        cross = span @ product
        curvature = np.block([[curvature, cross[:-1, None]], [cross[None]]])
    slope = np.array([inner(vector, point.gradient) for vector in span])
    peak = maximise(slope, curvature, radius)
    return float(slope @ peak + peak @ curvature @ peak / 2), (peak @ span).astype(point.dtype)


def maximise(slope: np.ndarray, curvature: np.ndarray, radius: float) -> np.ndarray:
    """Where slope.y + y.curvature y / 2 is greatest for |y| <= radius: `[k]` and symmetric `[k, k]` to `[k]`.

    y = (mu - curvature)^-1 slope, where mu is no less than 0 and the largest eigenvalue (Moré and Sorensen 1983). Where
    that is too short even for the least mu, y is filled up along the top eigenvector, or stays inside below a summit.
    """
    values, axes = np.linalg.eigh(curvature)
    components = axes.T @ slope
    length = np.linalg.norm(components)
    scale = max(np.abs(values).max(), length / radius)
    if not scale:
        return axes[:, -1] * radius  # all places are equally high
    gaps = max(values[-1], 0.0) - values  # how far mu is from each eigenvalue, at least

    def place(excess: float) -> np.ndarray:
        return components / (excess + gaps)

    least = 1e-12 * scale
    y = place(least)
    if np.linalg.norm(y) > radius:
        most = least + length / radius
        y = place(brentq(lambda e: np.linalg.norm(place(e)) - radius, least, most, xtol=np.finfo(float).tiny))
    elif values[-1] >= 0:
        y[-1] = math.copysign(math.sqrt(radius**2 - y[:-1] @ y[:-1]), components[-1])
    peak: np.ndarray = axes @ y
    return peak
