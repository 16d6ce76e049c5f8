"""The Hessian's spectrum: extreme eigenvalues, trace, density, and the fraction of positive eigenvalues.

A small problem's is exact, from the whole matrix; a large one's comes from products with vectors, with its errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape.expansion import inner, unit
from jaxfood.landscape.lanczos import Krylov, Ritz, unseen_fraction
from jaxfood.landscape.point import Point

_CHECKED = 10  # products between two looks at what Lanczos has settled


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenvalues of both ends, ascending, each with its vector.

    Attributes:
        values: `[k]`.
        vectors: `[k, size]`, of length 1.
        residuals: `[k]`, ||H v - value v||: an eigenvalue lies so near.
        exact: they come from the whole matrix.
        settled: every residual is as small as was asked for.
        unseen: eigenvalues may lie so far beyond the ends without having been found; that one lies further out, at
            whichever end, has at most the probability `miss_probability`. 0 where none can.
        products: how many it took.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    exact: bool
    settled: bool
    unseen: float
    products: int


def extreme_eigenvalues(
    point: Point,
    settings: SpectrumSettings,
    count: int = 1,
    on_vectors: Callable[[Krylov], None] | None = None,
) -> Eigenpairs:
    """The `count` smallest and the `count` largest eigenvalues; all where there are no more than that.

    Args:
        point: where.
        settings: how much is spent.
        count: at each end.
        on_vectors: called once with the Lanczos vectors from a random start, before a restart mixes them; not for a
            small problem.
    """
    before = point.products
    if point.size <= settings.dense_size:
        values, vectors, residuals = _dense_ends(point.hessian, count)
        return Eigenpairs(values, vectors.astype(point.dtype), residuals, True, True, 0.0, point.products - before)

    krylov, unseen = _lanczos(point, settings, count, on_vectors or (lambda _: None))
    ritz = krylov.ritz()
    ends = _ends(krylov.size, count)
    vectors = np.stack([unit(vector) for vector in krylov.combine(ritz.coordinates[:, ends])])
    settled = bool(np.all(_settled(ritz, settings)[ends]))
    del krylov  # its memory
    values, residuals = np.array([_rayleigh(point, vector) for vector in vectors]).T
    order = np.argsort(values)
    taken = point.products - before
    return Eigenpairs(values[order], vectors[order], residuals[order], False, settled, unseen, taken)


def lanczos_vectors(point: Point, settings: SpectrumSettings, count: int = 1) -> int:
    """How many are kept for `count` eigenvalues at each end: what `memory_gib` allows, from 20 to 200."""
    affordable = int(settings.memory_gib * 2**30) // (point.size * point.dtype.itemsize)
    return min(point.size, max(20, 4 * count, min(200, affordable)))


def _dense_ends(hessian: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, columns = np.linalg.eigh((hessian + hessian.T) / 2)
    ends = _ends(len(values), count)
    values, vectors = values[ends], columns[:, ends].T
    return values, vectors, np.linalg.norm(vectors @ hessian - values[:, None] * vectors, axis=1)


def _lanczos(
    point: Point, settings: SpectrumSettings, count: int, on_vectors: Callable[[Krylov], None]
) -> tuple[Krylov, float]:
    """Krylov vectors that settle both ends or cost all products allowed, and `Eigenpairs.unseen`.

    Where all eigenvalues found have one sign, one missed might have the other: then all vectors are used.
    """
    limit = point.products + settings.max_products
    start = np.random.default_rng(settings.seed).standard_normal(point.size, point.dtype.type)
    krylov = Krylov(point.product, start, lanczos_vectors(point, settings, count))
    vectors, restarted = 0, False
    while True:
        krylov.extend()
        vectors = vectors if restarted else krylov.size
        exhausted = krylov.invariant or point.products >= limit
        if not (exhausted or krylov.full or krylov.size % _CHECKED == 0):
            continue
        ritz = krylov.ritz()
        margin = settings.floor * np.abs(ritz.values).max()
        enough = restarted or krylov.full or (ritz.values[0] < -margin and ritz.values[-1] > margin)
        if exhausted or (enough and np.all(_settled(ritz, settings)[_ends(krylov.size, count)])):
            break
        if krylov.full:
            if not restarted:
                on_vectors(krylov)
            krylov.restart(ritz, _ends(krylov.size, max(count, 3 * krylov.size // 8)))
            restarted = True
    if not restarted:
        on_vectors(krylov)
    if krylov.invariant:
        return krylov, 0.0
    # Restarts only improve on the first vectors, for which the bound holds. The whole spectrum is wider than what was
    # found of it by at most this fraction at each end.
    fraction = unseen_fraction(point.size, vectors, settings.miss_probability)
    return krylov, float(np.ptp(ritz.values)) * fraction / (1 - 2 * fraction) if fraction < 0.5 else math.inf


def _settled(ritz: Ritz, settings: SpectrumSettings) -> np.ndarray:
    sizes = np.abs(ritz.values)
    return ritz.residuals <= np.maximum(settings.accuracy * sizes, settings.floor * sizes.max())


def _ends(size: int, count: int) -> np.ndarray:
    """The first and the last `count` of so many indices, each once."""
    return np.unique(np.r_[: min(count, size), max(0, size - count) : size])


def _rayleigh(point: Point, vector: np.ndarray) -> tuple[float, float]:
    """The eigenvalue of an eigenvector, and the residual, by a product that Lanczos has no part in."""
    product = point.product(vector)
    value = inner(vector, product)
    return value, float(np.linalg.norm(product.astype(np.float64) - value * vector.astype(np.float64)))


class Estimate(NamedTuple):
    """A number, and its standard error over random vectors (0 where it is exact)."""

    value: float
    standard_error: float


def trace(point: Point, settings: SpectrumSettings) -> Estimate:
    """The sum of all eigenvalues, by Hutch++ (Meyer et al. 2021).

    Exact on the span of a few products, where the largest eigenvalues show, and by Hutchinson's random signs outside
    it.
    """
    if point.size <= max(settings.dense_size, settings.trace_products):
        return Estimate(float(np.trace(point.hessian)), 0.0)
    rng = np.random.default_rng(settings.seed)
    sketched = max(1, (settings.trace_products - 2) // 3)
    sketch = np.stack([point.product(_signs(point, rng)) for _ in range(sketched)])
    span = np.linalg.qr(sketch.T)[0].T
    inside = sum(inner(vector, point.product(vector)) for vector in span)
    outside = []
    for _ in range(settings.trace_products - 2 * sketched):
        probe = _signs(point, rng)
        probe -= (span @ probe) @ span
        outside.append(inner(probe, point.product(probe)))
    return Estimate(inside + float(np.mean(outside)), _standard_error(np.array(outside)))


def _signs(point: Point, rng: np.random.Generator) -> np.ndarray:
    return (2 * rng.integers(0, 2, point.size, np.int8) - 1).astype(point.dtype)


class Interval(NamedTuple):
    """An estimate and the bounds between which the quantity lies, equal to it where it is exact."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Density:
    """The spectrum's density as weighted points, a row for each random vector; exact: all eigenvalues, one row.

    Attributes:
        nodes: `[probes, steps]`, ascending in each row.
        weights: `[probes, steps]`, the fraction of eigenvalues that each stands for; a row sums to 1.
        exact: whether the nodes are the eigenvalues.
    """

    nodes: np.ndarray
    weights: np.ndarray
    exact: bool

    def moment(self, power: int) -> Estimate:
        """The eigenvalues' mean k-th power; by quadrature without error for k < 2 steps."""
        rows = np.sum(self.weights * self.nodes**power, axis=1)
        return Estimate(float(rows.mean()), _standard_error(rows))

    def curve(self, grid: np.ndarray, width: float) -> np.ndarray:
        """The density at each of a grid's values, each node smoothed by a normal curve of this standard deviation."""
        distances = (np.asarray(grid)[:, None] - self.nodes.ravel()) / width
        bells = np.exp(-(distances**2) / 2) / (width * math.sqrt(2 * math.pi))
        curve: np.ndarray = bells @ self.weights.ravel() / len(self.nodes)
        return curve

    def fraction_above(self, threshold: float) -> Interval:
        """The fraction of eigenvalues above a threshold.

        The bounds are two standard errors beyond those that hold for each row: a Gauss quadrature cannot tell on which
        side of a threshold the two nodes next to it have their weight (Chebyshev, Markov, Stieltjes).
        """
        above = self.nodes > threshold
        value = float(np.mean(np.sum(self.weights * above, axis=1)))
        if self.exact:
            return Interval(value, value, value)
        below_next = np.roll(above, 1, axis=1) & above  # without the first node above
        below_next[:, 0] = False
        and_last = above | np.roll(above, -1, axis=1)  # with the last node not above
        and_last[:, -1] = True
        low, high = (np.sum(self.weights * side, axis=1) for side in (below_next, and_last))
        return Interval(
            value,
            max(0.0, float(low.mean()) - 2 * _standard_error(low)),
            min(1.0, float(high.mean()) + 2 * _standard_error(high)),
        )


