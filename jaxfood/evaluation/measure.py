"""Let runs answer labelled pictures, and measure how good the answers are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from jaxfood.config.sections import Config, DeviceConfig
from jaxfood.data.index import PictureIndex, counted
from jaxfood.data.records import doubles, record_split
from jaxfood.errors import UserError, first_few
from jaxfood.evaluation.comparison import Comparison, compare
from jaxfood.evaluation.labelled import index_labelled
from jaxfood.evaluation.mistakes import Suspect, confident_mistakes, least_certain, suspected_labels
from jaxfood.evaluation.repeats import Repeats, Seen, find_repeats, find_seen
from jaxfood.evaluation.scores import Scores, score
from jaxfood.extras import require
from jaxfood.inference.probabilities import Answers, answer_pictures, common_classes, load_for_run
from jaxfood.runs.directory import each_run, read_config


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Runs' answers to the N labelled pictures that can be read, and what they are worth.

    Attributes:
        runs: a fold is a run.
        config: the first run's.
        which: the checkpoint of each.
        tta: how many views beside the plain one.
        index: the N pictures.
        unreadable: name and reason of the pictures that could not be read; they enter nothing else.
        classes: names in label order.
        probabilities: float32 [N, num_classes], of all runs together.
        scores: of these.
        by_run: float32 [runs, N, num_classes], each run's own.
        scores_by_run: of these.
        repeats: pictures that stand several times.
        seen: for each run which of the pictures it had in training; None where it does not tell.
        remarks: what was passed over, is in doubt or flatters the figures, a sentence each.
        cache_dir: where decoded pictures are kept, as it was asked for.
    """

    runs: tuple[Path, ...]
    config: Config
    which: str | int
    tta: int
    index: PictureIndex
    unreadable: dict[str, str]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    scores: Scores
    by_run: np.ndarray
    scores_by_run: tuple[Scores, ...]
    repeats: Repeats
    seen: tuple[Seen | None, ...]
    remarks: tuple[str, ...]
    cache_dir: str | Path

    @property
    def truth(self) -> np.ndarray:
        """The labels, int [N]."""
        return self.index.labels

    @property
    def answers(self) -> np.ndarray:
        """The most probable classes, int [N]."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confident_mistakes(self) -> np.ndarray:
        """The rows of the wrong answers; see `mistakes`."""
        return confident_mistakes(self.truth, self.probabilities)

    @cached_property
    def least_certain(self) -> np.ndarray:
        """All rows; see `mistakes`."""
        return least_certain(self.probabilities)

    @cached_property
    def suspects(self) -> list[Suspect]:
        """The labels that may be wrong; see `mistakes`."""
        return suspected_labels(self.truth, self.probabilities)

    def compare(self, answers: np.ndarray) -> Comparison:
        """Answers, int [N], against the first run's."""
        return compare(self.by_run[0].argmax(axis=1) == self.truth, answers == self.truth)


