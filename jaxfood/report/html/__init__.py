"""A report: one HTML file that shows runs and their evaluation to whoever opens it, without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxfood.files import write_whole
from jaxfood.report.figures import Figure


def write_report(
    path: Path,
    runs: Sequence[Path],
    evaluation: Mapping[str, Any] | None = None,
    figures: Sequence[Figure] = (),
) -> None:
    """Write a report of one run or several, which are compared: settings, curves, time, landscape, versions.

    Args:
        path: the file; it is replaced as a whole.
        runs: work directories; a directory of folds stands for the folds that have begun.
        evaluation: what evaluation.json holds; what is not known here is shown by its own names.
        figures: pictures, in the order in which they are shown.

    Raises:
        UserError: one of them is no run, or cannot be read.
        OSError: the file cannot be written.
    """
    from jaxfood.report.html.page import render
    from jaxfood.report.html.records import read_known_folds, read_runs

    folds = [known for run in runs if (known := read_known_folds(run)) is not None]
    write_whole(path, render(read_runs(runs), folds, evaluation, figures))


def write_training_report(workdir: Path, seconds: Mapping[str, float] | None = None) -> None:
    """Write RUN/report.html of a training, for `logging.report`.

    Args:
        workdir: the run, or a directory of folds.
        seconds: what the process that trains has spent on each kind of work so far; the page then refreshes itself.
            None: the training has ended.

    Raises:
        UserError: it is no run, or cannot be read.
        OSError: the file cannot be written.
    """
    from jaxfood.report.html.page import render
    from jaxfood.report.html.records import read_known_folds, read_runs
    from jaxfood.runs.directory import REPORT

    known = read_known_folds(workdir)
    write_whole(workdir / REPORT, render(read_runs([workdir]), [] if known is None else [known], so_far=seconds))
