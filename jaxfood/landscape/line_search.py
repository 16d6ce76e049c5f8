"""Escape from a saddle: a line search along the most negative eigenvector, as far as the loss falls."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from scipy.optimize import minimize_scalar

from jaxfood.errors import UserError
from jaxfood.landscape.expansion import unit
from jaxfood.landscape.objective import Tree
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import Eigenpairs


@dataclass(frozen=True)
class LineSearch:
    """How far to go along a line.

    Attributes:
        first_decrease: the first step is the one for which curvature alone promises this fraction of the loss.
        doublings: of the step at most; as many halvings where the first step is already too long.
        accuracy: of the step, relative.
        evaluations: of the loss at most, once the least loss is bracketed.
    """

    first_decrease: float = 0.01
    doublings: int = 40
    accuracy: float = 1e-5
    evaluations: int = 40


class Escape(NamedTuple):
    """Where the line search ended; with step 0 the parameters are those it began with."""

    params: Tree
    step: float  # along the unit eigenvector, whose sign is arbitrary
    eigenvalue: float
    loss_before: float
    loss_after: float  # of `params`; never higher


def escape(point: Point, pairs: Eigenpairs, search: LineSearch) -> Escape:
    """Go along the eigenvector of the smallest eigenvalue, both ways, and take the lower end.

    Raises:
        UserError: no eigenvalue is negative, or the loss is not finite here.
    """
    eigenvalue, direction = float(pairs.values[0]), unit(pairs.vectors[0])
    if not eigenvalue < 0:
        raise UserError(f"the smallest eigenvalue is {eigenvalue:.3g}: there is no way out without a negative one")
    first = math.sqrt(2 * search.first_decrease * (abs(point.loss) or 1.0) / -eigenvalue)
    line = _Line(lambda step: point.loss_at(step * direction))
    before = line.loss
    for step in (first, -first):
        bracket = _bracket(line, before, step, search)
        if bracket is not None:
            options = {"xtol": search.accuracy, "maxiter": search.evaluations}
            minimize_scalar(line, bracket, method="brent", options=options)
    return Escape(point.moved(line.step * direction), line.step, eigenvalue, before, line.loss)


class _Line:
    """The loss along a line, infinite where it is not finite; `step` and `loss` are the lowest evaluated so far."""

    def __init__(self, loss_at: Callable[[float], float]) -> None:
        self._loss_at = loss_at
        self.step, self.loss = 0.0, loss_at(0.0)

    def __call__(self, step: float) -> float:
        step = float(step)  # Brent's are NumPy's
        loss = self._loss_at(step)
        if not math.isfinite(loss):
            return math.inf
        if loss < self.loss:
            self.step, self.loss = step, loss
        return loss


def _bracket(line: _Line, before: float, step: float, search: LineSearch) -> tuple[float, float, float] | None:
    """Three steps of which the middle one has the lowest loss; None where none is lower, or it falls without end."""
    near, loss = 0.0, line(step)
    if loss < before:
        for _ in range(search.doublings):
            next_loss = line(2 * step)
            if next_loss > loss:
                return near, step, 2 * step
            if next_loss < loss:
                near = step
            step, loss = 2 * step, next_loss
        return None
    for _ in range(search.doublings):
        if line(step / 2) < before:
            return 0.0, step / 2, step
        step /= 2
    return None
