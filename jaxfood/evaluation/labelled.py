"""Labelled pictures in the classes of the runs that are to answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxfood.data.index import PictureIndex, index_pictures
from jaxfood.data.labels import mend_for_missing_label
from jaxfood.errors import UserError, first_few
from jaxfood.runs.pictures import are_numbers


def index_labelled(
    images: str | Path, classes: Sequence[str], class_order: str
) -> tuple[PictureIndex, tuple[str, ...]]:
    """The pictures with their labels, and the names of the classes.

    Runs that know their classes by numbers alone take the names of the folder's, if these are as many.

    Args:
        images: a folder, a picture or a list, as `index_pictures` takes it.
        classes: the runs', in label order.
        class_order: how the runs numbered class folders.

    Raises:
        UserError: a picture has no label, or one that is not of these classes; what `index_pictures` refuses.
    """
    if not are_numbers(classes):
        index = index_pictures(images, classes, num_classes=len(classes), class_order=class_order)
    else:
        index = index_pictures(images, num_classes=len(classes), class_order=class_order)
        if index.classes and len(index.classes) != len(classes):
            raise UserError(
                f"{index.root} has {len(index.classes)} class folders ({first_few(index.classes)}), and the run knows "
                f"its {len(classes)} classes by numbers alone: name the folders 0 to {len(classes) - 1}"
            )
        classes = index.classes or classes
    _check_labels(index, classes)
    return index, tuple(classes)


def _check_labels(index: PictureIndex, classes: Sequence[str]) -> None:
    missing = [index.paths[row] for row in np.flatnonzero(index.labels < 0)]
    if missing:
        how_many = "the pictures" if len(missing) == len(index) else f"{len(missing)} of the {len(index)} pictures"
        raise UserError(
            f"{how_many} in {index.root} have no label ({first_few(index.name(path) for path in missing)}), and "
            f"evaluate compares answers with labels: {mend_for_missing_label(missing[0])}; to answer alone, predict"
        )
    beyond = [f"{index.name(index.paths[row])} has {index.labels[row]}" for row in index.labels.argsort()[::-1]]
    count = int((index.labels >= len(classes)).sum())
    if count:
        raise UserError(
            f"{count} of the {len(index)} pictures in {index.root} have labels that the run does not know "
            f"({first_few(beyond[:count])}): it has {len(classes)} classes, 0 to {len(classes) - 1} "
            f"({first_few(classes, 12)}); correct the labels, or take a run of these classes"
        )
