"""Gauss-Newton and Fisher beside the Hessian, of a loss that is a network's outputs and a loss of each of them.

With J the outputs' derivative, H = J' L J + sum of (loss' derivative by an output) (that output's Hessian): the
Gauss-Newton matrix, which is never negative where the loss is convex in the outputs, and the remainder, which vanishes
with the losses. The Fisher information of a softmax is its cross-entropy's Gauss-Newton matrix; the empirical Fisher,
the mean square of single gradients, equals neither (Kunstner et al. 2019, arXiv 1905.12558).
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfood.landscape.objective import Objective, Tree
from jaxfood.landscape.point import Point

Outputs = Callable[[Tree, Any], jax.Array]
Losses = Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]


class Matrix(StrEnum):
    """Which matrix."""

    GAUSS_NEWTON = "gauss_newton"
    FISHER = "fisher"
    EMPIRICAL_FISHER = "empirical_fisher"
    REMAINDER = "remainder"  # the Hessian less Gauss-Newton


class NetworkLoss:
    """A network's loss in its two parts; `objective` is the whole.

    Args:
        outputs: of parameters and a batch: `[B, K]`.
        losses: of outputs and a batch: losses `[B]`, each of its own row alone, and weights `[B]`; both 0 for padding.
        batches: as `Objective` takes them.
    """

    def __init__(self, outputs: Outputs, losses: Losses, batches: Sequence[Any]) -> None:
        def total(params: Tree, batch: Any) -> tuple[jax.Array, jax.Array]:
            return tuple(map(jnp.sum, losses(outputs(params, batch), batch)))  # type: ignore[return-value]

        self.objective = Objective(total, batches)
        self._outputs, self._losses, self._batches = outputs, losses, batches
        self._add = {matrix: jax.jit(partial(self._added, matrix), donate_argnums=0) for matrix in Matrix}

    def at(self, point: Point, matrix: Matrix, on_product: Callable[[], None] | None = None) -> Point:
        """A point whose products are those of another matrix; loss and gradient are the loss's own."""
        return _WithMatrix(point, partial(self._product, matrix), on_product)

    def _product(self, matrix: Matrix, point: Point, vector: np.ndarray) -> np.ndarray:
        if matrix is Matrix.REMAINDER:
            return point.product(vector) - self._product(Matrix.GAUSS_NEWTON, point, vector)
        tree = point.tree(jnp.asarray(vector, point.dtype))
        sums = jax.tree.map(jnp.zeros_like, point.params), jnp.zeros([], point.dtype)
        for batch in self._batches:
            sums = jax.block_until_ready(self._add[matrix](sums, batch, point.params, tree))
        return np.array(ravel_pytree(sums[0])[0]) / np.asarray(sums[1])

    def _added(self, matrix: Matrix, sums: Any, batch: Any, params: Tree, vector: Tree) -> Any:
        outputs, pull = jax.vjp(lambda p: self._outputs(p, batch), params)
        # J v by the transpose of the transpose: functions with a derivative of their own, jax.custom_vjp, have no jvp.
        _, push = jax.vjp(lambda cotangent: pull(cotangent)[0], jnp.zeros_like(outputs))
        (moved,) = push(vector)
        _, weights = self._losses(outputs, batch)
        (term,) = pull(self._times(matrix, outputs, moved, weights, batch))
        total, weight = sums
        return jax.tree.map(jnp.add, total, term), weight + jnp.sum(weights).astype(weight.dtype)

    def _times(self, matrix: Matrix, outputs: jax.Array, moved: jax.Array, weights: jax.Array, batch: Any) -> jax.Array:
        """The matrix in the outputs' own space, a block for each row, times a move of them `[B, K]`."""
        gradient = jax.grad(lambda z: jnp.sum(self._losses(z, batch)[0]))
        match matrix:
            case Matrix.GAUSS_NEWTON:
                return jax.jvp(gradient, (outputs,), (moved,))[1]
            case Matrix.FISHER:
                probabilities = jax.nn.softmax(outputs)
                mean = jnp.sum(probabilities * moved, axis=-1, keepdims=True)
                return weights[:, None].astype(outputs.dtype) * probabilities * (moved - mean)
            case Matrix.EMPIRICAL_FISHER:
                slopes = gradient(outputs)
                return slopes * jnp.sum(slopes * moved, axis=-1, keepdims=True)
        raise TypeError(f"no products of {matrix} in the outputs")


class _WithMatrix(Point):
    def __init__(
        self,
        point: Point,
        product: Callable[[Point, np.ndarray], np.ndarray],
        on_product: Callable[[], None] | None,
    ) -> None:
        super().__init__(point.objective, point.params)
        self._point, self._times, self._on_product = point, product, on_product

    @cached_property
    def _loss_and_gradient(self) -> tuple[float, np.ndarray]:
        return self._point.loss, self._point.gradient

    def product(self, vector: np.ndarray) -> np.ndarray:
        self.products += 1
        if self._on_product is not None:
            self._on_product()
        return self._times(self._point, vector)
