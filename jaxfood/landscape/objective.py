"""A loss over a data set: value, gradient and Hessian-vector product, one batch after another."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxfood.errors import UserError

Tree = Any  # of arrays: parameters, gradients, directions
BatchLoss = Callable[[Tree, Any], tuple[jax.Array, jax.Array]]


class Objective:
    """The mean loss over batches: the sum of their sums over the sum of their weights.

    A loss that treats its pictures one by one (so BatchNorm by running statistics) gives the same mean, but for
    rounding, however the pictures are cut into batches. Sums are kept on the device and a batch is waited for before
    the next one goes there, so that memory does not grow with their number. Batches of equal shapes share one compiled
    program for each of the three functions: pad the last one, with weights of 0.

    Args:
        loss: of parameters and a batch: the sum of losses and the sum of weights, both scalars. The weights must not
            depend on the parameters.
        batches: gone through at every evaluation, so a list or the like, not a generator.

    Raises:
        UserError: the batches can be gone through only once.
    """

    def __init__(self, loss: BatchLoss, batches: Iterable[Any]) -> None:
        if iter(batches) is batches:
            raise UserError(f"batches are a {type(batches).__name__}, gone through only once: give a list")
        self._batches = batches

        def value_and_gradient(params: Tree, batch: Any) -> Any:
            (total, weight), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch)
            return (total, gradient), weight

        def product(params: Tree, vector: Tree, batch: Any) -> Any:
            gradient = partial(jax.grad(loss, has_aux=True), batch=batch)
            _, derivative, weight = jax.jvp(gradient, (params,), (vector,), has_aux=True)
            return derivative, weight

        self._add_value = _adding(loss)
        self._add_value_and_gradient = _adding(value_and_gradient)
        self._add_product = _adding(product)

    @classmethod
    def of(cls, function: Callable[[Tree], jax.Array]) -> "Objective":
        """A plain function of the parameters."""
        return cls(lambda params, batch: (function(params), jnp.ones([])), batches=[()])

    def value(self, params: Tree) -> float:
        """The mean loss; it may be infinite or not a number."""
        return float(self._mean(self._add_value, jnp.zeros([]), params))

    def value_and_gradient(self, params: Tree) -> tuple[float, Tree]:
        """The mean loss and its gradient."""
        zeros = jnp.zeros([]), jax.tree.map(jnp.zeros_like, params)
        value, gradient = self._mean(self._add_value_and_gradient, zeros, params)
        return float(value), gradient

    def product(self, params: Tree, vector: Tree) -> Tree:
        """The Hessian times a vector: the derivative of the gradient along it (forward over reverse, Pearlmutter 1994).

        `jvp` of the loss itself is not asked for: `jax.custom_vjp` functions, as `conv3x3_max_pool`, have none.
        """
        return self._mean(self._add_product, jax.tree.map(jnp.zeros_like, params), params, vector)

    def _mean(self, add: Callable[..., Any], zeros: Tree, *arguments: Tree) -> Any:
        sums = zeros, jnp.zeros([])
        for batch in self._batches:
            sums = jax.block_until_ready(add(sums, batch, *arguments))
        total, weight = sums
        if not weight > 0:
            raise UserError(f"the batches' weights sum to {float(weight):g}: give at least one picture")
        return jax.tree.map(lambda t: t / weight.astype(t.dtype), total)


def _adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled: sums (donated), a batch and the function's other arguments to the sums with those of this batch."""

    @partial(jax.jit, donate_argnums=0)
    def add(sums: Any, batch: Any, *arguments: Tree) -> Any:
        terms = function(*arguments, batch=batch)
        return jax.tree.map(lambda s, term: s + jnp.asarray(term, s.dtype), sums, terms)

    return add
