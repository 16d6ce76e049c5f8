"""What runs answer for one picture, and where they looked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxfood.config.sections import Config
from jaxfood.data.decode import decode_bytes
from jaxfood.evaluation.explanations.gradients import saliency
from jaxfood.evaluation.explanations.scores import all_probabilities
from jaxfood.inference.probabilities import common_classes
from jaxfood.model.network import Network
from jaxfood.runs.directory import each_run, load_run

_BLUR = 1 / 48  # of the side, the deviation of the Gaussian that smooths a saliency map: single pixels tell nothing
_BRIGHTEST = 99.5  # percentile that is fully lit: a few pixels outshine all others


class Answer(NamedTuple):
    """What runs answer for a picture.

    Attributes:
        probabilities: float32 [num_classes], the mean over the runs.
        seen: uint8 [S, S, 3], the picture as the network with the largest image size sees it.
        saliency: float32 [S, S] in [0, 1], how much each pixel moves the logit of the likeliest class; the mean over
            the runs.
    """

    probabilities: np.ndarray
    seen: np.ndarray
    saliency: np.ndarray

    @property
    def label(self) -> int:
        """The likeliest class."""
        return int(self.probabilities.argmax())


class _Run(NamedTuple):
    model: Network
    variables: Any
    config: Config

    def decode(self, encoded: bytes) -> np.ndarray:
        data = self.config.data
        return decode_bytes(
            encoded,
            data.image_size,
            exif_orientation=data.exif_orientation,
            resize=data.resize,
            fast=data.decodes_fast,
        )


class Answerer:
    """Runs that answer together, loaded and compiled once. Its methods may be called by several threads at a time."""

    def __init__(self, runs: Sequence[str | Path], which: str | int = "best") -> None:
        """Load and compile.

        Args:
            runs: work directories of runs of the same classes; one of folds stands for all its folds.
            which: the checkpoint of each run: "best", "last" or a step.

        Raises:
            UserError: no such run or checkpoint, or runs of different classes.
        """
        paths = each_run(runs)
        self.classes = common_classes(paths)
        device = jax.devices()[0]
        loaded = [_Run(*load_run(path, which)) for path in paths]
        self._runs = [run._replace(variables=jax.device_put(run.variables, device)) for run in loaded]
        self._answer([np.zeros((run.config.data.image_size,) * 2 + (3,), np.uint8) for run in self._runs])

    def answer(self, encoded: bytes) -> Answer:
        """The answer for a picture file's content.

        Raises:
            DecodingError: it is no picture; the text says what it is.
        """
        return self._answer([run.decode(encoded) for run in self._runs])

    def _answer(self, pictures: Sequence[np.ndarray]) -> Answer:
        """That for one picture, in each run's size."""
        answers = [
            np.asarray(all_probabilities(run.model, run.variables, picture[None])[0])
            for run, picture in zip(self._runs, pictures, strict=True)
        ]
        mean = np.mean(answers, axis=0)
        label = np.array([mean.argmax()])
        seen = max(pictures, key=len)
        maps = [
            _smoothed(saliency(run.model, run.variables, picture[None].astype(np.float32) / 255, label)[0], len(seen))
            for run, picture in zip(self._runs, pictures, strict=True)
        ]
        return Answer(mean, seen, np.mean(maps, axis=0))


def _smoothed(strength: np.ndarray, size: int) -> np.ndarray:
    """A saliency map `[S, S]` as one is looked at: smoothed, `[size, size]` in [0, 1]."""
    image = Image.fromarray((strength / max(strength.max(), 1e-30)).astype(np.float32))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    smooth = _blurred(np.asarray(image), size * _BLUR)
    return np.clip(smooth / max(np.percentile(smooth, _BRIGHTEST), 1e-30), 0, 1).astype(np.float32)


def _blurred(values: np.ndarray, deviation: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, deviation)
