"""Training pictures as the network will see them: one in many epochs, and many in one."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxfood.config.augment import AugmentConfig
from jaxfood.config.sections import Config
from jaxfood.data.augment import changes, mixes, vary
from jaxfood.data.batches import epoch_order
from jaxfood.data.splits import Splits
from jaxfood.report.labels import fit_labels
from jaxfood.report.page import Page, escaped

_VIEWS = 11  # beside the plain picture
_MANY = 24
_COLUMNS = {"one": 4, "many": 6}
_PANEL = 1.6  # inches, the side of a picture on a sheet
_LINE = 0.18  # inches, of a line of the label above it
_LABEL_COLUMNS = 21  # characters that have room in a line


def draw_sheets(page: Page, config: Config, splits: Splits) -> tuple[str, ...]:
    """Draw `one_picture.png` and `many_pictures.png`: what the run's first batch begins with.

    Returns the characters of class names that no font here can draw.
    """
    positions = epoch_order(config.train.seed, 0, len(splits.train))[: config.train.batch_size]
    pictures = splits.train.subset(positions)
    names = [f"{label} {splits.classes[label]}" for label in pictures.labels]
    plain = {"image": np.asarray(pictures.images), "position": positions, "label": np.asarray(pictures.labels)}
    _draw_one(page, config, {name: rows[:1] for name, rows in plain.items()}, names[0])
    batch = see(config, plain, epoch=0)
    count = min(_MANY, len(positions))
    labels, others = [[name] for name in names[:count]], ""
    if mixes(config.augment):
        labels = [
            [f"{share:.0%} {name}", f"{1 - share:.0%} {label} {splits.classes[label]}"] if share < 1 else [name]
            for name, share, label in zip(names, batch["share"].tolist(), batch["other_label"].tolist(), strict=True)
        ][:count]
        others = ", or two where it is mixed with another" if any(len(lines) > 1 for lines in labels) else ""
    caption = f"{count} pictures of the first batch as the network will see them, each with its class{others}"
    return _draw(page, "many_pictures", caption, batch["image"][:count], labels, _COLUMNS["many"])


def see(config: Config, batch: dict[str, np.ndarray], epoch: int) -> dict[str, Any]:
    """A batch as the first update of an epoch (from 0 on) of the run would see it, were it its first batch.

    Args:
        config: the run's; `augment`, `train.seed` and the image sizes are read.
        batch: plain, as `jaxfood.data.augment.vary` takes it.
        epoch: the views of two differ.
    """
    size = config.train.size_of_epoch(epoch, config.data.image_size)
    return jax.tree.map(np.asarray, _varied(config.augment, batch, epoch, seed=config.train.seed, size=size))


@partial(jax.jit, static_argnames=("config", "seed", "size"))  # the epoch is none: one program draws all views
def _varied(config: AugmentConfig, batch: dict[str, jax.Array], epoch: int, *, seed: int, size: int) -> dict[str, Any]:
    return vary(config, batch, seed=seed, epoch=epoch, step=epoch, size=size)


def _draw_one(page: Page, config: Config, picture: dict[str, np.ndarray], name: str) -> None:
    """Draw `one_picture.png`, of a batch of one picture."""
    if not changes(config.augment):
        caption = f"A training picture of class {escaped(name)}, the same in every epoch: no augmentation is set"
        _draw(page, "one_picture", caption, picture["image"], [[name]], _COLUMNS["one"])
        return
    views = [see(config, picture, epoch)["image"] for epoch in range(_VIEWS)]
    caption = f"A training picture of class {escaped(name)}, and what the network will see of it in the first epochs"
    labels = [["the picture"], *([f"epoch {1 + epoch}"] for epoch in range(_VIEWS))]
    shown = [*picture["image"], *(view for seen in views for view in seen)]
    _draw(page, "one_picture", caption, shown, labels, _COLUMNS["one"])


def _draw(
    page: Page,
    name: str,
    caption: str,
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[Sequence[str]],
    columns: int,
) -> tuple[str, ...]:
    """Draw pictures in rows, each below the lines of its label; returns as `draw_sheets`."""
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    lines = max(map(len, labels))
    fitted = fit_labels([line for label in labels for line in label], _LABEL_COLUMNS)
    texts = iter(fitted.texts)
    with page.figure(name, caption, size=(columns * _PANEL, rows * (_PANEL + lines * _LINE))) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis in axes:
            axis.set_axis_off()
        for axis, image, label in zip(figure.axes, images, labels, strict=False):
            # Each pixel as a square: smoothed, a small picture would look better than what the network gets.
            axis.imshow(image, interpolation="nearest")
            text = "\n".join(next(texts) for _ in label)
            axis.set_title(text, fontsize=8, pad=3, fontfamily=fitted.families, parse_math=False)
    return fitted.boxed
