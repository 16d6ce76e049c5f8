"""Answers of trained runs for pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxfood.config.schema import Config, DeviceConfig
from jaxfood.data.batches import ResidentBatches, steps_per_epoch
from jaxfood.data.cache import UnreadableError, load_pictures
from jaxfood.data.index import PictureIndex
from jaxfood.devices import make_mesh, on_every_device
from jaxfood.errors import UserError
from jaxfood.model.classifier import FoodClassifier
from jaxfood.runs.directory import load_run
from jaxfood.training.step import predict_logits


def predict_probabilities(
    runs: Sequence[str | Path],
    index: PictureIndex,
    which: str | int = "best",
    *,
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> np.ndarray:
    """Class probabilities `[N, num_classes]` of an index's pictures, the mean over the runs.

    Each run sees the pictures in its own size.

    Args:
        runs: work directories of runs with the same number of classes.
        index: N pictures.
        which: the checkpoint of each run: "best", "last" or a step.
        progress: whether to show bars.
        device: how many devices of this machine answer, whatever the runs were trained on.

    Raises:
        UserError: no such run or checkpoint, runs of different numbers of classes, pictures that cannot be read.
    """
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
        pictures = load_pictures(index, config.data.image_size, cache_dir=config.data.cache_dir, progress=progress)
    except UnreadableError as error:  # every picture needs its answer: leaving some out is no mend here
        raise UserError(f"{'; '.join(error.findings)}: mend or remove them") from None
    resident = ResidentBatches(pictures, mesh)
    variables = on_every_device(variables, mesh)
    predict = jax.jit(partial(predict_logits, model))
    batch_size = config.train.batch_size
    batches = resident.batches(np.arange(resident.size), batch_size)
    total = steps_per_epoch(resident.size, batch_size)
    with tqdm(batches, total=total, desc="predicting", unit="batch", leave=False, disable=not progress) as bar:
        logits = [np.asarray(predict(variables, batch["image"])) for batch in bar]
    # Padding stands at the end of the last batch only.
    return np.asarray(jax.nn.softmax(np.concatenate(logits)[: resident.size]))
