"""The search for critical points, by the gradient's norm, and how many ways lead down from one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, lsmr

from jaxfood.errors import UserError
from jaxfood.landscape.objective import Tree
from jaxfood.landscape.point import Point


class Inertia(NamedTuple):
    """How many eigenvalues of the Hessian are negative (the index), zero and positive."""

    negative: int
    zero: int
    positive: int


def inertia(point: Point, threshold: float, dense_size: int = 1000) -> Inertia:
    """The signs of all eigenvalues, those from -threshold to threshold counting as zero.

    Raises:
        UserError: there are more parameters than `dense_size`, up to which the whole Hessian is made; the shares of a
            larger one are `Density.fraction_above`'s.
    """
    if point.size > dense_size:
        raise UserError(
            f"all eigenvalues of {point.size:,} parameters are asked for, and the whole Hessian is made up to "
            f"dense_size = {dense_size:,}: raise it, or take the density's fraction_above"
        )
    values = np.linalg.eigvalsh((point.hessian + point.hessian.T) / 2)
    negative, positive = int(np.sum(values < -threshold)), int(np.sum(values > threshold))
    return Inertia(negative, point.size - negative - positive, positive)


class Ending(StrEnum):
    """Why a search ended."""

    CRITICAL = "critical"  # the gradient is as small as was asked for
    GRADIENT_FLAT = "gradient_flat"  # it is not, and the Hessian maps it to nearly 0: no step makes it smaller
    UNFINISHED = "unfinished"  # the steps were used up


@dataclass(frozen=True)
class Search:
    """How long a critical point is sought, and what counts as one.

    Attributes:
        steps: at most.
        tolerance: critical is a gradient of at most this norm; 0: as far as rounding lets it fall.
        flatness: gradient-flat is where |H g| is at most this share of |g| times the Hessian's norm, as found.
        products: for each step at most, where the Hessian is too large to be made.
        dense_size: up to so many parameters it is made.
    """

    steps: int = 200
    tolerance: float = 1e-10
    flatness: float = 1e-3
    products: int = 200
    dense_size: int = 1000


class Found(NamedTuple):
    """Where a search ended.

    Attributes:
        params: the parameters.
        ending: why it ended there.
        gradient_norm: there.
        flatness: |H g| / (|g| ||H||): 0 where the gradient lies in the Hessian's kernel; 0 where it is 0.
        steps: taken.
        gradient_norms: at the start and after each step `[steps + 1]`; it never rises.
    """

    params: Tree
    ending: Ending
    gradient_norm: float
    flatness: float
    steps: int
    gradient_norms: np.ndarray


def find_critical_point(point: Point, search: Search = Search()) -> Found:
    """Minimise |g|^2 / 2 by damped Gauss-Newton steps (Levenberg and Marquardt), whose Jacobian is the Hessian.

    It is drawn to saddles and maxima as to minima, and may end where the gradient is not 0 but lies in the Hessian's
    kernel, so that |g| has a minimum of its own: most of what such searches find in neural networks is of that kind
    (Frye et al. 2021), which `ending` tells.

    Raises:
        UserError: the loss, its gradient or a product is not finite on the way.
    """
    norms, damping = [_norm(point.gradient)], 1e-3
    while len(norms) <= search.steps and norms[-1] > search.tolerance:
        local = _Local(point, search)
        while damping < 1e12:
            step = local.step(damping)
            trial = Point(point.objective, point.moved(step))
            if np.isfinite(trial.objective.value(trial.params)) and _norm(trial.gradient) < norms[-1]:
                break
            damping = 10 * max(damping, 1e-12)
        else:
            break  # no step of any length makes the gradient smaller
        point, damping = trial, damping / 10
        norms.append(_norm(point.gradient))
        if norms[-1] > norms[-2] * (1 - 1e-12):
            break  # rounding
    flatness = _Local(point, search).flatness if norms[-1] else 0.0
    ending = Ending.UNFINISHED
    if norms[-1] <= search.tolerance:
        ending = Ending.CRITICAL
    elif flatness <= search.flatness:
        ending = Ending.GRADIENT_FLAT
    return Found(point.params, ending, norms[-1], flatness, len(norms) - 1, np.array(norms))


class _Local:
    """The Hessian at a point, as the steps from there need it."""

    def __init__(self, point: Point, search: Search) -> None:
        self._point, self._search = point, search
        self._gradient = point.gradient.astype(np.float64)
        if point.size <= search.dense_size:
            self._values, self._axes = np.linalg.eigh((point.hessian + point.hessian.T) / 2)
            self._scale = float(np.abs(self._values).max())
        else:
            self._values = None
            self._scale = _norm(self._times(self._gradient / _norm(self._gradient)))

    def step(self, damping: float) -> np.ndarray:
        """What makes |H step + g|^2 + (damping scale)^2 |step|^2 least: `[size]`."""
        if self._values is not None:
            components = self._axes.T @ self._gradient
            squares = self._values**2 + (damping * self._scale) ** 2
            return self._axes @ np.where(squares > 0, -self._values * components / np.where(squares > 0, squares, 1), 0)
        size = self._point.size
        operator = LinearOperator((size, size), matvec=self._times, rmatvec=self._times, dtype=np.float64)
        found: np.ndarray = lsmr(
            operator, -self._gradient, damp=damping * self._scale, maxiter=max(1, self._search.products // 2)
        )[0]
        return found

    @property
    def flatness(self) -> float:
        scale = self._scale
        if self._values is None:  # by a few powers, as |H g| tells nothing of the norm where it is small
            vector = np.random.default_rng(0).standard_normal(self._point.size)
            for _ in range(10):
                vector = self._times(vector / _norm(vector))
            scale = max(scale, _norm(vector))
        return _norm(self._times(self._gradient)) / (_norm(self._gradient) * scale) if scale else 0.0

    def _times(self, vector: np.ndarray) -> np.ndarray:
        return self._point.product(vector.astype(self._point.dtype)).astype(np.float64)


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))
