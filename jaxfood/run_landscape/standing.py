"""Where a run stands: its loss as a function of the parameters alone, and what `jaxfood.landscape` finds of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxfood.config.schema import Config
from jaxfood.data.batches import batches
from jaxfood.data.pictures import Pictures
from jaxfood.landscape import (
    Eigenpairs,
    Objective,
    Point,
    Verdict,
    expand_downhill,
    extreme_eigenvalues,
    judge,
)
from jaxfood.model.networks import make_model, predict_logits, to_float
from jaxfood.optim.losses import make_loss
from jaxfood.training.metrics import batch_sums

BATCH_SIZE = 32  # pictures on the device at a time: bounds the memory, and changes no number


@dataclass(frozen=True)
class Standing:
    """Where a checkpoint stands."""

    verdict: Verdict
    gradient_norm: float
    pairs: Eigenpairs


def find_standing(point: Point, config: Config) -> Standing:
    """The verdict, and what it rests on."""
    pairs = extreme_eigenvalues(point, config.landscape)
    verdict = judge(expand_downhill(point), pairs, config.landscape)
    return Standing(verdict, float(np.linalg.norm(point.gradient.astype(np.float64))), pairs)


def metrics_of(found: Standing) -> dict[str, float]:
    """For metrics.jsonl. The notes: training mostly stops long before it comes to a critical point."""
    return {
        "landscape_gradient_norm": found.gradient_norm,
        "landscape_promised_decrease": found.verdict.downhill.decrease,
        "landscape_largest_eigenvalue": found.verdict.largest.value,
        "landscape_smallest_eigenvalue": found.verdict.smallest.value,
    }


def make_point(
    config: Config, variables: dict[str, Any], pictures: Pictures, on_product: Callable[[], None] | None = None
) -> Point:
    """The loss of pictures at given variables."""
    return Point(make_objective(config, variables["batch_stats"], pictures), variables["params"], on_product)


def make_objective(config: Config, batch_stats: Any, pictures: Pictures) -> Objective:
    """The mean loss of pictures.

    Args:
        config: `model`, `loss` and `landscape.statistics` are read. With "running", BatchNorm normalises by
            `batch_stats`: the loss that validation reports and predict sees. With "batch", by the mean and variance of
            all the pictures, as a training step on them would; they then go to the device together.
        batch_stats: the running statistics.
        pictures: as many as are to count.
    """
    model, loss = make_model(config.model), make_loss(config.loss, config.model.num_classes)
    together = config.landscape.statistics == "batch"

    def total(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        variables = {"params": params, "batch_stats": batch["batch_stats"]}
        if together:
            images = to_float(batch["image"])
            logits, _ = model.apply(variables, images, train=True, mask=batch["mask"], mutable=["batch_stats"])
        else:
            logits = predict_logits(model, variables, batch["image"])
        sums = batch_sums(loss, logits, batch)
        return sums["loss"], sums["weight"]

    # The statistics travel in the batch: as constants they would make a new program for every checkpoint.
    cut = batches(np.arange(len(pictures)), len(pictures) if together else BATCH_SIZE)
    return Objective(total, [_batch(pictures, batch_stats, positions, mask) for positions, mask in cut])


def choose(total: int, samples: int, seed: int) -> np.ndarray:
    """The positions of so many of `total` pictures, drawn by `seed`, ascending; all where there are no more."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:samples])


def _batch(pictures: Pictures, batch_stats: Any, positions: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    images = np.asarray(pictures.images[positions])
    return {"image": images, "label": pictures.labels[positions], "mask": mask, "batch_stats": batch_stats}
