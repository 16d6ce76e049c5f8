"""The folders of a run's checkpoints: what each holds, and which of them a removal left half done."""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from jaxfood.files import is_remote, list_bucket, read_bytes
from jaxfood.runs.manifest import has_manifest, is_there
from jaxfood.runs.progress import NOT_EVALUATED

# The items of a checkpoint, by their folders' names: a run that was written keeps them.
MODEL, TRAIN, PROGRESS, METRICS = "model", "train", "memory", "metrics"
# Where an old checkpoint is moved before it is deleted: killed meanwhile, none is left of which a part is gone.
REMOVED = "removed"
# What a checkpoint of which nothing was deleted has.
_ESSENTIAL = (
    "_CHECKPOINT_METADATA",
    f"{MODEL}/_METADATA",
    f"{TRAIN}/_METADATA",
    f"{PROGRESS}/metadata",
    f"{METRICS}/metrics",
)


def rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Best is the highest validation accuracy, or the lowest loss where it is there, and the first of equals."""
    score = -metrics["valid_loss"] if "valid_loss" in metrics else metrics["valid_accuracy"]
    return -math.inf if metrics["valid_accuracy"] == NOT_EVALUATED else score, -metrics["step"]


def metrics_of(step: int, accuracy: float | None, loss: float | None) -> dict[str, float]:
    """What `rank` is of: a checkpoint's step, its validation accuracy if there is one, and the loss if that counts."""
    metrics = {"step": step, "valid_accuracy": NOT_EVALUATED if accuracy is None else accuracy}
    return metrics if loss is None else metrics | {"valid_loss": loss}


def read_metrics(step: Path) -> dict[str, float]:
    """The metrics of the checkpoint in a folder."""
    metrics: dict[str, float] = json.loads(read_bytes(step / METRICS / "metrics"))
    return metrics


def steps_on_disk(folder: Path) -> list[int]:
    """The steps of all checkpoints that came to their end, ascending, whatever has happened to them since."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def missing(step: Path, items: Collection[str]) -> list[str]:
    """What a checkpoint's folder lacks, of the whole checkpoint and of some items."""
    names = [name for name in _ESSENTIAL if "/" not in name or name.partition("/")[0] in items]
    there = list_bucket(step) if is_remote(step) else {name for name in names if is_there(step / name)}
    return [name for name in names if name not in there]


def leftovers(folder: Path, steps: list[int]) -> list[int]:
    """Those of all steps, ascending, of which a part was deleted when the process that removed them was killed.

    There is always a later one that is whole: without one it is damage, and told as such. So it is where there is a
    manifest, as whatever wrote it moves a checkpoint away before it deletes.
    """
    every = (MODEL, TRAIN, PROGRESS, METRICS)
    partial = [step for step in steps[:-1] if missing(folder / str(step), every)]
    if not partial or missing(folder / str(steps[-1]), every):
        return []
    return [step for step in partial if is_remote(folder) or not has_manifest(folder / str(step))]
