"""A loss over a data set: value, gradient and Hessian-vector product, one batch after another."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
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
        to_linearise: entered while the loss is traced for `linearised`.

    Raises:
        UserError: the batches can be gone through only once.
    """

    def __init__(
        self,
        loss: BatchLoss,
        batches: Iterable[Any],
        to_linearise: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
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

        def linearise(params: Tree, batch: Any) -> Any:
            def gradient(params: Tree) -> Any:
                sums, weight = value_and_gradient(params, batch)
                return sums[1], (sums[0], weight)

            with to_linearise():
                return jax.linearize(gradient, params, has_aux=True)

        self._linearise = jax.jit(linearise)
        self._add = _adding(lambda batch: batch)
        self._add_linear_product = _adding(lambda vector, batch: (batch[0](vector), batch[1]))

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

    def linearised(self, params: Tree, most_bytes: int) -> "Linearised":
        """Value, gradient and products at these parameters, where products are many.

        A product computes the gradient anew, and takes three times as long as it. What its own part needs of the
        gradient's is kept here, batch by batch, as long as all of it takes no more than so many bytes: a product of
        these takes twice as long as the gradient.
        """
        return Linearised(self, params, most_bytes)

    def _mean(self, add: Callable[..., Any], zeros: Tree, *arguments: Tree) -> Any:
        return _over_weight(self._added(add, (zeros, jnp.zeros([])), self._batches, *arguments))

    def _added(self, add: Callable[..., Any], sums: Any, batches: Iterable[Any], *arguments: Tree) -> Any:
        for batch in batches:
            sums = jax.block_until_ready(add(sums, batch, *arguments))
        return sums


class Linearised:
    """An objective at parameters, with the linear map from vectors to Hessian-vector products as far as it is kept.

    Attributes:
        value: the mean loss; it may be infinite or not a number.
        gradient: its gradient.
        kept: bytes of what is kept.
    """

    def __init__(self, objective: Objective, params: Tree, most_bytes: int) -> None:
        self._objective, self._params = objective, params
        self._derivatives: list[tuple[Callable[[Tree], Tree], jax.Array]] = []  # with the batch's weight
        self.kept = 0
        sums = (jnp.zeros([]), jax.tree.map(jnp.zeros_like, params)), jnp.zeros([])
        for batch in objective._batches:  # the first ones are kept
            needed = _bytes(objective._linearise.eval_shape(params, batch)[1])
            if self.kept + needed > most_bytes:
                break
            gradient, derivative, (value, weight) = objective._linearise(params, batch)
            sums = jax.block_until_ready(objective._add(sums, ((value, gradient), weight)))
            self._derivatives.append((derivative, weight))
            self.kept += needed
        sums = objective._added(objective._add_value_and_gradient, sums, self._others(), params)
        value, self.gradient = _over_weight(sums)
        self.value = float(value)

    def product(self, vector: Tree) -> Tree:
        """As `Objective.product`; the same values but for rounding."""
        objective = self._objective
        sums = jax.tree.map(jnp.zeros_like, self._params), jnp.zeros([])
        sums = objective._added(objective._add_linear_product, sums, self._derivatives, vector)
        return _over_weight(objective._added(objective._add_product, sums, self._others(), self._params, vector))

    def _others(self) -> Iterable[Any]:
        """The batches of which nothing is kept."""
        return islice(self._objective._batches, len(self._derivatives), None)


def _bytes(tree: Tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _over_weight(sums: tuple[Tree, jax.Array]) -> Tree:
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
