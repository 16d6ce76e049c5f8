"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np

from jaxfood.report.labels import fit_labels

_MOST_NUMBERS = 30  # classes: the counts of more would be too small to read
_LABEL = 24  # columns


def draw_confusion(counts: np.ndarray, classes: Sequence[str], title: str) -> np.ndarray:
    """A confusion matrix, uint8 [H, W, 3], by matplotlib.

    A row is a true class; its cells are coloured by their share of it, so that rare classes are as visible as others.

    Args:
        counts: pictures, [num_classes, num_classes]; rows are the truth, columns the answers.
        classes: their names.
        title: above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    side = 2.2 + 0.42 * min(count, _MOST_NUMBERS)
    figure = Figure(figsize=(side + 0.6, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = fit_labels(classes, _LABEL)
    size = 8 if count <= _MOST_NUMBERS else 240 / count
    axes.set_xticks(range(count), labels.texts, rotation=90, fontsize=size, fontfamily=labels.families)
    axes.set_yticks(range(count), labels.texts, fontsize=size, fontfamily=labels.families)
    axes.set(xlabel="answer", ylabel="truth")
    axes.set_title(title, fontsize=10)
    if count <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.55 else "black"
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="share of the true class", shrink=0.7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
