"""A progress bar over all that is measured, and how long it will take."""

import time

from tqdm.auto import tqdm

from jaxfood.landscape import Point
from jaxfood.run_landscape.measure import Plan

# How long each takes, in gradients; a product as long as what it needs of the gradient is kept.
_PRODUCT, _LOSS, _GRADIENT = 2.0, 0.25, 1.0
_TIMED = 3  # products after which their time is told; the first one is compiled


class SurveyBar(tqdm):
    """Its `product` is a `Point`'s `on_product`, its `loss` a slice's `on_loss`; gone once it ends."""

    def __init__(self) -> None:
        super().__init__(
            desc="ends of the spectrum",
            leave=False,
            delay=1,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        )
        self._products = 0
        self._since = 0.0
        self._seconds = 0.0  # for a product
        self._told = ""

    def expect(self, point: Point, *plans: Plan) -> None:
        """What is to come; once a few products are timed, it is said how long that will take."""
        products, losses, gradients = (sum(numbers) for numbers in zip(*plans, strict=True))
        self.total = self.n + _in_gradients(Plan(products, losses, gradients))
        others = f", {losses} losses and {gradients} gradients" if losses else ""
        self._told = self._told or f"{point.size:,} parameters; a Hessian-vector product takes {{:.2g}} s: about " + (
            f"{products} of them{others}, {{:.2g}} minutes"
        )
        self.refresh()

    def product(self) -> None:
        """One is done."""
        self._products += 1
        if self._products == 1:
            self._since = time.perf_counter()
        if self._products == _TIMED and self.total:
            self._seconds = (time.perf_counter() - self._since) / (_TIMED - 1)
            tqdm.write(self._told.format(self._seconds, self.total * self._seconds / _PRODUCT / 60))
        self.update(_PRODUCT)

    def minutes(self, plan: Plan) -> float:
        """How long that will take, by the first products' time."""
        return _in_gradients(plan) * self._seconds / _PRODUCT / 60

    def loss(self) -> None:
        """One is done."""
        self.update(_LOSS)

    def remaining(self, *plans: Plan) -> None:
        """What is still to come: the bar goes on from where it is."""
        self.total = self.n + sum(map(_in_gradients, plans))
        self.refresh()


def _in_gradients(plan: Plan) -> float:
    return plan.products * _PRODUCT + plan.losses * _LOSS + plan.gradients * _GRADIENT
