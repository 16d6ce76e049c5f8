"""Cross-validation: a run for each fold of the training pictures, one after another, and what they answer together."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from jaxfood import processes
from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.data.splits import Splits, has_valid, load_splits
from jaxfood.errors import printable
from jaxfood.inference.probabilities import answer_of_run
from jaxfood.runs import directory as run
from jaxfood.runs.folds import fold_of, write_folds
from jaxfood.runs.lock import hold
from jaxfood.runs.resume import check_resumable
from jaxfood.training.reporting import WriteReport, no_report, try_report

Summary = dict[str, Any]


def train_folds(
    workdir: Path,
    config: Config,
    train_one: Callable[..., Summary],
    *,
    resume: bool,
    overwrite: bool,
    write_report: WriteReport = no_report,
) -> Summary:
    """Train the `train.folds` runs of a directory of folds: each on all folds but its own, on which it is validated.

    Args:
        workdir: becomes a directory of folds: folds.json, config.toml, and a run for each, fold1, fold2 and so on.
        config: what they have in common.
        train_one: as `train_in` without `after_epoch`.
        resume: go on with the folds that are there, inside the one that is not finished.
        overwrite: replace the folds, or the run, that is there.
        write_report: writes the page of the whole directory, after each fold.

    Returns:
        What folds.json holds, `workdir`, `runs` (each fold's summary), `best_accuracy` (the mean), and the `seconds`.

    Raises:
        UserError: a mistake in the settings or the pictures.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    with processes.together():
        if resume:
            check_resumable(run.read_stored(workdir), config)
        else:
            run.check_free(workdir, overwrite=overwrite)
    with hold(workdir) as unlocked:
        _say(unlocked)
        ensemble = _Ensemble(config)
        summaries: list[Summary] = []
        known: Summary = {}
        for fold in range(1, config.train.folds + 1):
            with _telling_how_to_go_on(workdir, fold, config.train.folds):
                begins = not resume and fold == 1
                summaries.append(_train_fold(workdir, config, fold, train_one, begins=begins, overwrite=overwrite))
                known = _what_is_known(summaries, config, ensemble.add(fold_of(workdir, fold)))
            processes.by_first(partial(_write, workdir, config, known))
            _say(_in_words(known))
            if processes.is_first():
                _say(try_report(workdir, write_report))
    seconds: dict[str, float] = {}
    for summary in summaries:
        seconds |= {work: seconds.get(work, 0.0) + spent for work, spent in summary["seconds"].items()}
    return known | {"workdir": str(workdir), "runs": summaries, "best_accuracy": known["mean"], "seconds": seconds}


@contextmanager
def holding_folds(workdir: Path) -> Iterator[None]:
    """Hold the directory of folds that a run belongs to, if it belongs to one: else somebody else might replace it."""
    whole = run.whole_of(workdir)
    with hold(whole) if whole != workdir else nullcontext():
        yield


def _train_fold(
    workdir: Path, config: Config, fold: int, train_one: Callable[..., Summary], *, begins: bool, overwrite: bool
) -> Summary:
    """Begin a fold's run or go on with it; the first one of new folds makes their directory, or replaces it."""
    folder = fold_of(workdir, fold)
    own = dataclasses.replace(config, train=dataclasses.replace(config.train, fold=fold))
    if begins:
        begin = partial(run.begin_folds, workdir, config)
        return train_one(folder, own, resume=False, overwrite=overwrite, when_ready=begin)
    update = partial(_write_config, workdir, config)
    return train_one(folder, own, resume=run.is_run(folder), overwrite=False, when_ready=update)


class _Ensemble:
    """What the folds so far answer together for the validation pictures, which none of them was trained on."""

    def __init__(self, config: Config) -> None:
        """Load the validation pictures, so that what is wrong with them is known before hours of training."""
        self._config = config
        self._answers: list[np.ndarray] = []
        self._pictures: Pictures | StoredPictures | None = None
        self._labels = np.zeros(0, int)
        if (splits := self._load()) is not None:
            self._pictures = splits.valid
            self._labels = np.array([record.label for record in splits.records if record.split == "valid"])

    def _load(self) -> Splits | None:
        if processes.count() > 1:
            _say(
                "what the folds answer together is not measured by several processes: --resume in one, when all are "
                "finished, does it"
            )
            return None
        data, train = dataclasses.replace(self._config.data, unlabeled=""), self._config.train
        if not has_valid(data):
            _say(f"{data.root} has no data.valid = {data.valid}: what the folds answer together is not measured")
            return None
        progress = self._config.logging.progress
        return load_splits(data, self._config.model.num_classes, seed=train.seed, folds=train.folds, progress=progress)

    def add(self, folder: Path) -> Summary | None:
        """How many of the folds answer what share of how many pictures right, with a further one."""
        if self._pictures is None:
            return None
        show = self._config.logging.progress
        self._answers.append(answer_of_run(folder, self._pictures, progress=show, device=self._config.device))
        total = np.zeros_like(self._answers[0])
        for answer in self._answers:  # in the order and in the type that `predict` has, so that the answers are its own
            total += answer
        right = (total / len(self._answers)).argmax(axis=1) == self._labels
        return {"folds": len(self._answers), "pictures": len(right), "accuracy": float(np.mean(right))}


def _what_is_known(summaries: Sequence[Summary], config: Config, ensemble: Summary | None) -> Summary:
    """The content of folds.json. The standard deviation is that of a sample (n - 1), none of one fold."""
    accuracies = [float(summary["best_accuracy"]) for summary in summaries]
    return {
        "folds": config.train.folds,
        "accuracies": accuracies,
        "best_epochs": [summary["best_epoch"] for summary in summaries],
        "mean": statistics.fmean(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "ensemble": ensemble,
    }


def _write(workdir: Path, config: Config, known: Mapping[str, Any]) -> None:
    with run.writing(workdir):
        write_folds(workdir, known)
    _write_config(workdir, config)


def _write_config(workdir: Path, config: Config) -> None:
    with run.writing(workdir):
        run.write_config(workdir, config)


def _in_words(known: Mapping[str, Any]) -> str:
    accuracies, ensemble = known["accuracies"], known["ensemble"]
    each = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
    words = f"{len(accuracies)} of {known['folds']} folds: accuracy {each}"
    if len(accuracies) > 1:
        words += f"; mean {known['mean']:.4f}, standard deviation {known['standard_deviation']:.4f}"
    if ensemble is not None:
        words += f"; together {ensemble['accuracy']:.4f} on the {ensemble['pictures']} validation pictures"
    return words


def _say(text: str) -> None:
    if text and processes.is_first():
        tqdm.write(printable(text))


@contextmanager
def _telling_how_to_go_on(workdir: Path, fold: int, folds: int) -> Iterator[None]:
    """Names the directory of folds in place of the fold's run."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not run.is_folds(workdir):  # nothing has begun
            raise
        how = str(interrupt).partition(";")[0]
        raise KeyboardInterrupt(
            f" in fold {fold} of {folds}{how}; go on with: python -m jaxfood.train --workdir {workdir} --resume"
        ) from interrupt
