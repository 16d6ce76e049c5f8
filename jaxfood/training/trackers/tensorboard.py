"""TensorBoard, by tensorboardX: no TensorFlow."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxfood.extras import require
from jaxfood.places import exists
from jaxfood.runs.directory import TENSORBOARD
from jaxfood.training.trackers.writer import Outcome, Scalars, Tracked

_METRICS = ("valid_accuracy", "valid_loss", "train_accuracy", "train_loss")  # of its table of runs
_NO_HYPERPARAMETERS = ("data.root", "data.cache_dir", "data.resident", "device.", "distributed.", "logging.")


def check_tensorboard() -> None:
    """Check that it can be written to.

    Raises:
        UserError: tensorboardX is not installed.
    """
    require("tensorboardX", "logging.tensorboard = true", extra="tensorboard")


class TensorBoard:
    """RUN/tensorboard. What an earlier attempt wrote after the step that the run goes on from is dropped."""

    def __init__(self, run: Tracked) -> None:
        from tensorboardX import SummaryWriter

        new = not exists(run.workdir / TENSORBOARD)
        self._writer = SummaryWriter(str(run.workdir / TENSORBOARD), purge_step=run.step + 1)
        self._end = None
        if run.settings:
            # Not add_hparams, which makes a run of its own beside this one, without its curves.
            from tensorboardX.summary import hparams

            parameters = dict(_hyperparameters(run.settings))
            *begin, self._end = hparams(parameters, dict.fromkeys(_METRICS))
            for summary in begin:
                self._writer.file_writer.add_summary(summary)
            rows = [f"| {name} | `{json.dumps(value)}` |" for name, value in run.settings.items()]
            self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), run.step)
        for step, values in run.epochs.items() if new else ():
            self.add_scalars(values, step)

    def add_scalars(self, values: Scalars, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, outcome: Outcome) -> None:
        if self._end is not None and outcome == "finished":
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()


def _hyperparameters(settings: Mapping[str, Any]) -> Iterator[tuple[str, bool | int | float | str]]:
    """The settings that may change a result, as TensorBoard's table takes them: numbers there are finite."""
    for name, value in settings.items():
        if name.startswith(_NO_HYPERPARAMETERS):
            continue
        plain = isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
        yield name, value if plain else json.dumps(value)
