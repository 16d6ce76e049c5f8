"""What is measured at a run's parameters, and how many Hessian-vector products and losses that takes."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from jaxfood.config.landscape import LandscapeConfig
from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures
from jaxfood.landscape import (
    ByProduct,
    Density,
    Eigenpairs,
    Estimate,
    Interval,
    Point,
    Sharpness,
    TopEigenpairs,
    Verdict,
    by_product_of,
    density_by,
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
    top_eigenpairs,
    top_of_krylov,
    trace_by,
)
from jaxfood.landscape.lanczos import Krylov
from jaxfood.run_landscape.objective import make_point

LINE_STEPS, PLANE_STEPS = 21, 11  # of a slice along a line, and along each side of a plane: every other of the line's
ASCENT_STEPS = 5
PARTS = ("lines", "density", "trace", "plane", "sharpness")  # of what is measured around a point, in this order
QUICK = ("lines",)  # those of `--quick`
_LINES = ("largest eigenvalue's vector", "smallest eigenvalue's vector", "random, filter-normalised")
_USUAL_ENDS = 22  # products that settle the ends of a trained network


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
    """The loss in a neighbourhood of the point, as far as it is measured; the rest is None.

    Attributes:
        lines: by direction: steps `[21]` and the losses there `[21]`.
        density: of the Hessian's spectrum.
        minimum_ratio: the fraction of positive eigenvalues, with the density.
        trace: of the Hessian.
        plane: steps along the largest and the smallest eigenvalue's vector `[11]` each, losses `[11, 11]`.
        sharpness: the worst rise in the ball of `landscape.radius`.
    """

    lines: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    density: Density | None = None
    minimum_ratio: Interval | None = None
    trace: Estimate | None = None
    plane: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    sharpness: Sharpness | None = None

    @property
    def missing(self) -> list[str]:
        """Those of `PARTS` that are not measured."""
        done = {name for name in PARTS[1:] if getattr(self, name) is not None}
        return [name for name in PARTS if name not in (done | {"lines"} if len(self.lines) == len(_LINES) else done)]


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


def classify(point: Point, settings: LandscapeConfig) -> PointReport:
    """Not critical, a minimum, a maximum, a saddle or degenerate; raises as `landscape_metrics`."""
    gradient_norm = _gradient_norm(point)
    return _reported(point, extreme_eigenvalues(point, settings), settings, gradient_norm)


def begin_survey(point: Point, settings: LandscapeConfig, top: int) -> tuple[PointReport, ByProduct | None]:
    """As `classify`, with so many of the largest eigenvalues, and what the rest is measured from."""
    told, found = list[ByProduct](), list[TopEigenpairs]()
    gradient_norm = _gradient_norm(point)

    def keep(krylov: Krylov) -> None:
        told.append(by_product_of(krylov, point, settings))
        found.append(top_of_krylov(krylov, top))

    pairs = extreme_eigenvalues(point, settings, on_vectors=keep)
    largest = found[0] if found else top_eigenpairs(point, settings, top)
    shares = TopShares(largest.values, largest.residuals, gradient_shares(point, largest.vectors))
    return replace(_reported(point, pairs, settings, gradient_norm), top=shares), told[0] if told else None


def _gradient_norm(point: Point) -> float:
    """First of all: a loss that is not finite is told by the loss, not by what a second derivative makes of it."""
    return float(np.linalg.norm(point.gradient.astype(np.float64)))


def _reported(point: Point, pairs: Eigenpairs, settings: LandscapeConfig, gradient_norm: float) -> PointReport:
    verdict = judge(expand_downhill(point), pairs, settings, gradient_rounding(point, pairs))
    return PointReport(verdict, gradient_norm, pairs)


def measure_geometry(
    point: Point,
    report: PointReport,
    told: ByProduct | None,
    settings: LandscapeConfig,
    parts: Collection[str] = PARTS,
    on_loss: Callable[[], Any] | None = None,
) -> Iterator[LocalGeometry]:
    """Spectrum, sharpness and slices, after each part with those before; `on_loss` is called after every loss.

    Args:
        point: where.
        report: its ends.
        told: see `begin_survey`.
        settings: how much is spent.
        parts: which of `PARTS`.
        on_loss: for a progress bar.
    """
    done = LocalGeometry()
    reaches = [_reach(point.loss, report.pairs.values[end]) for end in (-1, 0)]
    if "lines" in parts:
        for name in _LINES:
            done = replace(done, lines={**done.lines, name: _line(name, point, report, reaches, settings, on_loss)})
            yield done
    if "density" in parts:
        density = density_by(told, point, settings)
        done = replace(done, density=density, minimum_ratio=minimum_ratio(density, report.verdict.threshold))
        yield done
        if "trace" in parts:
            done = replace(done, trace=trace_by(told, density, point, settings))
            yield done
    if "plane" in parts:
        done = replace(done, plane=_plane(point, report, done.lines, reaches, on_loss))
        yield done
    if "sharpness" in parts:
        yield replace(done, sharpness=sharpness(point, report.pairs, settings.radius, ASCENT_STEPS))


def _line(
    name: str,
    point: Point,
    report: PointReport,
    reaches: Sequence[float],
    settings: LandscapeConfig,
    on_loss: Callable[[], Any] | None,
) -> tuple[np.ndarray, np.ndarray]:
    vectors = report.pairs.vectors
    if name == _LINES[2]:
        direction, reach = filter_normalised(point, settings.seed, filter_axis=-1), 1.0
    else:
        direction, reach = (vectors[-1], reaches[0]) if name == _LINES[0] else (vectors[0], reaches[1])
    steps = reach * np.linspace(-1, 1, LINE_STEPS)
    return steps, loss_slice(point, [direction], [steps], on_loss, known={(0.0,): point.loss})


def _plane(
    point: Point,
    report: PointReport,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    reaches: Sequence[float],
    on_loss: Callable[[], Any] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over both eigenvectors; the losses along each of them alone are those of the lines."""
    axes = [reach * np.linspace(-1, 1, LINE_STEPS)[::2] for reach in reaches]
    known: dict[tuple[float, ...], float] = {(0.0, 0.0): point.loss}
    if _LINES[0] in lines:
        known |= {(step, 0.0): loss for step, loss in zip(*lines[_LINES[0]], strict=True)}
    if _LINES[1] in lines:
        known |= {(0.0, step): loss for step, loss in zip(*lines[_LINES[1]], strict=True)}
    losses = loss_slice(point, (report.pairs.vectors[-1], report.pairs.vectors[0]), axes, on_loss, known)
    return axes[0], axes[1], losses


