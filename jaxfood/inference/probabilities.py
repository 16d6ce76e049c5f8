"""Class probabilities of pictures, by one trained run or several."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from tqdm import tqdm

from jaxfood.config.sections import Config, DeviceConfig
from jaxfood.data.batches import make_batches
from jaxfood.data.cache import CachedPictures, UnreadableError, load_pictures
from jaxfood.data.index import PictureIndex, index_pictures
from jaxfood.devices import compile_step, make_mesh, on_every_device, takes_rows_by_device
from jaxfood.errors import UserError
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.networks import predict_logits
from jaxfood.runs.directory import load_run


def predict_probabilities(
    runs: Sequence[str | Path],
    images: str | Path | PictureIndex,
    which: str | int = "best",
    *,
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> np.ndarray:
    """Class probabilities `[N, num_classes]` of pictures, the mean over the runs.

    Each run sees the pictures in its own size, and as many at a time as its training had in memory.

    Args:
        runs: work directories of runs with the same number of classes.
        images: N pictures: a folder, in the order of the file names, a picture, a list, or an index of them.
        which: the checkpoint of each run: "best", "last" or a step.
        progress: whether to show bars.
        device: how many devices of this machine answer, whatever the runs were trained on.

    Raises:
        UserError: no such run or checkpoint, runs of different numbers of classes, pictures that cannot be read.
    """
    index = images if isinstance(images, PictureIndex) else index_pictures(images, labelled=False)
    loaded = [load_run(run, which) for run in runs]
    counts = {str(run): model.num_classes for run, (model, _, _) in zip(runs, loaded, strict=True)}
    if len(set(counts.values())) > 1:
        described = ", ".join(f"{run} has {count}" for run, count in counts.items())
        raise UserError(f"the runs differ in their number of classes: {described}; give runs of the same classes")
    mesh = make_mesh(device)
    return np.mean([_probabilities(*run, index, mesh, progress) for run in loaded], axis=0)


def _probabilities(
    model: FoodClassifier, variables: dict[str, Any], config: Config, index: PictureIndex, mesh: Mesh, progress: bool
) -> np.ndarray:
    try:
        pictures = load_pictures(
            index,
            config.data.image_size,
            cache_dir=config.data.cache_dir,
            progress=progress,
            exif_orientation=config.data.exif_orientation,
        )
    except UnreadableError as error:  # every picture needs its answer: leaving some out is no mend here
        raise UserError(f"{'; '.join(error.findings)}: mend or remove them") from None
    source = pictures if config.data.resident else CachedPictures([pictures])
    feed = make_batches(source, mesh, by_device=takes_rows_by_device(config))
    order, batch_size = np.arange(len(pictures)), config.train.part_size
    variables = on_every_device(variables, mesh)
    arguments = (variables, next(feed.batches(order, batch_size)))
    predict = compile_step(partial(_all_logits, model), config, mesh, arguments)
    total = math.ceil(len(order) / batch_size)
    batches = feed.batches(order, batch_size)
    with tqdm(batches, total=total, desc="predicting", unit="batch", leave=False, disable=not progress) as bar:
        # Every batch may be padded, where devices do not divide it.
        logits = [np.asarray(predict(variables, batch))[np.ravel(batch["mask"]) > 0] for batch in bar]
    return np.asarray(jax.nn.softmax(np.concatenate(logits)))


def _all_logits(model: FoodClassifier, variables: Any, batch: Any, axis_name: str | None = None) -> jax.Array:
    """The whole batch's logits `[B, num_classes]`, on every device."""
    logits = predict_logits(model, variables, batch["image"])
    return logits if axis_name is None else lax.all_gather(logits, axis_name, tiled=True)