def measure(
    runs: Sequence[str | Path],
    images: str | Path,
    which: str | int = "best",
    *,
    tta: int = 0,
    cache_dir: str | Path = "",
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> Evaluation:
    """Let runs answer labelled pictures; arguments and errors as of `jaxfood.evaluate`."""
    require("sklearn", "evaluate", extra="evaluate")
    if jax.process_count() > 1:
        raise UserError(
            f"evaluate works in one process, and this is one of {jax.process_count()}: call it where "
            "jax.distributed.initialize was not called"
        )
    expanded = tuple(each_run(runs))
    config = read_config(expanded[0])
    listed, classes = index_labelled(images, common_classes(expanded), config.data.class_order)
    answers = answer_pictures(expanded, listed, which, tta=tta, cache_dir=cache_dir, progress=progress, device=device)
    readable = np.array([path not in answers.unreadable for path in listed.paths])
    index = listed.subset(readable)
    probabilities, by_run = answers.probabilities[readable], answers.by_run[:, readable]
    _check_finite(expanded, by_run)
    # Decoded for the answers: this maps what lies in the cache.
    pictures = load_for_run(config, listed, cache_dir, progress=False)
    right = probabilities.argmax(axis=1) == index.labels
    repeats = find_repeats(pictures.digests, index.labels, right)
    seen = tuple(find_seen(run, pictures.digests) for run in expanded)
    unreadable = {listed.name(path): reason for path, reason in answers.unreadable.items()}
    remarks = [
        *_remarks_on_files(listed, answers, unreadable),
        *doubles(record_split(index.root.name, [index], [pictures])),
        *_remarks_on_repeats(repeats, right),
        *_remarks_on_seen(expanded, seen, right),
    ]
    scored = score(index.labels, probabilities, classes)
    scores_by_run = (scored,) if len(expanded) == 1 else tuple(score(index.labels, own, classes) for own in by_run)
    return Evaluation(
        runs=expanded,
        config=config,
        which=which,
        tta=tta,
        index=index,
        unreadable=unreadable,
        classes=classes,
        probabilities=probabilities,
        scores=scored,
        by_run=by_run,
        scores_by_run=scores_by_run,
        repeats=repeats,
        seen=seen,
        remarks=tuple(remarks),
        cache_dir=cache_dir,
    )


def _check_finite(runs: Sequence[Path], by_run: np.ndarray) -> None:
    broken = [run for run, own in zip(runs, by_run, strict=True) if not np.isfinite(own).all()]
    if broken:
        raise UserError(
            f"{first_few(broken)}: the probabilities are not finite numbers, so the weights are broken: take another "
            "checkpoint (--which)"
        )


def _remarks_on_files(listed: PictureIndex, answers: Answers, unreadable: dict[str, str]) -> list[str]:
    remarks = []
    if listed.passed_over:
        remarks.append(f"passed over in {listed.root}: {counted(listed.passed_over)}")
    if unreadable:
        named = first_few([f"{name}: {reason}" for name, reason in unreadable.items()])
        remarks.append(f"{len(unreadable)} of {len(listed)} pictures cannot be read and enter no figure ({named})")
    if answers.plain:
        named = first_few(answers.plain, 10)
        remarks.append(f"trained without augmentation, so answering by the plain view alone: {named}")
    return remarks


def _remarks_on_repeats(repeats: Repeats, right: np.ndarray) -> list[str]:
    if not repeats.groups:
        return []
    return [
        f"{repeats.surplus} of the {len(right)} pictures are copies of others: with each content counted once the "
        f"accuracy is {100 * repeats.accuracy_each_once:.2f} %, not {100 * right.mean():.2f} %"
    ]


def _remarks_on_seen(runs: Sequence[Path], seen: Sequence[Seen | None], right: np.ndarray) -> list[str]:
    remarks = []
    if silent := [run for run, found in zip(runs, seen, strict=True) if found is None]:
        remarks.append(f"whether these pictures were trained on cannot be told of {first_few(silent)}")
    known = [found for found in seen if found is not None]
    trained_on = np.any([found.trained_on for found in known], axis=0) if known else np.zeros(len(right), bool)
    if trained_on.any():
        rest = right[~trained_on]
        without = f"; the accuracy on the other {len(rest)} is {100 * rest.mean():.1f} %" if len(rest) else ""
        remarks.append(f"{_of_all(trained_on)} stood in training, so that the figures flatter{without}")
    validated = np.any([found.splits["valid"] & ~found.trained_on for found in known], axis=0) if known else trained_on
    if validated.any():
        remarks.append(f"{_of_all(validated)} chose the best epoch of a run, so that the figures flatter a little")
    return remarks


def _of_all(chosen: np.ndarray) -> str:
    """How many of the pictures, bool [N], in words."""
    if len(chosen) == 1:
        return "the picture"
    return f"all {len(chosen)} pictures" if chosen.all() else f"{chosen.sum()} of the {len(chosen)} pictures"
