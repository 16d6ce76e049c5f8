"""Slices of the loss: along a line, over a plane, in directions that can be compared between networks."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxfood.errors import UserError
from jaxfood.landscape.objective import Tree
from jaxfood.landscape.point import Point


def loss_slice(
    point: Point,
    directions: Sequence[np.ndarray],
    axes: Sequence[Sequence[float] | np.ndarray],
    on_loss: Callable[[], None] | None = None,
    known: Mapping[tuple[float, ...], float] | None = None,
) -> np.ndarray:
    """The loss at the point plus every combination of steps along the directions.

    Args:
        point: the slice's origin.
        directions: vectors `[size]`: eigenvectors, `filter_normalised` ones, or the way to other parameters,
            `point.flat(others) - point.flat(point.params)`.
        axes: the steps along each direction, in units of its length.
        on_loss: called after every loss, for a progress bar.
        known: losses by their steps, which are not computed again.

    Returns:
        The losses, an axis for each direction; infinite or not a number where the loss is.
    """
    loss_at, known = point.losses_along(directions), known or {}
    losses = []
    for steps in itertools.product(*axes):
        if steps in known:
            losses.append(known[steps])
            continue
        losses.append(loss_at(steps))
        if on_loss is not None:
            on_loss()
    return np.array(losses).reshape([len(axis) for axis in axes])


def filter_normalised(point: Point, seed: int, filter_axis: int) -> np.ndarray:
    """A random direction whose every filter is as long as the parameters' own (Li et al. 2018).

    Networks that differ only in the scale of their filters, which BatchNorm takes out again, then look the same.
    Vectors (biases, BatchNorm's parameters) have no filters: the direction is 0 there, as in the paper's pictures.

    Args:
        point: whose parameters give the lengths.
        seed: of the random direction.
        filter_axis: the axis of a leaf that counts its filters: -1 for Flax's kernels, 0 for PyTorch's weights.

    Raises:
        UserError: no leaf has two axes or more.
    """
    rng = np.random.default_rng(seed)

    def normalised(leaf: jax.Array) -> np.ndarray:
        weights = np.asarray(leaf)
        if weights.ndim < 2:
            return np.zeros_like(weights)
        noise = rng.standard_normal(weights.shape, weights.dtype.type)
        others = tuple(set(range(weights.ndim)) - {filter_axis % weights.ndim})
        lengths = [np.sqrt(np.sum(np.square(a), axis=others, keepdims=True)) for a in (weights, noise)]
        return noise * (lengths[0] / lengths[1])

    direction: Tree = jax.tree.map(normalised, point.params)
    if all(np.ndim(leaf) < 2 for leaf in jax.tree.leaves(direction)):
        raise UserError("no parameter has filters, a kernel's two axes or more: take eigenvectors as directions")
    return point.flat(direction)
