"""What lies around a run's parameters: spectrum, sharpness, slices of the loss."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxfood.config.schema import Config
from jaxfood.data.cache import UnreadableError, load_pictures
from jaxfood.data.index import index_pictures
from jaxfood.data.labels import check_labels
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError
from jaxfood.landscape import (
    Density,
    Estimate,
    Point,
    Share,
    Sharpness,
    filter_normalised,
    lanczos_vectors,
    loss_slice,
    minimum_ratio,
    sharpness,
    spectral_density,
    trace,
)
from jaxfood.run_landscape.standing import Standing, choose
from jaxfood.runs.directory import read_classes

LINE, PLANE = 21, 11  # steps of a slice along a line, and along each side of a plane
LOSSES = 3 * LINE + PLANE**2  # that the slices take
ASCENT_STEPS = 5


@dataclass(frozen=True)
class Surroundings:
    """What lies around it."""

    trace: Estimate
    density: Density
    positive: Share  # the minimum ratio
    sharpness: Sharpness
    lines: dict[str, tuple[np.ndarray, np.ndarray]]  # by direction: steps and losses
    plane: tuple[np.ndarray, np.ndarray, np.ndarray]  # steps along the first and last eigenvector, losses


def load_sample(images: str, config: Config, run: Path) -> Pictures:
    """The pictures that a survey takes: `landscape.samples` of a labelled folder.

    Raises:
        UserError: no pictures there, one without a label or with one beyond the classes, or unreadable ones.
    """
    index = index_pictures(images, read_classes(run))
    check_labels(index, config.model.num_classes)
    try:
        pictures = load_pictures(index, config.data.image_size, cache_dir=config.data.cache_dir)
    except UnreadableError as error:  # of a whole folder, not of a run's split: no setting leaves them out
        raise UserError(f"{'; '.join(error.findings)}: mend or remove them") from None
    return pictures.subset(choose(len(pictures), config.landscape.samples, config.landscape.seed))


def look_around(
    point: Point, found: Standing, config: Config, on_loss: Callable[[], Any] | None = None
) -> Surroundings:
    """Trace, density, minimum ratio, sharpness and slices; `on_loss` is called after each of the slices' losses."""
    settings = config.landscape
    density = spectral_density(point, settings)
    first, last = found.pairs.vectors[-1], found.pairs.vectors[0]
    directions = {
        "largest eigenvalue's vector": (first, _reach(point.loss, found.pairs.values[-1])),
        "smallest eigenvalue's vector": (last, _reach(point.loss, found.pairs.values[0])),
        "random, filter-normalised": (filter_normalised(point, settings.seed, filter_axis=-1), 1.0),
    }
    lines = {}
    for name, (direction, reach) in directions.items():
        steps = reach * np.linspace(-1, 1, LINE)
        lines[name] = steps, loss_slice(point, [direction], [steps], on_loss)
    axes = [_reach(point.loss, value) * np.linspace(-1, 1, PLANE) for value in found.pairs.values[[-1, 0]]]
    plane = loss_slice(point, [first, last], axes, on_loss)
    return Surroundings(
        trace=trace(point, settings),
        density=density,
        positive=minimum_ratio(density, found.verdict.threshold),
        sharpness=sharpness(point, found.pairs, settings.radius, ASCENT_STEPS),
        lines=lines,
        plane=(axes[0], axes[1], plane),
    )


def planned_products(point: Point, config: Config, *, around: bool) -> int:
    """About how many Hessian-vector products a standing takes, and what lies around it."""
    settings = config.landscape
    if point.size <= settings.dense_size:
        return point.size
    ends = lanczos_vectors(point, settings)
    return ends + settings.trace_products + settings.probes * settings.steps if around else ends


def measure_seconds(point: Point) -> tuple[float, float]:
    """Of one Hessian-vector product and of one loss, once they are compiled.

    Raises:
        UserError: the loss is not finite here.
    """
    _ = point.loss
    probe = np.ones(point.size, point.dtype)
    return _second_call(lambda: point.product(probe)), _second_call(lambda: point.loss_at(probe))


def numbers(found: Standing) -> dict[str, Any]:
    """A standing's plain numbers, as landscape.json has them."""
    verdict = found.verdict
    return {
        "verdict": str(verdict.kind),
        "reason": verdict.reason,
        "remedy": verdict.remedy,
        "loss": verdict.downhill.loss,
        "gradient_norm": found.gradient_norm,
        "curvature_along_gradient": verdict.downhill.curvature,
        "promised_decrease": verdict.downhill.decrease,
        "largest_eigenvalue": verdict.largest.value,
        "largest_residual": verdict.largest.residual,
        "smallest_eigenvalue": verdict.smallest.value,
        "smallest_residual": verdict.smallest.residual,
        "tolerance": verdict.threshold,
        "unseen": verdict.unseen,
        "settled": found.pairs.settled,
        "products": found.pairs.products,
    }


def _second_call(work: Callable[[], Any]) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _reach(loss: float, eigenvalue: float) -> float:
    """How far a slice goes: where the curvature alone would change the loss by as much as it is."""
    return math.sqrt(2 * max(abs(loss), 1e-6) / max(abs(float(eigenvalue)), 1e-6))
