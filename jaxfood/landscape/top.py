"""The k largest eigenpairs, from the Lanczos vectors of a survey or on their own."""

from typing import NamedTuple

import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape.expansion import unit
from jaxfood.landscape.lanczos import Krylov
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import extreme_eigenvalues, lanczos_vectors
from jaxfood.landscape.verdict import Eigenvalue


class TopEigenpairs(NamedTuple):
    """The largest eigenvalues, descending.

    Attributes:
        values: `[k]`.
        vectors: `[k, size]`, orthonormal.
        residuals: `[k]`, ||H v - value v||: an eigenvalue lies so near.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray


def top_of_krylov(krylov: Krylov, count: int) -> TopEigenpairs:
    """As many as these Lanczos vectors tell of, settled or not, which the residuals say; no product."""
    ritz = krylov.ritz()
    taken = np.arange(krylov.size)[::-1][:count]
    vectors = krylov.combine(ritz.coordinates[:, taken])
    for row, vector in enumerate(vectors):
        vectors[row] = unit(vector)
    return TopEigenpairs(ritz.values[taken], vectors, ritz.residuals[taken])


def largest_eigenvalue(point: Point, settings: SpectrumSettings) -> Eigenvalue:
    """The largest alone, to the accuracy of `settings` if its products allow it: fewer than both ends take."""
    if point.size <= settings.dense_size:
        top = top_eigenpairs(point, settings, 1)
        return Eigenvalue(float(top.values[0]), float(top.residuals[0]))
    start = np.random.default_rng(settings.seed).standard_normal(point.size, point.dtype.type)
    krylov = Krylov(point.product, start, min(settings.max_products, lanczos_vectors(point, settings)))
    while True:
        krylov.extend()
        ritz = krylov.ritz()
        found = Eigenvalue(float(ritz.values[-1]), float(ritz.residuals[-1]))
        if krylov.full or (krylov.size > 3 and found.residual <= settings.accuracy * abs(found.value)):
            return found


def top_eigenpairs(point: Point, settings: SpectrumSettings, count: int) -> TopEigenpairs:
    """The `count` largest, each to the accuracy of `settings` if its products allow it; all of a smaller problem."""
    pairs = extreme_eigenvalues(point, settings, count)
    taken = np.arange(len(pairs.values))[::-1][:count]
    return TopEigenpairs(pairs.values[taken], pairs.vectors[taken], pairs.residuals[taken])
