"""The critical learning rate: the smallest step along a direction that raises the loss, from a few losses.

Where the loss is its second-order expansion, it is 2 / curvature along the direction: 2 / rate is a sharpness that asks
for no second derivative (Kalra et al. 2026, arXiv 2601.16979).
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class CriticalRate(NamedTuple):
    """Between which rates the loss begins to rise.

    Attributes:
        low: a rate up to which it does not; 0 where it rises however small the rate.
        high: one at which it does; infinite where it never does.
        losses: how many that took.
    """

    low: float
    high: float
    losses: int

    @property
    def value(self) -> float:
        """The rate, as the bracket's geometric middle: 0 or infinite where there is none."""
        if not self.low:
            return 0.0
        return math.sqrt(self.low) * math.sqrt(self.high)

    @property
    def sharpness(self) -> float:
        """2 / rate: 0 where the loss never rises, infinite where it always does."""
        return 2 / self.value if self.value else math.inf


def find_critical_rate(
    loss_at: Callable[[float], float], loss: float, first: float, accuracy: float = 0.06, doublings: int = 30
) -> CriticalRate:
    """Double or halve a rate until the loss has begun, or ceased, to rise, and bisect between the last two.

    A loss that is not finite has risen. What it does between two rates that were tried is not seen: of several
    crossings the first that doubling meets is taken.

    Args:
        loss_at: the loss after a step of this rate.
        loss: before it.
        first: rate that is tried, above 0: the learning rate itself, say.
        accuracy: of the rate, relative.
        doublings: at most, and halvings.
    """
    low, high, losses = 0.0, math.inf, 0

    def rises(rate: float) -> bool:
        nonlocal low, high, losses
        losses += 1
        risen = not loss_at(rate) <= loss
        if risen:
            high = rate
        else:
            low = rate
        return risen

    rate, risen = first, rises(first)
    for _ in range(doublings):
        rate = rate / 2 if risen else rate * 2
        if rises(rate) != risen:
            break
    else:
        return CriticalRate(0.0 if risen else low, high if risen else math.inf, losses)
    while high > low * (1 + accuracy):
        rises(math.sqrt(low * high))
    return CriticalRate(low, high, losses)