def _reach(loss: float, eigenvalue: float) -> float:
    """How far a slice goes: where the curvature alone would change the loss by as much as it is."""
    return math.sqrt(2 * max(abs(loss), 1e-6) / max(abs(float(eigenvalue)), 1e-6))


class Plan(NamedTuple):
    """About how many of each a survey takes."""

    products: int
    losses: int = 0
    gradients: int = 0


def plan_ends(point: Point, settings: LandscapeConfig) -> Plan:
    """Of `classify`."""
    if point.size <= settings.dense_size:
        return Plan(point.size, gradients=1)
    return Plan(min(lanczos_vectors(point, settings), settings.max_products, _USUAL_ENDS) + 1, gradients=1)


def plan_geometry(point: Point, settings: LandscapeConfig, parts: Collection[str]) -> Plan:
    """Of `measure_geometry`."""
    products = 1 if "sharpness" in parts else 0
    if point.size > settings.dense_size:
        products += (settings.probes - 1) * settings.steps if "density" in parts else 0
        products += settings.trace_products if "trace" in parts else 0
    losses = 3 * (LINE_STEPS - 1) if "lines" in parts else 0
    losses += (PLANE_STEPS - 1) ** 2 if "plane" in parts else 0
    return Plan(products, losses, ASCENT_STEPS + 1 if "sharpness" in parts else 0)
