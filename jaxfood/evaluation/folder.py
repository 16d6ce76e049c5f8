"""The folder of an evaluation: evaluation.json, predictions.csv, suspected_labels.csv, report.html, pictures."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from jaxfood.errors import UserError, first_few
from jaxfood.evaluation.as_json import as_json
from jaxfood.evaluation.measure import Evaluation
from jaxfood.evaluation.mistakes import worth_a_look
from jaxfood.evaluation.plots import classes_plot, confusion_plot, reliability_plot, runs_plot
from jaxfood.evaluation.sheets import mistakes_sheet, suspects_sheet, uncertain_sheet
from jaxfood.files import read_bytes, reason, write_whole
from jaxfood.places import entries, exists
from jaxfood.report.figures import Figure

NUMBERS = "evaluation.json"
PREDICTIONS = "predictions.csv"
SUSPECTS = "suspected_labels.csv"
REPORT = "report.html"
_SUFFIXES = {".json", ".csv", ".html", ".png"}
_DRAWN_BY_THE_PAGE = {"confusion", "reliability", "classes"}  # from the numbers, so that they can be hovered over


def check_ours(out: Path) -> None:
    """Check that a folder is free: not there, empty, or an evaluation's, which is then replaced.

    Raises:
        UserError: it holds something else.
    """
    if exists(out) and entries(out) and _files_of(out) is None:
        raise UserError(
            f"--out {out}: it holds {first_few([path.name for path in entries(out)])} and no {NUMBERS}, so it is no "
            "evaluation's: choose another folder"
        )


def write_evaluation(evaluation: Evaluation, out: Path, *, explain: int = 0, progress: bool = True) -> Path:
    """Draw and write everything; what an earlier evaluation left in the folder is replaced. Returns the report's path.

    Args:
        evaluation: what was measured.
        out: a local folder, as `check_ours` has it.
        explain: how many pictures to explain.
        progress: whether to show bars.

    Raises:
        UserError: it cannot be written to.
    """
    from jaxfood.report.html import write_report

    figures = [*draw(evaluation, progress=progress), *_explanations(evaluation, explain, progress)]
    pictures = {f"{figure.name}.png": figure.png for figure in figures}
    files = [NUMBERS, PREDICTIONS, SUSPECTS, REPORT, *pictures]
    numbers = {**as_json(evaluation), "files": files}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in sorted(set(_files_of(out) or ()) - set(files)):
            (out / name).unlink(missing_ok=True)
        for name, png in pictures.items():
            write_whole(out / name, png)
        _write_table(out / PREDICTIONS, ("file", "truth", "answer", "probability"), _predictions(evaluation))
        columns = ("rank", "file", "label", "suggested", "self_confidence", "normalized_margin")
        _write_table(out / SUSPECTS, columns, _suspects(evaluation))
        shown = [figure for figure in figures if figure.name not in _DRAWN_BY_THE_PAGE]
        write_report(out / REPORT, evaluation.runs, numbers, shown)
        # Last: a folder that has it is whole.
        write_whole(out / NUMBERS, _one_key_a_line(numbers))
    except OSError as error:
        raise UserError(f"cannot write to {out} ({reason(error)}); choose another --out") from error
    return out / REPORT


def draw(evaluation: Evaluation, *, progress: bool = False) -> list[Figure]:
    """The pictures of an evaluation, those left out that would show nothing."""
    drawn = [confusion_plot, reliability_plot, classes_plot]
    if len(evaluation.runs) > 1:
        drawn.append(runs_plot)
    if len(evaluation.confident_mistakes):
        drawn.append(mistakes_sheet)
    drawn.append(uncertain_sheet)
    if evaluation.suspects:
        drawn.append(suspects_sheet)
    bar = tqdm(drawn, desc="drawing", unit="picture", leave=False, disable=not progress)
    return [plot(evaluation) for plot in bar]


def _explanations(evaluation: Evaluation, count: int, progress: bool) -> Sequence[Figure]:
    if not count:
        return []
    from jaxfood.evaluation.explanations import explain

    rows = worth_a_look(evaluation.truth, evaluation.probabilities, count)
    return explain(evaluation.runs, evaluation.index, rows, evaluation.which, progress, cache_dir=evaluation.cache_dir)


def _files_of(out: Path) -> list[str] | None:
    """What an evaluation wrote into a folder; None where none did."""
    try:
        told = json.loads(read_bytes(out / NUMBERS))
        # Whoever wrote the file: nothing above the folder or of another kind is taken for an evaluation's.
        return [name for name in map(str, told["files"]) if Path(name).name == name and Path(name).suffix in _SUFFIXES]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _predictions(evaluation: Evaluation) -> Iterable[Sequence[object]]:
    index, classes, answers = evaluation.index, evaluation.classes, evaluation.answers
    for row, path in enumerate(index.paths):
        probability = str(evaluation.probabilities[row, answers[row]])
        yield index.name(path), classes[evaluation.truth[row]], classes[answers[row]], probability
    for name in evaluation.unreadable:
        yield name, "", "", ""


def _suspects(evaluation: Evaluation) -> Iterable[Sequence[object]]:
    for rank, suspect in enumerate(evaluation.suspects, start=1):
        yield (
            rank,
            evaluation.index.name(evaluation.index.paths[suspect.row]),
            evaluation.classes[evaluation.truth[suspect.row]],
            evaluation.classes[suspect.suggested],
            f"{suspect.self_confidence:.6f}",
            f"{suspect.normalized_margin:.6f}",
        )


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_whole(path, text.getvalue())


def _one_key_a_line(numbers: dict[str, Any]) -> str:
    """Strict JSON that a person can find something in."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in numbers.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
