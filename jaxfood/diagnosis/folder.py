"""Whether a data folder is usable: its splits, classes, what is passed over, whether its pictures decode."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxfood.data.decode import DecodingError, decode_picture
from jaxfood.data.index import PictureIndex, check_labels, counted, index_pictures
from jaxfood.data.layout import TRAIN_FOLDERS, find_layout, find_root, flags
from jaxfood.data.records import PictureRecord, class_remarks, class_table
from jaxfood.data.splits import class_names, count_classes
from jaxfood.diagnosis import lines_on
from jaxfood.errors import UserError, first_few
from jaxfood.places import entries, is_folder, similar

_SAMPLE = 100  # pictures that are decoded
_IMAGE_SIZE = 128


def describe_folder(root: Path) -> Iterator[str]:
    """What training on a folder would find, and the command for it.

    Raises:
        UserError: it cannot be trained on, and why.
    """
    if not is_folder(root):
        raise UserError(f"{root}: no such folder{similar(root)}; name the one that holds train/ and valid/")
    layout = find_layout(root)
    if layout.train in ("", ".") and (meant := find_root(root)):
        raise UserError(
            f"{root} has no training folder, {meant} has: python -m jaxfood.doctor {shlex.quote(str(meant))}"
        )
    if not layout.train:
        there = first_few([entry.name for entry in entries(root) if is_folder(entry)], 12)
        raise UserError(f"{root} has no training folder ({', '.join(TRAIN_FOLDERS)}); it holds: {there}")
    train = index_pictures(root / layout.train)
    classes = class_names(root, train.classes, count_classes([train]))
    indexes = {"train": train}
    if layout.valid:
        indexes["valid"] = index_pictures(root / layout.valid, classes, num_classes=len(classes))
        check_labels(indexes["valid"], len(classes))
    records = tuple(record for split, index in indexes.items() for record in _records(split, index))
    yield from lines_on("data", [str(root), *class_table(records, classes)])
    remarks = list(class_remarks(records, classes, class_order="name", are_names=bool(train.classes)))
    if layout.test:
        test = index_pictures(root / layout.test, labelled=False)
        remarks.append(f"{layout.test}: {len(test)} pictures to predict")
        indexes["test"] = test
    passed_over = {index.root: index.passed_over for index in indexes.values() if index.passed_over}
    remarks += [f"passed over in {folder}: {counted(kinds)}" for folder, kinds in passed_over.items()]
    yield from lines_on("", [*remarks, *_decode_some(indexes)])
    yield from lines_on("command", [f"python -m jaxfood.train --data.root {shlex.quote(str(root))}{flags(layout)}"])


def _records(split: str, index: PictureIndex) -> Iterator[PictureRecord]:
    """Those of pictures that nobody has read, so without their digests."""
    for path, label in zip(index.paths, index.labels, strict=True):
        yield PictureRecord(split, index.name(path), int(label), "")


def _decode_some(indexes: dict[str, PictureIndex]) -> Iterator[str]:
    """Whether pictures decode, of some spread over all; and how long all of them will take on one core."""
    pictures = [(index, path) for index in indexes.values() for path in index.paths]
    rows = np.unique(np.linspace(0, len(pictures) - 1, min(_SAMPLE, len(pictures))).round().astype(int))
    broken: list[str] = []
    start = time.perf_counter()
    for index, path in (pictures[row] for row in rows):
        try:
            decode_picture(path, _IMAGE_SIZE)
        except DecodingError as error:
            broken.append(f"{index.name(path)}: {error}")
    seconds = (time.perf_counter() - start) / len(rows) * len(pictures)
    if broken:
        yield (
            f"{len(broken)} of {len(rows)} pictures that were tried cannot be read ({first_few(broken)}): mend or "
            "remove them, or --data.skip_corrupt true"
        )
    else:
        yield (
            f"{len(rows)} pictures that were tried decode; all {len(pictures)} take about {seconds:.0f} s of a core, "
            "once"
        )
