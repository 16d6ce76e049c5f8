"""Training pictures as the network will see them: one in many epochs, and many in one."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from jaxfood.config.sections import Config
from jaxfood.data.augment import augment, changes
from jaxfood.data.batches import epoch_order
from jaxfood.data.splits import Splits
from jaxfood.report.labels import fit_labels
from jaxfood.report.page import Page, escaped

_VIEWS = 11  # beside the plain picture
_MANY = 24
_COLUMNS = {"one": 4, "many": 6}
_PANEL = 1.6  # inches, the side of a picture on a sheet
_LABEL = 0.18  # inches above it
_LABEL_COLUMNS = 21  # characters that have room there


def draw_sheets(page: Page, config: Config, splits: Splits) -> tuple[str, ...]:
    """Draw `one_picture.png` and `many_pictures.png`: what the run's first batch begins with.

    Returns the characters of class names that no font here can draw.
    """
    order = epoch_order(config.train.seed, 0, len(splits.train))
    positions = order[: min(_MANY, config.train.batch_size)]
    pictures = splits.train.subset(positions)
    names = [f"{label} {splits.classes[label]}" for label in pictures.labels]
    _draw_one(page, config, pictures.images[:1], positions[:1], names[0])
    seen = see(config, pictures.images, positions, epoch=0)
    caption = f"{len(positions)} pictures of the first batch as the network will see them, each with its class"
    return _draw(page, "many_pictures", caption, seen, names, _COLUMNS["many"])


def see(config: Config, images: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
    """Pictures as an epoch of the run (from 0 on) will see them.

    Args:
        config: the run's; `augment`, `train.seed` and the image sizes are read.
        images: `[B, H, W, 3]`, plain.
        positions: `[B]`, the number of each among the training pictures.
        epoch: the views of two differ.
    """
    size = config.train.size_of_epoch(epoch, config.data.image_size)
    if not changes(config.augment) and size == images.shape[1]:
        return np.asarray(images)
    key = jax.random.fold_in(jax.random.key(config.train.seed), epoch)
    return np.asarray(jax.jit(partial(augment, config.augment, size=size))(np.asarray(images), positions, key))


def _draw_one(page: Page, config: Config, image: np.ndarray, position: np.ndarray, name: str) -> None:
    if not changes(config.augment):
        caption = f"A training picture of class {escaped(name)}, the same in every epoch: no augmentation is set"
        _draw(page, "one_picture", caption, image, [name], _COLUMNS["one"])
        return
    views = [see(config, image, position, epoch) for epoch in range(_VIEWS)]
    caption = f"A training picture of class {escaped(name)}, and what the network will see of it in the first epochs"
    labels = ["the picture", *(f"epoch {1 + epoch}" for epoch in range(_VIEWS))]
    _draw(page, "one_picture", caption, [*image, *(view for seen in views for view in seen)], labels, _COLUMNS["one"])


def _draw(
    page: Page, name: str, caption: str, images: Sequence[np.ndarray] | np.ndarray, labels: Sequence[str], columns: int
) -> tuple[str, ...]:
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    fitted = fit_labels(labels, _LABEL_COLUMNS)
    with page.figure(name, caption, size=(columns * _PANEL, rows * (_PANEL + _LABEL))) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis in axes:
            axis.set_axis_off()
        for axis, image, label in zip(figure.axes, images, fitted.texts, strict=False):
            # Each pixel as a square: smoothed, a small picture would look better than what the network gets.
            axis.imshow(image, interpolation="nearest")
            axis.set_title(label, fontsize=8, pad=3, fontfamily=fitted.families, parse_math=False)
    return fitted.boxed
