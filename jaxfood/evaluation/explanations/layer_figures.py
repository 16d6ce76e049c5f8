"""Figures of a network's layers: its first filters, what later ones look for, and layers as maps of pictures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from jaxfood.data.pictures import Pictures
from jaxfood.evaluation.explanations.drawing import Canvas, canvas
from jaxfood.evaluation.explanations.embedding import (
    LayerFeatures,
    choose_method,
    embed,
    layer_features,
    neighbour_agreement,
)
from jaxfood.evaluation.explanations.features import middle_layer
from jaxfood.evaluation.explanations.filters import first_filters, maximise, telling_channels, top_pictures
from jaxfood.evaluation.explanations.scores import Variables
from jaxfood.model.network import Network
from jaxfood.report.figures import Figure
from jaxfood.report.labels import fit_labels
from jaxfood.report.page import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

MOST_PICTURES = 1000  # of the index that the maps show, drawn at random where it has more
_FEWEST = 3  # pictures that make a map
_FILTERS, _MAXIMA, _TOP = 64, 6, 5  # first filters, later ones, pictures for each of these
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_NAMED = 14  # classes in the legend; others are grey
_OTHERS = "#999999"
_LEGEND = 18  # characters of a class name that have room there


def draw_layers(
    model: Network,
    variables: Variables,
    pictures: Pictures,
    classes: Sequence[str],
    *,
    said: str = "",
    seed: int = 0,
    bar: tqdm | None = None,
) -> list[Figure]:
    """Figures "filters", "filter_maxima" and "layers" of a network and pictures.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        pictures: of the network's size; a thousand of them are looked at.
        classes: names in label order.
        said: what to add to every caption.
        seed: of which pictures, of the ascent and of t-SNE.
        bar: told of each of the two steps.
    """
    if (count := len(pictures)) > MOST_PICTURES:
        drawn = np.random.default_rng(seed).choice(count, MOST_PICTURES, replace=False)
        pictures = pictures.subset(np.sort(drawn))
    side = pictures.images.shape[1]
    layer = middle_layer(model, variables, side)
    found = layer_features(model, variables, pictures.images, layer)
    figures = [_draw_filters(first_filters(model, variables, side), said)]
    figures += _draw_maxima(model, variables, layer, pictures, found, said, seed)
    if bar is not None:
        bar.update()
    if len(pictures) >= _FEWEST:
        of_how_many = f"{len(pictures)} of {count}" if len(pictures) < count else f"{count}"
        figures.append(_draw_maps(layer, found, pictures.labels, classes, of_how_many, said, seed))
    if bar is not None:
        bar.update()
    return figures


def _draw_filters(filters: np.ndarray, said: str) -> Figure:
    shown = filters[:_FILTERS]
    columns = min(16, len(shown))
    side, gap = 0.48, 0.06
    step = side + gap
    with canvas(columns * step + gap, math.ceil(len(shown) / columns) * step + gap) as drawn:
        for number, values in enumerate(shown):
            row, column = divmod(number, columns)
            image = 0.5 + 0.5 * values / max(np.abs(values).max(), np.finfo(np.float32).tiny)
            drawn.panel(gap + column * step, gap + row * step, side, image)
    height, width = filters.shape[1:3]
    of_how_many = f"{len(shown)} of the {len(filters)}" if len(shown) < len(filters) else f"the {len(filters)}"
    caption = (
        f"{of_how_many[0].upper()}{of_how_many[1:]} filters of the first layer, {height} by {width} pixels, as "
        "colours: grey is 0, a brighter red, green or blue a larger weight of it; each filter has a range of its own."
    )
    return Figure("filters", "Filters of the first layer", f"{caption} {said}".strip(), drawn.png)


def _draw_maxima(
    model: Network,
    variables: Variables,
    layer: str,
    pictures: Pictures,
    found: LayerFeatures,
    said: str,
    seed: int,
) -> list[Figure]:
    channels = telling_channels(found.channels, _MAXIMA)
    if not len(channels):  # all pictures are the same to this layer
        return []
    best = maximise(model, variables, layer, channels, pictures.images.shape[1], seed=seed)
    rows = top_pictures(found.channels, channels, _TOP)
    side, gap, left, top = 1.0, 0.05, 0.85, 0.25
    step = side + gap
    width, height = left + (1 + rows.shape[1]) * step + 2 * gap, top + len(channels) * step
    with canvas(width, height) as drawn:
        _write(drawn, left + side / 2, top / 2, "by ascent", ha="center")
        _write(drawn, left + step + 2 * gap, top / 2, "pictures, most active first")
        for number, (channel, image) in enumerate(zip(channels, best.images, strict=True)):
            place = top + number * step
            _write(drawn, 0.08, place + side / 2, f"filter {channel}")
            drawn.panel(left, place, side, image)
            for column, row in enumerate(rows[number], start=1):
                drawn.panel(left + column * step + 2 * gap, place, side, pictures.images[row] / 255)
    caption = (
        f"Filters of the layer {layer} that tell pictures apart most. Left: a picture made by gradient ascent to make "
        "the filter as active as can be. Beside it: the pictures that activate it most, by the mean over all places."
    )
    return [Figure("filter_maxima", "What filters look for", f"{caption} {said}".strip(), drawn.png)]


def _write(drawn: Canvas, left: float, top: float, text: str, *, ha: str = "left") -> None:
    width, height = drawn.figure.get_size_inches()
    drawn.figure.text(left / width, 1 - top / height, text, ha=ha, va="center", fontsize=8)


def _draw_maps(
    layer: str,
    found: LayerFeatures,
    labels: np.ndarray,
    classes: Sequence[str],
    of_how_many: str,
    said: str,
    seed: int,
) -> Figure:
    is_labelled = bool(np.all((labels >= 0) & (labels < len(classes))))
    kinds = labels if is_labelled else found.answers
    method = choose_method(len(kinds))
    panels = ((f"middle layer ({layer})", found.layer), ("last hidden layer", found.hidden))
    side, gap, top, legend = 4.1, 0.15, 0.3, 1.75
    width, height = 2 * (side + gap) + gap + legend, side + top + gap
    with canvas(width, height) as drawn:
        for number, (name, values) in enumerate(panels):
            left = gap + number * (side + gap)
            axes = drawn.axes(left, top, side, side)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(name, fontsize=9, pad=4)
            handles = _scatter(axes, embed(values, method=method, seed=seed), kinds)
        names = fit_labels([classes[kind] if kind >= 0 else "other classes" for kind in handles], _LEGEND)
        drawn.figure.legend(
            list(handles.values()),
            names.texts,
            loc="center left",
            bbox_to_anchor=((width - legend) / width, 0.5),
            frameon=False,
            prop={"family": names.families, "size": 8},
        )
    shares = [f"{neighbour_agreement(values, kinds):.0%} in the {name.split(' (')[0]}" for name, values in panels]
    whose = "class" if is_labelled else "answered class, as not all of them have labels"
    how = "t-SNE: only who is near whom means something, not how far" if method == "t-SNE" else "two components of PCA"
    caption = (
        f"{of_how_many} pictures as the middle and the last hidden layer see them ({how}), each in the colour and mark "
        f"of its {whose}. Pictures whose nearest neighbour in the layer itself is of the same class: "
        f"{' and '.join(shares)}. {said}"
    )
    return Figure("layers", "A middle and the last layer", caption.strip(), drawn.png)


def _scatter(axes: "Axes", places: np.ndarray, kinds: np.ndarray) -> "dict[int, PathCollection]":
    """Draw pictures at places `[N, 2]`; what to put into the legend, by class, -1 for others."""
    present, counts = np.unique(kinds, return_counts=True)
    most = present[np.argsort(-counts, kind="stable")][: _NAMED if len(present) > _NAMED else len(present)]
    handles = {}
    others = ~np.isin(kinds, most)
    if others.any():
        handles[-1] = axes.scatter(places[others, 0], places[others, 1], s=7, c=_OTHERS, marker=".")
    for number, kind in enumerate(np.sort(most)):
        colour = COLOURS[number % len(COLOURS)]
        marker = _MARKERS[(number + number // len(COLOURS)) % len(_MARKERS)]
        across, up = places[kinds == kind].T
        handles[int(kind)] = axes.scatter(across, up, s=10, c=colour, marker=marker, linewidths=0)
    return handles
