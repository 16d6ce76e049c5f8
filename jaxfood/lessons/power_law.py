"""A power law of a loss above a critical one, fitted by least squares."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

_GUESSES = (0.5, 1.0, 1.5, 2.0)  # exponents to begin with: the best end is taken


class PowerLaw(NamedTuple):
    """scale (loss - critical)^exponent above the critical loss, and 0 below; `rms`: how far the fitted points lie."""

    scale: float
    critical: float
    exponent: float
    rms: float

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        """The law at these losses."""
        return _law(self.scale, self.critical, self.exponent, losses)


def fit_power_law(
    losses: np.ndarray, values: np.ndarray, *, critical: float | None = None, exponent: float | None = None
) -> PowerLaw:
    """The law that lies nearest to these values; what is given is not fitted.

    Args:
        losses: `[N]`.
        values: `[N]`, above 0.
        critical: the loss where it ends; fitted: below all of these losses by at most their range.
        exponent: the power; fitted: 0.1 to 5.
    """
    lowest, highest = float(losses.min()), float(losses.max())
    lower = [0.0, lowest - (highest - lowest), 0.1]
    upper = [np.inf, lowest, 5.0]
    for place, given in ((1, critical), (2, exponent)):
        if given is not None:
            lower[place], upper[place] = given - 1e-9, given + 1e-9

    def off(law: np.ndarray) -> np.ndarray:
        return _law(law[0], law[1], law[2], losses) - values

    best = None
    for guess in _GUESSES:
        start = np.clip([values.max(), lowest - 0.1 * (highest - lowest), guess], lower, upper)
        found = least_squares(off, start, bounds=(lower, upper), x_scale=[1.0, highest - lowest, 1.0])
        best = found if best is None or found.cost < best.cost else best
    assert best is not None
    scale, end, power = map(float, best.x)
    return PowerLaw(scale, end, power, float(np.sqrt(2 * best.cost / len(losses))))


def _law(scale: float, critical: float, exponent: float, losses: np.ndarray) -> np.ndarray:
    law: np.ndarray = scale * np.maximum(losses - critical, 1e-12) ** exponent
    return law
