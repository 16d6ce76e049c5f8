"""What kind of point this is: not critical, a minimum, a maximum, a saddle, or degenerate."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from jaxfood.config.landscape import Tolerances
from jaxfood.landscape.expansion import Expansion
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import Eigenpairs

_LARGE = 256  # eigenvalues that count as large in `gradient_rounding`


class Kind(StrEnum):
    """The notes' kinds of critical points, and the two cases that they leave out."""

    NOT_CRITICAL = "not_critical"
    LOCAL_MINIMUM = "local_minimum"
    LOCAL_MAXIMUM = "local_maximum"
    SADDLE = "saddle"
    DEGENERATE = "degenerate"


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue and its residual."""

    value: float
    residual: float

    @property
    def least_magnitude(self) -> float:
        """How far from zero it lies at least; negative where the residual hides its sign."""
        return abs(self.value) - self.residual

    def is_above(self, threshold: float) -> bool:
        """Whether it is, wherever within the residual it lies."""
        return self.value - self.residual > threshold

    def is_below(self, threshold: float) -> bool:
        """Whether it is, wherever within the residual it lies."""
        return self.value + self.residual < threshold

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.residual:.1g}"


@dataclass(frozen=True)
class Verdict:
    """The kind, the numbers that it rests on, and both in words.

    Attributes:
        kind: by the rule of `judge`.
        downhill: loss, slope (the gradient's norm, negative) and curvature along the unit vector of -g.
        smallest: eigenvalue found.
        largest: eigenvalue found.
        exact: they come from the whole Hessian.
        unseen: see `Eigenpairs`.
        tolerances: what counted as zero.
    """

    kind: Kind
    downhill: Expansion
    smallest: Eigenvalue
    largest: Eigenvalue
    exact: bool
    unseen: float
    tolerances: Tolerances

    @property
    def threshold(self) -> float:
        """Eigenvalues from -threshold to threshold count as zero."""
        return self.tolerances.zero_tolerance * self._scale

    @property
    def reason(self) -> str:
        """Why it is of this kind."""
        match self.kind:
            case Kind.NOT_CRITICAL:
                return self._descent()
            case Kind.SADDLE:
                return f"eigenvalues of both signs beyond ±{self.threshold:.2g}: {self.smallest} and {self.largest}"
            case Kind.LOCAL_MINIMUM:
                return f"every eigenvalue is positive: the smallest found is {self.smallest}{self._unseen_margin()}"
            case Kind.LOCAL_MAXIMUM:
                return f"every eigenvalue is negative: the largest found is {self.largest}{self._unseen_margin()}"
            case Kind.DEGENERATE:
                return self._missing_sign()

    @property
    def remedy(self) -> str:
        """What would make it another kind."""
        match self.kind:
            case Kind.NOT_CRITICAL:
                share = self.downhill.decrease / abs(self.downhill.loss) if self.downhill.loss else math.inf
                looser = f", or a decrease tolerance of {share:.2g}" if math.isfinite(share) else ""
                return f"going further down{looser}"
            case Kind.SADDLE:
                margin = min(self.smallest.least_magnitude, self.largest.least_magnitude)
            case Kind.LOCAL_MINIMUM:
                margin = self.smallest.least_magnitude - self.unseen
            case Kind.LOCAL_MAXIMUM:
                margin = self.largest.least_magnitude - self.unseen
            case Kind.DEGENERATE:
                return self._what_would_settle()
        return f"a zero tolerance of {margin / self._scale:.2g}"

    @property
    def _scale(self) -> float:
        return max(abs(self.smallest.value), abs(self.largest.value))

    @property
    def _undecided(self) -> Eigenvalue:
        """Where the point is degenerate: the end whose sign would tell a saddle from an extremum."""
        return self.largest if self.smallest.is_below(-self.threshold) else self.smallest

    def _descent(self) -> str:
        loss, slope, curvature = self.downhill
        if math.isinf(self.downhill.decrease):
            return f"the gradient has norm {-slope:.3g} and the curvature along it is {curvature:.3g}, not positive"
        share = f"{100 * self.downhill.decrease / abs(loss):.3g} % of {loss:.4g}" if loss else "from a loss of 0"
        return (
            f"the gradient, of norm {-slope:.3g}, promises a decrease of {self.downhill.decrease:.2g}, {share} "
            f"(critical: at most {100 * self.tolerances.decrease_tolerance:.3g} %)"
        )

    def _missing_sign(self) -> str:
        if not self._scale:
            return "every eigenvalue found is 0"
        sign, bound = ("positive", "above ") if self._undecided is self.largest else ("negative", "below -")
        return (
            f"no {sign} eigenvalue {bound}{self.threshold:.2g} found to precision {self._undecided.residual:.1g}, and "
            f"some may be 0: found from {self.smallest} to {self.largest}{self._unseen_margin()}"
        )

    def _unseen_margin(self) -> str:
        return f", and one not found may lie up to {self.unseen:.2g} beyond" if self.unseen else ""

    def _what_would_settle(self) -> str:
        margin = self._undecided.least_magnitude
        remedies = []
        if margin <= 0:
            remedies.append(f"{self._undecided} is 0 to its precision: slices of the loss show what higher orders do")
        elif margin <= self.threshold:
            remedies.append(f"a zero tolerance under {margin / self._scale:.2g}")
        if self.unseen:
            remedies.append("more Lanczos vectors, which leave less unseen, or more products")
        return "; ".join(remedies)


def gradient_rounding(point: Point, pairs: Eigenpairs) -> float:
    """What rounding the parameters alone may leave of a gradient that is 0: the norm of H times their last digits.

    They are rounded independently of each other, so that the norm is eps |params| ||H||_F / sqrt(size), as if 256
    eigenvalues at most were as large as the largest found. Without it a gradient of 1e-15 along which the loss does not
    curve upwards would promise a decrease without end.
    """
    norm = float(np.abs(pairs.values).max()) * float(np.linalg.norm(point.flat(point.params).astype(np.float64)))
    return float(np.finfo(point.dtype).eps) * norm * math.sqrt(min(1.0, _LARGE / point.size))


def judge(downhill: Expansion, pairs: Eigenpairs, tolerances: Tolerances, rounding: float = 0.0) -> Verdict:
    """The kind of a point.

    Critical is where the promised decrease is small against the loss, or the gradient is but rounding. Eigenvalues of
    both signs make a saddle, whatever else is flat. All of one sign make a minimum or a maximum, where none of another
    can have been missed. The rest is degenerate: the second order does not tell.

    Args:
        downhill: `expand_downhill` of the point.
        pairs: its extreme eigenvalues, at least one at each end.
        tolerances: what counts as zero.
        rounding: a gradient of at most this norm does, too: `gradient_rounding`.
    """
    smallest, largest = (Eigenvalue(float(pairs.values[i]), float(pairs.residuals[i])) for i in (0, -1))
    threshold = tolerances.zero_tolerance * max(abs(smallest.value), abs(largest.value))
    promises = downhill.decrease > tolerances.decrease_tolerance * abs(downhill.loss)
    if promises and -downhill.slope > rounding:
        kind = Kind.NOT_CRITICAL
    elif smallest.is_below(-threshold) and largest.is_above(threshold):
        kind = Kind.SADDLE
    elif smallest.is_above(threshold + pairs.unseen):
        kind = Kind.LOCAL_MINIMUM
    elif largest.is_below(-threshold - pairs.unseen):
        kind = Kind.LOCAL_MAXIMUM
    else:
        kind = Kind.DEGENERATE
    return Verdict(kind, downhill, smallest, largest, pairs.exact, pairs.unseen, tolerances)
