"""Losses whose every critical point is known: place, loss, and all eigenvalues of the Hessian there, so its index.

The truth by which the verdicts of `jaxfood.landscape` are tested, and which lessons compare with. Each problem turns
its axes by a rotation drawn from a seed, so that no eigenvector is an axis.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.errors import UserError
from jaxfood.landscape.objective import Tree

Loss = Callable[[Tree], jax.Array]


class CriticalPoint(NamedTuple):
    """A point where the gradient is 0.

    Attributes:
        kept: numbers, from 0 on, of the directions that the network there reproduces.
        params: where.
        loss: there.
        eigenvalues: all of the Hessian's, ascending, float64.
    """

    kept: tuple[int, ...]
    params: Tree
    loss: float
    eigenvalues: np.ndarray

    @property
    def index(self) -> int:
        """How many eigenvalues are negative: the dimensions of the way down."""
        return int(np.sum(self.eigenvalues < 0))

    @property
    def nullity(self) -> int:
        """How many eigenvalues are 0."""
        return int(np.sum(self.eigenvalues == 0))


class Problem(NamedTuple):
    """A loss and its critical points: one of each family, where moving along a family changes nothing."""

    loss: Loss
    points: tuple[CriticalPoint, ...]


def quadratic(eigenvalues: Sequence[float] | np.ndarray, *, lowest: float = 1.0, seed: int = 0) -> Problem:
    """lowest + x.H x / 2 with a Hessian of these eigenvalues, at whose only critical point x is 0 (unless one is 0)."""
    values = np.sort(np.asarray(eigenvalues, np.float64))
    turn = jnp.asarray(rotation(len(values), seed))

    def loss(x: jax.Array) -> jax.Array:
        return lowest + jnp.sum(jnp.asarray(values, x.dtype) * (turn.T.astype(x.dtype) @ x) ** 2) / 2

    return Problem(loss, (CriticalPoint((), jnp.zeros(len(values)), lowest, values),))


def linear_autoencoder(variances: Sequence[float], width: int, *, seed: int = 0) -> Problem:
    """E |x - A B x|^2 / 2 for x of these variances: the whole of it is known (Baldi and Hornik 1989).

    `decoder` A is `[n, width]`, `encoder` B `[width, n]`. At every critical point A B projects on some of the principal
    directions, at most `width`; there is a family of points for each choice, by A C and C^-1 B. The loss is half the
    sum of the variances left out. With r kept of n directions i, and others j, the Hessian at the balanced one has

    - for each pair of kept i, k: 2 variance_i and 0;
    - for each i and j: the eigenvalues of [[v_i, -v_j], [-v_j, v_j]], one of them negative where v_j > v_i;
    - for each of the `width` - r idle units: v_j and -v_j for each j, and 2 r zeros.

    So the choices of the `width` largest are the minima, all equal, with width^2 zeros, and all others are saddles.

    Raises:
        UserError: the variances are not positive and different, or the width is not from 1 to their number.
    """
    values = _descending(variances, "variances")
    _check_width(width, len(values))
    turn = rotation(len(values), seed)
    covariance = turn @ np.diag(values) @ turn.T

    def loss(params: Tree) -> jax.Array:
        decoder, encoder = params["decoder"], params["encoder"]
        missing = jnp.eye(len(values), dtype=decoder.dtype) - decoder @ encoder
        return jnp.sum((missing @ covariance.astype(decoder.dtype)) * missing) / 2

    def at(kept: tuple[int, ...]) -> CriticalPoint:
        basis = np.zeros((len(values), width))
        basis[:, : len(kept)] = turn[:, kept]
        others = np.delete(values, kept)
        eigenvalues = [np.r_[np.full(len(kept), 2 * values[i]), np.zeros(len(kept))] for i in kept]
        eigenvalues += [np.linalg.eigvalsh([[values[i], -v], [-v, v]]) for i in kept for v in others]
        idle = width - len(kept)
        eigenvalues += [np.tile(np.r_[others, -others], idle), np.zeros(2 * len(kept) * idle)]
        params = {"decoder": jnp.asarray(basis), "encoder": jnp.asarray(basis.T)}
        return CriticalPoint(kept, params, float(others.sum() / 2), np.sort(np.concatenate(eigenvalues)))

    return Problem(loss, tuple(map(at, _choices(len(values), width))))


def deep_linear_network(strengths: Sequence[float], depth: int, *, seed: int = 0) -> Problem:
    """|W_depth ... W_1 - M|^2 / 2 for square layers and a matrix M of these singular values.

    Layers are `layer1`, ... of `[n, n]`. At the balanced critical points every layer has the kept directions by the
    depth-th root d of their strength s, and nothing of the others; the loss is half the sum of squares left out. With
    i kept and j not, the Hessian has

    - for each pair of kept i, k: the sum over layers of d_i^(2 (depth - l)) d_k^(2 (l - 1)), and depth - 1 zeros;
    - for each i and j: d_i^(depth - 2) (s_i - s_j) and d_i^(depth - 2) (s_i + s_j), and 2 depth - 2 zeros;
    - for each pair of j: s_j and -s_j with two layers, and nothing but zeros with more.

    With two layers all but the minima are saddles that the Hessian shows. With three or more the origin has a Hessian
    of 0, and where the strongest are kept, but not all, no eigenvalue is negative though lower losses are next to it
    (Kawaguchi 2016): second order does not tell.

    Raises:
        UserError: the strengths are not positive and different, or there are fewer than two layers.
    """
    values = _descending(strengths, "strengths")
    if depth < 2:
        raise UserError(f"depth = {depth}: a deep linear network has at least 2 layers")
    size, inside, outside = len(values), rotation(len(values), seed), rotation(len(values), seed + 1)
    target = outside @ np.diag(values) @ inside.T

    def loss(params: Tree) -> jax.Array:
        product = params["layer1"]
        for layer in range(2, depth + 1):
            product = params[f"layer{layer}"] @ product
        return jnp.sum((product - target.astype(product.dtype)) ** 2) / 2

    def at(kept: tuple[int, ...]) -> CriticalPoint:
        others = np.delete(values, kept)
        roots = values[list(kept)] ** (1 / depth)
        eigenvalues = []
        for first, second in itertools.product(roots, roots):
            layers = np.arange(1, depth + 1)
            eigenvalues += [np.sum(first ** (2 * (depth - layers)) * second ** (2 * (layers - 1)))]
        eigenvalues += [d ** (depth - 2) * (d**depth + sign * s) for d in roots for s in others for sign in (1, -1)]
        if depth == 2:
            eigenvalues += [sign * s for s in others for _ in others for sign in (1, -1)]
        zeros = np.zeros(depth * size**2 - len(eigenvalues))
        layers = {f"layer{layer}": np.diag(_scattered(roots, kept, size)) for layer in range(1, depth + 1)}
        layers["layer1"] = layers["layer1"] @ inside.T
        layers[f"layer{depth}"] = outside @ layers[f"layer{depth}"]
        params = {name: jnp.asarray(layer) for name, layer in layers.items()}
        return CriticalPoint(kept, params, float(np.sum(others**2) / 2), np.sort(np.r_[eigenvalues, zeros]))

    return Problem(loss, tuple(map(at, _choices(size, size))))


def inflection(slope: float) -> Loss:
    """lowest + slope x + x^3 / 3 + y^2 / 2 of two parameters: no critical point at all, for a positive slope.

    At 0 the gradient is (slope, 0) and the Hessian maps it to 0, so that its norm has a minimum there, where a search
    for critical points by that norm ends: a gradient-flat point (Frye et al. 2021, Neural Computation 33:1469).
    """
    return lambda x: 1 + slope * x[0] + x[0] ** 3 / 3 + x[1] ** 2 / 2


def rotation(size: int, seed: int) -> np.ndarray:
    """An orthogonal matrix `[size, size]` in float64, drawn by a seed."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def _choices(count: int, most: int) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(itertools.combinations(range(count), kept) for kept in range(most + 1))


def _scattered(values: np.ndarray, positions: tuple[int, ...], size: int) -> np.ndarray:
    whole = np.zeros(size)
    whole[list(positions)] = values
    return whole


def _descending(values: Sequence[float], name: str) -> np.ndarray:
    ordered = np.sort(np.asarray(values, np.float64))[::-1]
    if not len(ordered) or ordered[-1] <= 0 or np.any(np.diff(ordered) == 0):
        raise UserError(f"{name} are {list(values)}: give positive numbers, no two of them equal")
    return ordered


def _check_width(width: int, count: int) -> None:
    if not 1 <= width <= count:
        raise UserError(f"width = {width}: give 1 to {count}, as many as there are variances")
