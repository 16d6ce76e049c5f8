"""What is measured at a run's parameters, and how many Hessian-vector products and losses that takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxfood.config.landscape import LandscapeConfig
from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures
from jaxfood.landscape import (
    Density,
    Eigenpairs,
    Estimate,
    Interval,
    Point,
    Sharpness,
    TopEigenpairs,
    Verdict,
    expand_downhill,
    extreme_eigenvalues,
    filter_normalised,
    gradient_rounding,
    gradient_shares,
    judge,
    lanczos_vectors,
    loss_slice,
    minimum_ratio,
    sharpness,
    spectral_density,
    top_eigenpairs,
    top_of_krylov,
    trace,
)
from jaxfood.run_landscape.objective import make_point

LINE_STEPS, PLANE_STEPS = 21, 11  # of a slice along a line, and along each side of a plane
SLICE_LOSSES = 3 * LINE_STEPS + PLANE_STEPS**2  # three lines and a plane
ASCENT_STEPS = 5


@dataclass(frozen=True)
class TopShares:
    """The largest eigenvalues, descending, and how much of the squared gradient lies in the span of the first ones.

    Attributes:
        values: `[k]`.
        residuals: `[k]`, how near to each an eigenvalue lies.
        gradient_shares: `[k]`.
    """

    values: np.ndarray
    residuals: np.ndarray
    gradient_shares: np.ndarray


@dataclass(frozen=True)
class PointReport:
    """The kind of point that a checkpoint is, the numbers that the verdict rests on, the largest eigenvalues."""

    verdict: Verdict
    gradient_norm: float
    pairs: Eigenpairs
    top: TopShares | None = None


@dataclass(frozen=True)
class LocalGeometry:
    """The loss in a neighbourhood of the point.

    Attributes:
        trace: of the Hessian.
        density: of its spectrum.
        minimum_ratio: the fraction of positive eigenvalues.
        sharpness: the worst rise in the ball of `landscape.radius`.
        lines: by direction: steps `[21]` and the losses there `[21]`.
        plane: steps along the largest and the smallest eigenvalue's vector `[11]` each, losses `[11, 11]`.
    """

    trace: Estimate
    density: Density
    minimum_ratio: Interval
    sharpness: Sharpness
    lines: dict[str, tuple[np.ndarray, np.ndarray]]
    plane: tuple[np.ndarray, np.ndarray, np.ndarray]


def landscape_metrics(config: Config, variables: dict[str, Any], pictures: Pictures) -> dict[str, float]:
    """Gradient and both ends of the spectrum, as a training's metrics.jsonl has them.

    The notes: training mostly stops long before it comes to a critical point.

    Args:
        config: `model`, `loss` and `landscape` are read.
        variables: `{"params": ..., "batch_stats": ...}`, on one device.
        pictures: those that the loss is taken on; the same ones every time make the numbers comparable.

    Raises:
        UserError: the loss, its gradient or its second derivative is not finite here.
    """
    report = classify(make_point(config, variables, pictures), config.landscape)
    return {
        "landscape_gradient_norm": report.gradient_norm,
        "landscape_promised_decrease": report.verdict.downhill.decrease,
        "landscape_largest_eigenvalue": report.verdict.largest.value,
        "landscape_smallest_eigenvalue": report.verdict.smallest.value,
    }


def classify(point: Point, settings: LandscapeConfig, top: int = 0) -> PointReport:
    """Not critical, a minimum, a maximum, a saddle or degenerate; raises as `landscape_metrics`.

    With `top` also so many of the largest eigenvalues, from the same products.
    """
    gradient_norm = float(np.linalg.norm(point.gradient.astype(np.float64)))
    found: list[TopEigenpairs] = []
    pairs = extreme_eigenvalues(point, settings, on_vectors=lambda krylov: found.append(top_of_krylov(krylov, top)))
    verdict = judge(expand_downhill(point), pairs, settings, gradient_rounding(point, pairs))
    if not top:
        return PointReport(verdict, gradient_norm, pairs)
    largest = found[0] if found else top_eigenpairs(point, settings, top)
    shares = TopShares(largest.values, largest.residuals, gradient_shares(point, largest.vectors))
    return PointReport(verdict, gradient_norm, pairs, shares)


def measure_geometry(
    point: Point, report: PointReport, settings: LandscapeConfig, on_loss: Callable[[], Any] | None = None
) -> LocalGeometry:
    """Spectrum, sharpness and slices; `on_loss` is called after each of the slices' `SLICE_LOSSES` losses."""
    density = spectral_density(point, settings)
    vectors = report.pairs.vectors[-1], report.pairs.vectors[0]
    reaches = [_reach(point.loss, report.pairs.values[end]) for end in (-1, 0)]
    random = filter_normalised(point, settings.seed, filter_axis=-1)
    names = ("largest eigenvalue's vector", "smallest eigenvalue's vector", "random, filter-normalised")
    lines = {}
    for name, direction, reach in zip(names, (*vectors, random), (*reaches, 1.0), strict=True):
        steps = reach * np.linspace(-1, 1, LINE_STEPS)
        lines[name] = steps, loss_slice(point, [direction], [steps], on_loss)
    axes = [reach * np.linspace(-1, 1, PLANE_STEPS) for reach in reaches]
    plane = loss_slice(point, vectors, axes, on_loss)
    return LocalGeometry(
        trace=trace(point, settings),
        density=density,
        minimum_ratio=minimum_ratio(density, report.verdict.threshold),
        sharpness=sharpness(point, report.pairs, settings.radius, ASCENT_STEPS),
        lines=lines,
        plane=(axes[0], axes[1], plane),
    )


def _reach(loss: float, eigenvalue: float) -> float:
    """How far a slice goes: where the curvature alone would change the loss by as much as it is."""
    return math.sqrt(2 * max(abs(loss), 1e-6) / max(abs(float(eigenvalue)), 1e-6))


def planned_products(point: Point, settings: LandscapeConfig, *, geometry: bool) -> int:
    """About how many Hessian-vector products `classify` takes, and with `geometry` `measure_geometry` too."""
    if point.size <= settings.dense_size:
        return point.size
    ends = lanczos_vectors(point, settings)
    return ends + settings.trace_products + settings.probes * settings.steps if geometry else ends


def measure_seconds(point: Point) -> tuple[float, float]:
    """Of one Hessian-vector product and of one loss, once they are compiled; raises as `landscape_metrics`."""
    _ = point.loss
    probe = np.ones(point.size, point.dtype)
    return _second_call(lambda: point.product(probe)), _second_call(lambda: point.loss_at(probe))


def _second_call(work: Callable[[], Any]) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
