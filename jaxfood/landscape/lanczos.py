"""Lanczos with full orthogonalisation and thick restarts (Wu and Simon 2000), for a symmetric product with vectors.

SciPy's `eigsh` measures an eigenvalue's error against the eigenvalue itself, so that it ends in an exception, without
the vectors, where the smallest one is zero: at every minimum with a flat valley. Here the caller decides when to stop,
both ends come from the same products, and what is known is never lost.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_COLUMNS = 1 << 18  # entries of each vector combined at a time in a restart: a small temporary


class Ritz(NamedTuple):
    """Approximate eigenvalues, ascending, with what the projection tells of them."""

    values: np.ndarray  # [k]
    coordinates: np.ndarray  # [k, k], a column for each value: its vector in the Krylov vectors
    residuals: np.ndarray  # [k], ||H v - value v||


class Krylov:
    """Orthonormal vectors spanned by a start and its repeated products, and the operator as they see it.

    Args:
        product: a symmetric operator on vectors `[n]`; returns an array that may be changed.
        start: `[n]`, not zero; its type is the vectors'.
        capacity: how many vectors are kept, 1 more than that in memory.
    """

    def __init__(self, product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, capacity: int) -> None:
        self._product = product
        self._vectors = np.empty((capacity + 1, start.size), start.dtype)
        self._vectors[0] = start / np.linalg.norm(start)
        self._projection = np.zeros((capacity, capacity))
        self._remainder = math.inf  # length of what the last product had outside the span
        self._kept = 0  # vectors that the last restart left
        self.size = 0

    def extend(self) -> None:
        """Add one vector: one product."""
        k, known = self.size, self._vectors[: self.size + 1]
        new = self._product(self._vectors[k])
        # But for rounding a product lies in the span of the last two vectors and what is new, and the first one after
        # a restart in that of all. Reading all vectors costs a fourth of a product of the notes' network, for forty.
        first = 0 if k == self._kept else k - 1
        components = np.zeros(k + 1)
        components[first:] = known[first:] @ new
        new -= components[first:].astype(new.dtype) @ known[first:]
        for _ in range(2):  # rounding errors would grow; a second time only where the first found more than those
            rest = known @ new
            new -= rest @ known
            components += rest
            self._remainder = float(np.linalg.norm(new))
            if np.linalg.norm(rest) <= 0.1 * self._remainder:
                break
        self._projection[k, : k + 1] = self._projection[: k + 1, k] = components
        self.size += 1
        if not self.invariant:
            self._vectors[k + 1] = new / self._remainder

    @property
    def full(self) -> bool:
        """No vector can be added."""
        return self.size == len(self._projection) or self.invariant

    @property
    def invariant(self) -> bool:
        """The span is mapped into itself, to rounding: every eigenvalue that the start has a part in is known."""
        if self.size == self._vectors.shape[1]:
            return True
        scale = np.abs(self._projection[: self.size, : self.size]).max(initial=0)
        return self._remainder <= np.finfo(self._vectors.dtype).eps * scale

    def ritz(self) -> Ritz:
        """The projection's eigenvalues."""
        values, coordinates = np.linalg.eigh(self._projection[: self.size, : self.size])
        return Ritz(values, coordinates, self._remainder * np.abs(coordinates[-1]))

    def combine(self, coordinates: np.ndarray) -> np.ndarray:
        """The vectors `[m, n]` of coordinates `[size, m]`."""
        return coordinates.T.astype(self._vectors.dtype) @ self._vectors[: self.size]

    def restart(self, ritz: Ritz, kept: np.ndarray) -> None:
        """Go on with these of the Ritz vectors alone, and the vector that would have come next."""
        mixture = ritz.coordinates[:, kept].T.astype(self._vectors.dtype)
        for start in range(0, self._vectors.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            self._vectors[: len(kept), columns] = mixture @ self._vectors[: self.size, columns]
        self._vectors[len(kept)] = self._vectors[self.size]
        self._projection[:] = 0
        np.fill_diagonal(self._projection[: len(kept), : len(kept)], ritz.values[kept])
        self.size = self._kept = len(kept)

    def trace(self) -> float:
        """The operator's over the span."""
        return float(np.trace(self._projection[: self.size, : self.size]))

    def form_inside(self, vector: np.ndarray) -> float:
        """How much of a vector's quadratic form goes when its part in the span is taken off; no product.

        With c its coordinates, r the remainder and d its coordinate along the vector that would come next,
        z.Hz - z'.Hz' = c.Tc + 2 r c_k d, as H V = V T + r v_next e_k' (not after a restart).
        """
        along = (self._vectors[: self.size + 1] if not self.invariant else self._vectors[: self.size]) @ vector
        coordinates = along[: self.size].astype(np.float64)
        inside = float(coordinates @ self._projection[: self.size, : self.size] @ coordinates)
        return inside + (0.0 if self.invariant else 2 * self._remainder * float(coordinates[-1]) * float(along[-1]))


def unseen_fraction(size: int, vectors: int, probability: float) -> float:
    """How far beyond Lanczos' extreme values eigenvalues may lie, as a fraction of the whole spectrum's width.

    It holds at both ends together, but for `probability`. From a start drawn uniformly from the sphere, `vectors`
    Krylov vectors miss more than a fraction e at one end with probability at most
    1.648 sqrt(n) exp(-sqrt(e) (2 vectors - 1)) (Kuczynski and Wozniakowski 1992): each end is given half of it.
    """
    at_one_end = probability / 2
    return (max(0.0, math.log(1.648 * math.sqrt(size) / at_one_end)) / (2 * vectors - 1)) ** 2
