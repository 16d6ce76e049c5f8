"""Whether two groups of seeds differ, and how many seeds it takes to show a difference of that size."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

LEVEL, POWER = 0.05, 0.8  # of a two-sided test: chance to see what is not there, and to see what is
FACTOR = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)  # z_a + z_b, 1.96 + 0.84


class Comparison(NamedTuple):
    """Two groups of equally many seeds.

    Attributes:
        difference: the second group's mean less the first's.
        deviation: within a group, pooled.
        p_value: of Student's two-sided t-test.
        seeds: in each group.
        seeds_needed: in each group, to show such a difference (`seeds_needed`).
        detectable: the difference that so many seeds show, with the same chances.
    """

    difference: float
    deviation: float
    p_value: float
    seeds: int
    seeds_needed: float
    detectable: float


def compare_groups(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two groups of equally many numbers, at least two."""
    seeds = len(first)
    deviation = math.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / 2)
    difference = float(np.mean(second) - np.mean(first))
    error = deviation * math.sqrt(2 / seeds)
    p_value = float(2 * stdtr(2 * seeds - 2, -abs(difference) / error)) if error else float(difference == 0)
    return Comparison(difference, deviation, p_value, seeds, seeds_needed(difference, deviation), FACTOR * error)


def seeds_needed(difference: float, deviation: float) -> float:
    """Seeds in each group for a two-sided t-test at 5 % that sees the difference with a chance of 80 %.

    n = 2 (z_a + z_b)^2 s^2 / d^2, rounded up and at least two; infinite where there is no difference. By the normal
    distribution, so one or two too few where it says fewer than ten.
    """
    if not difference:
        return math.inf
    return float(max(2, math.ceil(2 * (FACTOR * deviation / difference) ** 2)))
