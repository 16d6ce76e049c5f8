"""A confusion matrix as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxfood.report.labels import fit_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 25  # classes whose counts are written out: those of more would be too small to read
_MOST_NAMED = 120  # classes whose names stand beside the matrix
_NAME_COLUMNS = 26  # characters of a name


def confusion_size(count: int) -> tuple[float, float]:
    """Width and height in inches of the matrix of so many classes."""
    side = max(2.0, (0.44 if count <= MOST_NUMBERED else 0.16 if count <= _MOST_NAMED else 9 / count) * count)
    return side + 3.2, side + 2.4


def draw_confusion(figure: "Figure", counts: np.ndarray, classes: Sequence[str], title: str = "") -> None:
    """Draw a matrix on an empty figure.

    Its cells are coloured by their share of the row, so that rare classes are as visible as others.

    Args:
        figure: of `confusion_size`.
        counts: pictures, [num_classes, num_classes]; rows are the truth, columns the answers.
        classes: their names.
        title: above it.
    """
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    count, names = len(classes), fit_labels(classes, _NAME_COLUMNS)
    axes = figure.subplots()
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= _MOST_NAMED:
        size = 9 if count <= MOST_NUMBERED else 6
        for set_ticks in (axes.set_yticks, axes.set_xticks):
            set_ticks(range(count), names.texts, fontfamily=names.families, fontsize=size, parse_math=False)
        axes.tick_params(axis="x", labelrotation=90)
    if count <= MOST_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlabel="answer", ylabel="truth")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the pictures of the class")


def confusion_pixels(counts: np.ndarray, classes: Sequence[str], title: str) -> np.ndarray:
    """`draw_confusion` as pixels, uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=confusion_size(len(classes)), dpi=100, layout="constrained")
    draw_confusion(figure, counts, classes, title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
