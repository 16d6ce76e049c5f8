"""A loss at given parameters: value, gradient and Hessian, in flat vectors."""

from collections.abc import Callable, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfood.errors import UserError
from jaxfood.landscape.objective import Linearised, Objective, Tree


class Point:
    """An objective at given parameters.

    A vector here is a NumPy array `[size]` of the parameters' type, in the order of `ravel_pytree`; `flat` and `tree`
    go from parameter trees to vectors and back.

    Args:
        objective: the loss.
        params: a tree of float32 or float64 arrays (float64 under `jax.enable_x64`).
        on_product: called after every Hessian-vector product, for a progress bar.
        kept_gib: memory for what products need of the gradient, see `Objective.linearised`; 0: nothing is kept.

    Raises:
        UserError: there are no parameters, or one has another type.
    """

    def __init__(
        self,
        objective: Objective,
        params: Tree,
        on_product: Callable[[], None] | None = None,
        kept_gib: float = 0.0,
    ) -> None:
        _check_types(params)
        self.objective = objective
        self.params = params
        origin, self.tree = ravel_pytree(params)
        self.products = 0  # Hessian-vector products so far
        self._origin = np.asarray(origin)
        self._on_product = on_product
        self._kept_bytes = int(kept_gib * 2**30)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._origin.size

    @property
    def dtype(self) -> np.dtype:
        """The vectors' type."""
        return self._origin.dtype

    @cached_property
    def _loss_and_gradient(self) -> tuple[float, np.ndarray]:
        if self._kept_bytes:
            loss, gradient = self._linearised.value, np.asarray(ravel_pytree(self._linearised.gradient)[0])
        else:
            loss, gradient = self.loss_and_gradient_at(np.zeros_like(self._origin))
        if not np.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at these parameters: take others, an earlier checkpoint's for instance"
            )
        return loss, _finite(gradient, "gradient")

    @cached_property
    def _linearised(self) -> Linearised:
        return self.objective.linearised(self.params, self._kept_bytes)

    @property
    def loss(self) -> float:
        """The loss.

        Raises:
            UserError: it, or the gradient, is infinite or not a number.
        """
        return self._loss_and_gradient[0]

    @property
    def gradient(self) -> np.ndarray:
        """The gradient; raises as `loss`."""
        return self._loss_and_gradient[1]

    def product(self, vector: np.ndarray) -> np.ndarray:
        """The Hessian times a vector, an array of its own.

        Raises:
            UserError: it is infinite or not a number.
        """
        along = self.tree(jnp.asarray(vector, self.dtype))
        tree = self._linearised.product(along) if self._kept_bytes else self.objective.product(self.params, along)
        self.products += 1
        if self._on_product is not None:
            self._on_product()
        return _finite(np.array(ravel_pytree(tree)[0]), "Hessian's product")

    @cached_property
    def hessian(self) -> np.ndarray:
        """The whole Hessian `[size, size]` in float64, by as many products as there are parameters."""
        rows = [self.product(row) for row in np.eye(self.size, dtype=self.dtype)]
        return np.stack(rows).astype(np.float64)

    def moved(self, displacement: np.ndarray) -> Tree:
        """The parameters plus a vector, as a tree."""
        moved: Tree = self.tree(jnp.asarray(self._origin + np.asarray(displacement, self.dtype)))
        return moved

    def loss_at(self, displacement: np.ndarray) -> float:
        """The loss at the parameters plus a vector; it may be infinite or not a number."""
        return self.objective.value(self.moved(displacement))

    def losses_along(self, directions: Sequence[np.ndarray]) -> Callable[[Sequence[float]], float]:
        """The loss as a function of steps along directions `[size]`, which are copied to the device once."""
        origin = jnp.asarray(self._origin)
        arrays = [jnp.asarray(direction, self.dtype) for direction in directions]

        def loss(steps: Sequence[float]) -> float:
            taken = [jnp.asarray(step, self.dtype) for step in steps]
            return self.objective.value(self._moved(origin, list(zip(taken, arrays, strict=True))))

        return loss

    @cached_property
    def _moved(self) -> Callable[..., Tree]:
        """Compiled: an origin and steps with their directions to a tree of parameters."""
        return jax.jit(lambda origin, along: self.tree(origin + sum(step * array for step, array in along)))

    def loss_and_gradient_at(self, displacement: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient `[size]` there; they may be infinite or not a number."""
        loss, gradient = self.objective.value_and_gradient(self.moved(displacement))
        return loss, np.asarray(ravel_pytree(gradient)[0])

    def flat(self, tree: Tree) -> np.ndarray:
        """A tree of the parameters' form as a vector.

        Raises:
            UserError: it has another form.
        """
        forms = [jax.tree.map(np.shape, t) for t in (tree, self.params)]
        if forms[0] != forms[1]:
            raise UserError("the tree has other leaves or shapes than the parameters: give one of the same model")
        return np.asarray(ravel_pytree(tree)[0], self.dtype)


def _check_types(params: Tree) -> None:
    leaves = jax.tree.leaves_with_path(params)
    if not sum(np.size(leaf) for _, leaf in leaves):
        raise UserError("there are no parameters: give a tree that has at least one")
    for path, leaf in leaves:
        dtype = jnp.asarray(leaf).dtype
        if dtype not in (np.float32, np.float64):
            raise UserError(f"parameter {jax.tree_util.keystr(path)} has type {dtype}: give float32 or float64")


def _finite(vector: np.ndarray, name: str) -> np.ndarray:
    if not np.all(np.isfinite(vector)):
        raise UserError(f"the {name} is not finite at these parameters: take others, where the loss is smooth")
    return vector
