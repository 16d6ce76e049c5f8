"""`python -m jaxfood.evaluate`: how good trained runs are on labelled pictures. The module can be called, too.

`jaxfood.evaluate` is the public function, and this module as soon as anybody imports it: Python then binds a module to
its package under its name, in the function's place.
"""

import argparse
import inspect
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxfood import cli
from jaxfood.config.distributed import NONE
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError, first_few
from jaxfood.extras import require
from jaxfood.files import is_remote, to_local_path
from jaxfood.places import check_writable_folder, is_folder

if TYPE_CHECKING:
    from jaxfood.evaluation.measure import Evaluation

DESCRIPTION = """Measure how good trained runs are on labelled pictures: accuracy with its 95 % interval, top-3, loss,
calibration, each class, which are mixed up, which mistakes are the surest, which labels may be wrong. Writes
evaluation.json, predictions.csv, suspected_labels.csv, report.html and pictures. Several runs, and all folds of one,
answer together, and are compared."""

_MOST_EXPLAINED = 100


def evaluate(
    runs: Sequence[str | Path],
    images: str | Path,
    which: str | int = "best",
    tta: int = 0,
    *,
    cache_dir: str | Path = "",
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> dict[str, Any]:
    """How good runs are on labelled pictures; they answer by the mean of their probabilities.

    Args:
        runs: work directories of runs of the same classes; one of folds stands for all its folds.
        images: a folder, a picture or a list, labelled as a training's: class folders, numbers in names, a column.
        which: the checkpoint of each run: "best", "last" or a step.
        tta: how many views beside the plain one, as `predict_probabilities` has it.
        cache_dir: where decoded pictures are kept; empty: where the run keeps them, if that is on this machine.
        progress: whether to show bars.
        device: how many devices of this machine answer, whatever the runs were trained on.

    Returns:
        What evaluation.json holds (docs/evaluation.md), but for `files`; nothing is written.

    Raises:
        UserError: scikit-learn is missing, no such run, checkpoint or pictures, runs of different classes, pictures
            without a label or with one that the runs do not know, or several processes.
    """
    from jaxfood.evaluation.as_json import as_json
    from jaxfood.evaluation.measure import measure

    return as_json(measure(runs, images, which, tta=tta, cache_dir=cache_dir, progress=progress, device=device))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, write."""
    arguments = _parse(argv)
    out = to_local_path(arguments.out or _default_out(arguments.runs, arguments.images), "--out")
    require("sklearn", "evaluate", extra="evaluate")
    require("matplotlib", "evaluate", extra="evaluate")
    check_writable_folder(out, "--out")
    cli.set_up_jax(DeviceConfig())

    from jaxfood.evaluation.folder import check_ours, write_evaluation
    from jaxfood.evaluation.measure import measure
    from jaxfood.evaluation.plots import missing_characters

    check_ours(out)
    found = measure(arguments.runs, arguments.images, arguments.which, tta=arguments.tta, cache_dir=arguments.cache_dir)
    if found.config.distributed.coordinator not in ("", NONE):
        cli.say("evaluate works in this process alone: distributed.coordinator is for train")
    for remark in found.remarks:
        cli.say(remark)
    if boxed := missing_characters(found.classes):
        cli.say(f"no font here has {first_few(boxed)}, a box in the pictures: install one that has (Noto Sans CJK)")
    report = write_evaluation(found, out, explain=arguments.explain)
    for line in _lines_of_runs(found):
        cli.say(line)
    cli.say(_in_a_line(found, report))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser("evaluate", DESCRIPTION)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=cli.path, help="work directory of a training, folds and all"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        required=True,
        help="labelled pictures of the run's classes: a folder, one picture, or a list (.txt, .csv, .tsv)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where to write; an earlier evaluation there is replaced (default: RUN/evaluation/NAME, of the first run, "
        "NAME being that of --images; of several runs RUN/evaluation/NAME-COUNT-runs)",
    )
    parser.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    parser.add_argument(
        "--tta",
        metavar="N",
        type=cli.up_to(cli.MOST_VIEWS, "views"),
        default=0,
        help="test-time augmentation, as predict has it; takes N + 1 times as long (default: 0)",
    )
    parser.add_argument(
        "--explain",
        metavar="N",
        type=cli.up_to(_MOST_EXPLAINED, "pictures"),
        default=0,
        help="also show why, for N pictures: the most confident mistakes, then the least certain (default: 0)",
    )
    parser.add_argument("--cache_dir", metavar="DIR", default="", help="where decoded pictures are kept")
    arguments = parser.parse_args(argv)
    if shell_made := [run for run in arguments.runs if cli.is_picture_name(run.name) and not is_folder(run)]:
        raise UserError(f"{shell_made[0]} is not a run: {cli.SHELL_GLOB}")
    return arguments


def _default_out(runs: Sequence[Path], images: str) -> Path:
    if is_remote(runs[0]):
        raise UserError(f"{runs[0]} is in a bucket, and an evaluation is written locally: name a folder with --out")
    # The directory's name, as config's of runs; not imported from there, which would load JAX before --help is shown.
    name = Path(images.rstrip("/")).name if is_remote(images) else os.path.basename(os.path.abspath(images))
    return runs[0] / "evaluation" / (name if len(runs) == 1 else f"{name}-{len(runs)}-runs")


def _lines_of_runs(found: "Evaluation") -> list[str]:
    """A line for each of several runs: its accuracy, and how it compares with the first."""
    if len(found.runs) == 1:
        return []
    lines = []
    for number, (run, scores) in enumerate(zip(found.runs, found.scores_by_run, strict=True)):
        line = f"{run}: accuracy {_percent(scores.accuracy)} ({_interval(scores)})"
        if number:
            line += _against_first(found, found.by_run[number].argmax(axis=1))
        lines.append(line)
    return lines


def _against_first(found: "Evaluation", answers: Any) -> str:
    compared = found.compare(answers)
    return (
        f"; alone right on {compared.only_this}, the first on {compared.only_first} "
        f"(McNemar's exact test: p = {compared.p_value:.2g})"
    )


def _in_a_line(found: "Evaluation", report: Path) -> str:
    scores = found.scores
    together = f"{len(found.runs)} runs together" if len(found.runs) > 1 else f"{found.runs[0]}"
    pictures = f"{scores.pictures} picture{'s' * (scores.pictures != 1)}"
    compared = _against_first(found, found.answers) if len(found.runs) > 1 else ""
    return (
        f"{together}: accuracy {_percent(scores.accuracy)} (95 % interval {_interval(scores)}), top-3 "
        f"{_percent(scores.top3_accuracy)}, loss {scores.loss:.4f}, expected calibration error "
        f"{scores.expected_calibration_error:.3f} on {pictures}{compared}: {report}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(scores: Any) -> str:
    return f"{100 * scores.accuracy_low:.1f} to {100 * scores.accuracy_high:.1f}"


class _CallableModule(types.ModuleType):
    """A module that is called as its function `evaluate`."""

    __signature__ = inspect.signature(evaluate)

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        return evaluate(*arguments, **named)


if __name__ == "__main__":
    cli.run(main)
else:
    sys.modules[__name__].__class__ = _CallableModule
