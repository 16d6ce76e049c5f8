"""What the search for the ends of the spectrum tells of all of it, so that nothing is measured twice.

The Lanczos vectors from a random start are a row of the spectral density, as good as any other and longer than most.
They also hold the trace over their span, where the largest eigenvalues lie; outside it the random vectors of the
density's other rows tell it, by the first product of each. So ends, density and trace of the notes' network take half
the products that they take apart.
"""

from dataclasses import dataclass

import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape.expansion import inner
from jaxfood.landscape.lanczos import Krylov
from jaxfood.landscape.point import Point
from jaxfood.landscape.spectrum import (
    Density,
    Eigenpairs,
    Estimate,
    extreme_eigenvalues,
    padded,
    quadrature,
    random_signs,
    spectral_density,
    standard_error,
    trace,
)


@dataclass(frozen=True)
class ByProduct:
    """What the Lanczos vectors of the ends leave behind.

    Attributes:
        nodes: `[k]`, ascending, of the start's spectrum.
        weights: `[k]`, which sum to 1.
        trace_inside: over the span of the vectors.
        forms_inside: `[m]`, of each random vector that is to come: what goes of its quadratic form when its part in
            that span is taken off.
    """

    nodes: np.ndarray
    weights: np.ndarray
    trace_inside: float
    forms_inside: np.ndarray


def ends_with_by_product(point: Point, settings: SpectrumSettings) -> tuple[Eigenpairs, ByProduct | None]:
    """As `extreme_eigenvalues`, and what it tells beside the ends; None for a small problem, where all is exact."""
    told: list[ByProduct] = []
    pairs = extreme_eigenvalues(
        point, settings, on_vectors=lambda krylov: told.append(by_product_of(krylov, point, settings))
    )
    return pairs, told[0] if told else None


def density_by(by_product: ByProduct | None, point: Point, settings: SpectrumSettings) -> Density:
    """As `spectral_density`, whose first row is that of the ends: `(probes - 1) steps` products."""
    if by_product is None:
        return spectral_density(point, settings)
    rows = [(by_product.nodes, by_product.weights)]
    rows += [
        quadrature(point, _probe(point, settings, number), settings.steps) for number in range(settings.probes - 1)
    ]
    length = max(len(nodes) for nodes, _ in rows)
    nodes, weights = (np.stack(parts) for parts in zip(*(padded(*row, length) for row in rows), strict=True))
    return Density(nodes, weights, exact=False)


def trace_by(by_product: ByProduct | None, density: Density, point: Point, settings: SpectrumSettings) -> Estimate:
    """As `trace`, from the span of the ends and the random vectors of the density; `trace_products` more."""
    if by_product is None:
        return trace(point, settings)
    forms = list(point.size * np.sum(density.weights[1:] * density.nodes[1:], axis=1))  # each vector has length^2 size
    for number in range(len(forms), len(by_product.forms_inside)):
        probe = _probe(point, settings, number)
        forms.append(inner(probe, point.product(probe)))
    outside = np.array(forms) - by_product.forms_inside
    return Estimate(by_product.trace_inside + float(outside.mean()), standard_error(outside))


def by_product_of(krylov: Krylov, point: Point, settings: SpectrumSettings) -> ByProduct:
    """What Lanczos vectors from a random start tell; for `extreme_eigenvalues`' `on_vectors`."""
    ritz = krylov.ritz()
    probes = range(settings.probes - 1 + settings.trace_products)
    forms = [krylov.form_inside(_probe(point, settings, number)) for number in probes]
    return ByProduct(ritz.values, ritz.coordinates[0] ** 2, krylov.trace(), np.array(forms))


def _probe(point: Point, settings: SpectrumSettings, number: int) -> np.ndarray:
    """Of random signs; made anew when it is wanted, as each takes as much memory as the parameters."""
    return random_signs(point, np.random.default_rng([settings.seed, number]))
