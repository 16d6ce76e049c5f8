"""Plots of an evaluation: the confusion matrix, the reliability diagram, each class, each run."""

from collections.abc import Sequence

import numpy as np

from jaxfood.errors import first_few
from jaxfood.evaluation.drawing import drawing
from jaxfood.evaluation.measure import Evaluation
from jaxfood.evaluation.scores import ClassScore
from jaxfood.report.confusion import MOST_NUMBERED, confusion_size, draw_confusion
from jaxfood.report.figures import Figure
from jaxfood.report.labels import fit_labels
from jaxfood.report.page import COLOURS

_NAME_COLUMNS = 26  # characters of a class name beside a plot
_MOST_BARS = 60  # classes that are drawn one by one
_BLUE, _ORANGE, _GREEN = COLOURS[:3]


def missing_characters(names: Sequence[str]) -> tuple[str, ...]:
    """The characters of names that no font here can draw, which are boxes in the pictures."""
    return fit_labels(names, 200).boxed


def confusion_plot(evaluation: Evaluation) -> Figure:
    """Rows: truth, columns: answers; the colour is the share of the row, so that rare classes show too."""
    count = len(evaluation.classes)
    with drawing(confusion_size(count)) as picture:
        draw_confusion(picture.canvas, evaluation.scores.confusion, evaluation.classes)
        mixed = _most_mixed(evaluation)
        return picture.finished(
            "confusion",
            "Confusion matrix",
            "Which classes are taken for which: rows are the truth, columns the answers"
            + (", numbers are pictures." if count <= MOST_NUMBERED else f" ({count} classes in label order).")
            + (f" Most often: {mixed}." if mixed else ""),
            f"Matrix of {count} classes. " + (f"Most often mixed up: {mixed}." if mixed else "No mistakes."),
        )


def _most_mixed(evaluation: Evaluation) -> str:
    """The three most frequent confusions, in words."""
    wrong = evaluation.scores.confusion * ~np.eye(len(evaluation.classes), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:3]
    cells = [np.unravel_index(position, wrong.shape) for position in order if wrong.flat[position]]
    classes = evaluation.classes
    return first_few([f"{classes[row]} taken for {classes[column]} ({wrong[row, column]})" for row, column in cells])


def reliability_plot(evaluation: Evaluation) -> Figure:
    """The accuracy of answers against their confidence, and how many answers there are of each."""
    bins, scores = evaluation.scores.bins, evaluation.scores
    width = bins[0].high - bins[0].low
    lows = [each.low for each in bins]
    filled = [each for each in bins if each.accuracy is not None and each.confidence is not None]
    with drawing((6.4, 5.6)) as picture:
        upper, lower = picture.canvas.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color="0.35", linestyle="--", label="perfectly calibrated")
        upper.bar(
            [each.low for each in filled],
            [each.accuracy or 0 for each in filled],
            width,
            align="edge",
            color="#9ECAE9",
            edgecolor=_BLUE,
            label="accuracy in the bin",
        )
        upper.plot(
            [each.confidence or 0 for each in filled],
            [each.accuracy or 0 for each in filled],
            linestyle="none",
            marker="o",
            color=_ORANGE,
            label="at its mean confidence",
            clip_on=False,
        )
        upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
        upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        lower.bar(lows, [each.pictures for each in bins], width, align="edge", color="0.75", edgecolor="0.35")
        lower.set(xlabel="confidence: probability of the answer", ylabel="pictures")
        mean = float(evaluation.probabilities.max(axis=1).mean())
        lean = "more" if mean > scores.accuracy else "less"
        error = scores.expected_calibration_error
        return picture.finished(
            "reliability",
            "Reliability diagram",
            f"Points on the dashed line would mean that of the answers given with 70 % some 70 % are right. On average "
            f"the answers are {abs(mean - scores.accuracy):.3f} {lean} confident than right; expected calibration "
            f"error {error:.3f} ({len(bins)} bins of equal width).",
            f"Accuracy against confidence; expected calibration error {error:.3f}.",
        )


def classes_plot(evaluation: Evaluation) -> Figure:
    """F1, precision and recall of each class, the worst first."""
    present = sorted((each for each in evaluation.scores.classes if each.support), key=lambda each: each.f1 or 0)
    shown = present[:_MOST_BARS]
    names = fit_labels([each.name for each in shown], _NAME_COLUMNS)
    heights = range(len(shown))
    with drawing((7.5, 1.5 + 0.3 * len(shown))) as picture:
        axes = picture.canvas.subplots()
        axes.grid(visible=False, axis="y")
        axes.barh(heights, [each.f1 or 0 for each in shown], color="#9ECAE9", edgecolor=_BLUE, label="F1")
        for kind, marker, colour in (("precision", ">", _ORANGE), ("recall", "o", "black")):
            found = [(getattr(each, kind), row) for row, each in enumerate(shown) if getattr(each, kind) is not None]
            values, rows = zip(*found, strict=True) if found else ((), ())
            axes.plot(values, rows, linestyle="none", marker=marker, color=colour, label=kind, clip_on=False)
        labels = [f"{name} ({each.support})" for name, each in zip(names.texts, shown, strict=True)]
        axes.set_yticks(heights, labels, fontfamily=names.families, parse_math=False)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="in brackets: pictures of the class")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        return picture.finished(
            "classes",
            "Each class",
            "The classes by F1, the worst first. Precision: how many of the pictures answered so are so; recall: how "
            f"many of those that are so were answered so.{_left_out(evaluation, present)}",
            f"Worst are {first_few([f'{each.name} (F1 {each.f1 or 0:.2f})' for each in shown[:3]])}.",
        )


def _left_out(evaluation: Evaluation, present: list[ClassScore]) -> str:
    text = f" Drawn are the {_MOST_BARS} worst of {len(present)}." if len(present) > _MOST_BARS else ""
    absent = [each.name for each in evaluation.scores.classes if not each.support]
    return text + (f" Without any picture here: {first_few(absent, 10)}." if absent else "")


def runs_plot(evaluation: Evaluation) -> Figure:
    """Each run's accuracy with its interval, and that of all together."""
    rows = [*zip(map(str, evaluation.runs), evaluation.scores_by_run, strict=True), ("all together", evaluation.scores)]
    names = fit_labels([name if len(name) < 36 else f"…{name[-34:]}" for name, _ in rows], 36)
    heights = range(len(rows))
    with drawing((7.5, 1.1 + 0.4 * len(rows))) as picture:
        axes = picture.canvas.subplots()
        for height, (_, scores) in enumerate(rows):
            colour, marker = (_ORANGE, "D") if height == len(rows) - 1 else (_BLUE, "o")
            axes.plot(
                [scores.accuracy_low, scores.accuracy_high], [height] * 2, color=colour, linestyle="-", marker="|"
            )
            axes.plot(scores.accuracy, height, color=colour, marker=marker)
        axes.set_yticks(heights, names.texts, fontfamily=names.families, parse_math=False)
        axes.set(xlabel="accuracy with its 95 % interval", ylim=(len(rows) - 0.5, -0.5))
        return picture.finished(
            "runs",
            "The runs and their ensemble",
            "Accuracies with 95 % intervals. Intervals that overlap do not say that runs are equally good: McNemar's "
            "test looks at the pictures that one alone has right.",
            "; ".join(f"{name}: {100 * scores.accuracy:.1f} %" for name, scores in rows),
        )
