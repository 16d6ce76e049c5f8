"""The k largest eigenpairs, from the Lanczos vectors of a survey or on their own."""

from typing import NamedTuple

import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape.expansion import unit
from jaxfood.landscape.lanczos import Krylov
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import extreme_eigenvalues


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
    vectors = np.stack([unit(vector) for vector in krylov.combine(ritz.coordinates[:, taken])])
    return TopEigenpairs(ritz.values[taken], vectors, ritz.residuals[taken])


def top_eigenpairs(point: Point, settings: SpectrumSettings, count: int) -> TopEigenpairs:
    """The `count` largest, each to the accuracy of `settings` if its products allow it; all of a smaller problem."""
    pairs = extreme_eigenvalues(point, settings, count)
    taken = np.arange(len(pairs.values))[::-1][:count]
    return TopEigenpairs(pairs.values[taken], pairs.vectors[taken], pairs.residuals[taken])
