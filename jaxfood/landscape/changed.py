"""A loss in other parameters: rescaled ones, or one layer's alone. Every measure of a point then holds for them.

In parameters u with params = here + scales * u the Hessian is scales H scales: with the inverse roots of an optimizer's
preconditioner its largest eigenvalue is the *preconditioned* sharpness, by which an adaptive method is stable or not
(Cohen et al. 2022, arXiv 2207.14484). In one layer's parameters it is that layer's block of the Hessian.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

import jax
import numpy as np

from jaxfood.errors import UserError
from jaxfood.landscape.objective import Objective, Tree
from jaxfood.landscape.point import Point

Map = Callable[[np.ndarray], np.ndarray]  # of vectors


def rescaled(point: Point, scales: np.ndarray, decay: np.ndarray | float = 0.0) -> Point:
    """The point in parameters u, whose displacement is scales * u; where a scale is 0 a parameter stays as it is.

    Args:
        point: where.
        scales: `[size]`.
        decay: curvature of an L2 penalty `[size]` that is part of the products, though not of loss and gradient.
    """
    factors = scales.astype(point.dtype)
    added = (scales**2 * decay).astype(point.dtype)
    return _Changed(point, point.size, lambda u: factors * u, lambda v: factors * v, added)


def block(point: Point, layer: str) -> Point:
    """The point in one layer's parameters, while all others stay as they are.

    Raises:
        UserError: there is no such layer.
    """
    layers = layers_of(point)
    if layer not in layers:
        raise UserError(f"there is no layer {layer}: there are {', '.join(layers)}")
    at = layers[layer]

    def embedded(u: np.ndarray) -> np.ndarray:
        whole = np.zeros(point.size, point.dtype)
        whole[at] = u
        return whole

    return _Changed(point, at.stop - at.start, embedded, lambda v: v[at])


def layers_of(point: Point) -> dict[str, slice]:
    """Where each layer's parameters are in a point's vectors, by the first name in its tree.

    Raises:
        UserError: the parameters are no dictionary of layers.
    """
    if not isinstance(point.params, Mapping):
        raise UserError(f"the parameters are a {type(point.params).__name__}: give a dictionary of layers")
    found, end = dict[str, slice](), 0
    for name in sorted(point.params):  # JAX's order of a dictionary
        begin, end = end, end + sum(np.size(leaf) for leaf in jax.tree.leaves(point.params[name]))
        found[name] = slice(begin, end)
    return found


class _Changed(Point):
    """A point in parameters u, whose displacement is linear in u; its products are those of the point itself."""

    def __init__(self, point: Point, size: int, forward: Map, back: Map, added: np.ndarray | None = None) -> None:
        super().__init__(_InOthers(point, forward, back), np.zeros(size, point.dtype))
        self._point, self._forward, self._back, self._added = point, forward, back, added

    @cached_property
    def _loss_and_gradient(self) -> tuple[float, np.ndarray]:
        return self._point.loss, self._back(self._point.gradient)

    def product(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        product = self._back(self._point.product(self._forward(vector)))
        return product if self._added is None else product + self._added * vector


class _InOthers(Objective):
    """A loss of u."""

    def __init__(self, point: Point, forward: Map, back: Map) -> None:
        self._point, self._forward, self._back = point, forward, back

    def value(self, params: Tree) -> float:
        return self._point.loss_at(self._forward(np.asarray(params)))

    def value_and_gradient(self, params: Tree) -> tuple[float, Tree]:
        loss, gradient = self._point.loss_and_gradient_at(self._forward(np.asarray(params)))
        return loss, self._back(gradient)

    def product(self, params: Tree, vector: Tree) -> Tree:
        there = Point(self._point.objective, self._point.moved(self._forward(np.asarray(params))))
        return self._back(there.product(self._forward(np.asarray(vector))))
