"""Runs against each other on the same pictures."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Two runs' answers to the same pictures.

    Attributes:
        only_first: how many pictures the first alone has right.
        only_this: how many the other alone has right.
        p_value: of McNemar's exact test: how often two equally good runs would differ so or more.
    """

    only_first: int
    only_this: int
    p_value: float


def compare(first: np.ndarray, this: np.ndarray) -> Comparison:
    """McNemar's exact test (1947; by the binomial distribution, two-sided) of which pictures two have right.

    It looks at the pictures that one alone has right, and so sees differences that the intervals of the two accuracies
    hide: both meet the same easy and hard pictures.

    Args:
        first: bool [N].
        this: bool [N].
    """
    from scipy.stats import binomtest

    only_first, only_this = int((first & ~this).sum()), int((this & ~first).sum())
    differing = only_first + only_this
    return Comparison(only_first, only_this, float(binomtest(only_first, differing).pvalue) if differing else 1.0)
