"""Sheets of the pictures that are worth a look, each with its class and the answer."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxfood.data.decode import decode_file_or_reason
from jaxfood.evaluation.as_json import SHOWN
from jaxfood.evaluation.drawing import DPI, drawing
from jaxfood.evaluation.measure import Evaluation
from jaxfood.report.figures import Figure
from jaxfood.report.labels import fit_labels
from jaxfood.report.page import COLOURS

_COLUMNS = 4
_SIDE = 1.75  # inches of a picture
_GAP = 0.12
_LABEL = 0.55  # three lines of text below it
_LABEL_COLUMNS = 26  # characters that have room there
_FILE_COLUMNS = 30  # smaller ones
_BLUE, _ORANGE = COLOURS[:2]


class _Panel(NamedTuple):
    row: int
    lines: tuple[str, str]  # what it is said to be, and what is said against that


def mistakes_sheet(evaluation: Evaluation) -> Figure:
    """The wrong answers that were the surest."""
    rows = evaluation.confident_mistakes
    return _sheet(
        evaluation,
        [_panel(evaluation, int(row)) for row in rows[:SHOWN]],
        "mistakes",
        "Most confident mistakes",
        f"The {min(SHOWN, len(rows))} surest of {len(rows)} wrong answers: the class that each has, and the answer "
        "with its probability.",
    )


def uncertain_sheet(evaluation: Evaluation) -> Figure:
    """The answers that were the least sure, right or wrong."""
    rows = evaluation.least_certain[:SHOWN]
    return _sheet(
        evaluation,
        [_panel(evaluation, int(row)) for row in rows],
        "uncertain",
        "Least certain answers",
        f"The {len(rows)} pictures whose answer has the lowest probability, right or wrong.",
    )


def suspects_sheet(evaluation: Evaluation) -> Figure:
    """The labels that are the likeliest to be wrong."""
    suspects = evaluation.suspects
    panels = [
        _Panel(
            suspect.row,
            (
                f"label: {evaluation.classes[evaluation.truth[suspect.row]]}",
                f"or {evaluation.classes[suspect.suggested]}?",
            ),
        )
        for suspect in suspects[:SHOWN]
    ]
    return _sheet(
        evaluation,
        panels,
        "suspected_labels",
        "Suspected wrong labels",
        f"The first {len(panels)} of {len(suspects)} pictures whose label confident learning doubts "
        "(suspected_labels.csv has all): wrong labels among hard pictures. Look before you change one.",
    )


def _panel(evaluation: Evaluation, row: int) -> _Panel:
    answer = int(evaluation.answers[row])
    percent = math.floor(100 * float(evaluation.probabilities[row, answer]))  # 99.7 % is not certain
    lines = (f"true: {evaluation.classes[evaluation.truth[row]]}", f"{percent} % {evaluation.classes[answer]}")
    return _Panel(row, lines)


def _sheet(evaluation: Evaluation, panels: Sequence[_Panel], name: str, title: str, caption: str) -> Figure:
    """The pictures as one mosaic, with what is said of each and its file's name below.

    Placed by hand: a plot for each would take ten times as long.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    columns = max(1, min(_COLUMNS, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    width, height = columns * (_SIDE + _GAP) + _GAP, lines * (_SIDE + _LABEL + _GAP)
    labels = fit_labels([line for panel in panels for line in panel.lines], _LABEL_COLUMNS)
    names = [evaluation.index.name(evaluation.index.paths[panel.row]) for panel in panels]
    files = fit_labels([name if len(name) <= _FILE_COLUMNS else f"…{name[1 - _FILE_COLUMNS :]}" for name in names], 60)
    with drawing((width, height), layout="none") as picture:
        renderer = FigureCanvasAgg(picture.canvas).get_renderer()
        for number, panel in enumerate(panels):
            left = _GAP + number % columns * (_SIDE + _GAP)
            top = height - _GAP / 2 - number // columns * (_SIDE + _LABEL + _GAP)
            picture.canvas.figimage(
                _pixels(evaluation, panel.row), round(left * DPI), round((top - _SIDE) * DPI), origin="upper"
            )
            lines_below = (
                (0.05, labels.texts[2 * number], labels.families, 9, _darker(_BLUE)),
                (0.22, labels.texts[2 * number + 1], labels.families, 9, _darker(_ORANGE)),
                (0.39, files.texts[number], files.families, 7, "0.35"),
            )
            for offset, text, families, size, colour in lines_below:
                x, y = left / width, (top - _SIDE - offset) / height
                written = picture.canvas.text(
                    x, y, text, va="top", fontsize=size, color=colour, fontfamily=families, parse_math=False
                )
                # Columns are of average letters: W and & are wider.
                extent = written.get_window_extent(renderer).width
                written.set_fontsize(size * min(1, _SIDE * DPI / max(extent, 1)))
        alt = "; ".join(f"{name}: {', '.join(panel.lines)}" for name, panel in zip(names, panels, strict=True))
        return picture.finished(name, title, caption, alt, photographs=True)


def _darker(colour: str) -> tuple[float, ...]:
    """For small text on white: a contrast of 4.5 at least."""
    from matplotlib.colors import to_rgb

    return tuple(0.75 * part for part in to_rgb(colour))


def _pixels(evaluation: Evaluation, row: int) -> np.ndarray:
    """A picture as large as it is drawn, squared as the first run saw it."""
    data, side = evaluation.config.data, round(_SIDE * DPI)
    decoded = decode_file_or_reason(
        evaluation.index.paths[row], side, exif_orientation=data.exif_orientation, resize=data.resize
    )
    if isinstance(decoded, str):  # changed since it was answered
        return np.full((side, side, 3), 255, np.uint8)
    return decoded.pixels
