"""The loss of a run as a function of its parameters alone: of which pictures, and by which BatchNorm statistics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfood.config.sections import Config
from jaxfood.data.batches import batches
from jaxfood.data.cache import UnreadableError, load_pictures
from jaxfood.data.cache_folder import cache_dir_of_run
from jaxfood.data.index import check_labels, counted, index_pictures
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError, printable
from jaxfood.landscape import Objective, Point
from jaxfood.model.networks import make_model, predict_logits
from jaxfood.optim.freeze import frozen_statistics
from jaxfood.optim.losses import make_loss
from jaxfood.runs.directory import read_classes
from jaxfood.training.metrics import batch_sums
from jaxfood.training.step import summed_loss

BATCH_SIZE = 32  # pictures on the device at a time: bounds the memory, and changes no number


def choose_positions(total: int, samples: int, seed: int) -> np.ndarray:
    """Positions `[min(samples, total)]` among `total` pictures, drawn by `seed`, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:samples])


def load_sample(images: str, config: Config, run: Path, cache_dir: str = "") -> Pictures:
    """`landscape.samples` of the pictures of a labelled folder; all else as `load_labelled`."""
    pictures = load_labelled(images, config, run, cache_dir)
    return pictures.subset(choose_positions(len(pictures), config.landscape.samples, config.landscape.seed))


def load_labelled(images: str, config: Config, run: Path, cache_dir: str = "") -> Pictures:
    """The pictures of a labelled folder as a run sees them; says what is passed over there.

    Decoded pictures are kept in `cache_dir`, or where the run keeps them.

    Raises:
        UserError: no pictures there, one without a label or with one beyond the classes, or unreadable ones.
    """
    index = index_pictures(images, read_classes(run), num_classes=config.model.num_classes)
    check_labels(index, config.model.num_classes)
    if index.passed_over:
        print(printable(f"passed over in {index.root}: {counted(index.passed_over)}"))
    try:
        return load_pictures(
            index,
            config.data.image_size,
            cache_dir=cache_dir or cache_dir_of_run(config.data.cache_dir),
            exif_orientation=config.data.exif_orientation,
            resize=config.data.resize,
        )
    except UnreadableError as error:  # of a whole folder, not of a run's split: no setting leaves them out
        raise UserError(f"{'; '.join(error.findings)}: mend or remove them") from None


def make_point(
    config: Config, variables: dict[str, Any], pictures: Pictures, on_product: Callable[[], None] | None = None
) -> Point:
    """The objective of these pictures at a run's variables `{"params": ..., "batch_stats": ...}`."""
    return Point(make_objective(config, variables["batch_stats"], pictures), variables["params"], on_product)


def make_objective(config: Config, batch_stats: Any, pictures: Pictures) -> Objective:
    """The mean loss of pictures.

    Args:
        config: `model`, `loss`, `train.freeze` and `landscape.statistics` are read. With "running", BatchNorm
            normalises by `batch_stats`: the loss that validation reports and predict sees. With "batch", by the mean
            and variance of all the pictures, as a training step on them would; they then go to the device together.
        batch_stats: the running statistics.
        pictures: as many as are to count.
    """
    model, loss = make_model(config.model), make_loss(config.loss, config.model.num_classes)
    together = config.landscape.statistics == "batch"

    def total(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        if together:
            with frozen_statistics(params, config.train.freeze):
                _, (_, sums) = summed_loss(model, loss, params, batch["batch_stats"], batch)
        else:
            variables = {"params": params, "batch_stats": batch["batch_stats"]}
            sums = batch_sums(loss, predict_logits(model, variables, batch["image"]), batch)
        return sums["loss"], sums["weight"]

    def batch_of(positions: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        # The statistics travel in the batch: as constants they would make a new program for every checkpoint.
        images = np.asarray(pictures.images[positions])
        return {"image": images, "label": pictures.labels[positions], "mask": mask, "batch_stats": batch_stats}

    cut = batches(np.arange(len(pictures)), len(pictures) if together else BATCH_SIZE)
    return Objective(total, [batch_of(positions, mask) for positions, mask in cut])
