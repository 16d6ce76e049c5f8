"""The Hessian's trace, whole and by layer, from the same products; the gradient's share in a few directions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape.changed import layers_of
from jaxfood.landscape.expansion import inner
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import Estimate

Sums = Callable[[np.ndarray, np.ndarray], np.ndarray]  # inner products of two vectors, one for each layer


class LayerTraces(NamedTuple):
    """The trace, and how much of it each layer's block has; these add up to it."""

    total: Estimate
    layers: Mapping[str, Estimate]


def trace_by_layer(point: Point, settings: SpectrumSettings) -> LayerTraces:
    """The sum of all eigenvalues and that of each layer's block of the Hessian, by Hutch++ (Meyer et al. 2021).

    With P the projection on the span of a few products, H = P H + (1 - P) H P + (1 - P) H (1 - P). The diagonals of the
    first two are known from the span's own products, the last one's sum over a layer is the mean of z . (1 - P) H
    (1 - P) z there, over random signs z. No product is made for a layer alone: they are those of `trace`.

    Raises:
        UserError: the parameters are no dictionary of layers.
    """
    layers = layers_of(point)

    def sums(vector: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.array([inner(vector[at], other[at]) for at in layers.values()])

    if point.size <= max(settings.dense_size, settings.trace_products):
        known, samples = sums(np.diag(point.hessian), np.ones(point.size)), np.zeros((1, len(layers)))
    else:
        known, samples = _hutch(point, settings, sums)
    names = (*layers, "")
    values = np.append(known, known.sum()) + np.append(samples.mean(0), samples.sum(1).mean())
    deviations = np.append(samples, samples.sum(1, keepdims=True), axis=1).std(0, ddof=1 if len(samples) > 1 else 0)
    found = {
        name: Estimate(float(value), float(deviation / np.sqrt(len(samples))))
        for name, value, deviation in zip(names, values, deviations, strict=True)
    }
    return LayerTraces(found.pop(""), found)


def gradient_shares(point: Point, vectors: np.ndarray) -> np.ndarray:
    """How much of the squared gradient lies in the span of the first, the first two, ... of orthonormal vectors.

    After some training most of it lies in that of as many top eigenvectors as there are classes (Gur-Ari et al. 2018,
    arXiv 1812.04754). At a gradient of 0 all shares are 0.

    Args:
        point: where.
        vectors: `[k, size]`.

    Returns:
        `[k]`, none beyond 1.
    """
    squares = np.array([inner(vector, point.gradient) ** 2 for vector in vectors])
    whole = inner(point.gradient, point.gradient)
    return np.minimum(np.cumsum(squares) / whole, 1.0) if whole else np.zeros(len(vectors))


def _hutch(point: Point, settings: SpectrumSettings, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """What is known of each layer's trace `[layers]`, and samples of the rest `[samples, layers]`."""
    rng = np.random.default_rng(settings.seed)
    sketched = max(1, (settings.trace_products - 2) // 3)
    sketch = np.stack([point.product(_signs(point, rng)) for _ in range(sketched)])
    span = np.linalg.qr(sketch.T)[0].T
    del sketch  # its memory
    known, samples = 0.0, []
    for vector in span:
        product = point.product(vector)
        known = known + sums(vector, product) + sums(vector, product - (span @ product) @ span)
    for _ in range(settings.trace_products - 2 * sketched):
        signs = _signs(point, rng)
        product = point.product(signs - (span @ signs) @ span)
        samples.append(sums(signs, product - (span @ product) @ span))
    return np.asarray(known), np.stack(samples)


def _signs(point: Point, rng: np.random.Generator) -> np.ndarray:
    return (2 * rng.integers(0, 2, point.size, np.int8) - 1).astype(point.dtype)