def spectral_density(point: Point, settings: SpectrumSettings) -> Density:
    """All eigenvalues of a small problem; of a large one stochastic Lanczos quadrature (Ubaru et al. 2017)."""
    if point.size <= settings.dense_size:
        values = np.linalg.eigvalsh((point.hessian + point.hessian.T) / 2)
        return Density(values[None], np.full((1, point.size), 1 / point.size), exact=True)
    rng = np.random.default_rng(settings.seed)
    rows = [_quadrature(point, _signs(point, rng), settings.steps) for _ in range(settings.probes)]
    nodes, weights = (np.stack(parts) for parts in zip(*rows, strict=True))
    return Density(nodes, weights, exact=False)


def minimum_ratio(density: Density, threshold: float) -> Interval:
    """The fraction of eigenvalues above a threshold, up to which they count as zero: 1 at a local minimum.

    In the example of the lecture behind the notes (Hung-yi Lee, "Small gradient") it never passes 0.5 to 0.6.
    """
    return density.fraction_above(threshold)


def _quadrature(point: Point, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of the start's spectrum: nodes and weights `[steps]`; unused ones repeat the last, weight 0."""
    krylov = Krylov(point.product, start, min(steps, point.size))
    while not krylov.full:
        krylov.extend()
    ritz = krylov.ritz()
    missing = (0, steps - krylov.size)
    return np.pad(ritz.values, missing, mode="edge"), np.pad(ritz.coordinates[0] ** 2, missing)


def _standard_error(samples: np.ndarray) -> float:
    return float(samples.std(ddof=1) / math.sqrt(len(samples))) if len(samples) > 1 else 0.0
