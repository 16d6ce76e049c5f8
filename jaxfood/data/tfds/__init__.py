"""Data sets of TFDS (https://www.tensorflow.org/datasets) as a source, without TensorFlow: `data.source = "tfds:NAME"`.

They must have been prepared in the format array_record, which can be read at any position. This is how Food-11 is:

    python -m jaxfood.data.tfds --images hw3_data [--data_dir DIR]
    python -m jaxfood.train --data.source tfds:food11 [--data.root DIR]
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxfood.config.sections import DataConfig
from jaxfood.data.decode import DecodingError, decode_bytes, decode_file_or_reason
from jaxfood.data.index import PictureIndex, counted
from jaxfood.data.labels import NO_LABEL
from jaxfood.data.pictures import StoredPictures, list_unreadable
from jaxfood.data.records import PictureRecord
from jaxfood.data.threads import map_in_threads
from jaxfood.errors import UserError, printable
from jaxfood.extras import require
from jaxfood.files import absolute, to_local_path, to_path

PREFIX = "tfds:"

_FORMAT = "array_record"
_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")  # NAME[/CONFIG][:VERSION]


@dataclass(frozen=True, eq=False)
class TfdsPictures(StoredPictures):
    """Pictures of a TFDS split, decoded each time they are read.

    Attributes:
        records: the split, its pictures still encoded.
        keys: the features of a record that are its picture and its label.
        image_size: side of the square every picture is resized to.
        name: the split's, for messages.
        exif_orientation: whether pictures are turned as their EXIF data say.
        resize: as `data.resize` has it.
        fast: as `data.decode = "fast"` has it.
    """

    records: Sequence[dict[str, Any]]
    keys: tuple[str, str]
    image_size: int
    name: str
    exif_orientation: bool = False
    resize: str = "squash"
    fast: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(positions), self.image_size, self.image_size, 3), np.uint8)
        labels = np.empty(len(positions), np.int32)
        image_key, label_key = self.keys
        for row, position in enumerate(positions):
            record = self.records[int(position)]
            labels[row] = record[label_key]
            picture = f"picture {position} of {self.name}"
            try:
                images[row] = decode_bytes(
                    record[image_key],
                    self.image_size,
                    exif_orientation=self.exif_orientation,
                    resize=self.resize,
                    fast=self.fast,
                )
            except DecodingError as error:
                raise UserError(f"{picture} cannot be read ({error}): prepare the data set again without it") from error
            if labels[row] < 0:
                raise UserError(f"{picture} has no label: name a split whose pictures have one")
        return images, labels


def open_splits(
    data: DataConfig, num_classes: int
) -> tuple[TfdsPictures, TfdsPictures, tuple[str, ...], tuple[PictureRecord, ...]]:
    """The training and validation pictures of the data set that `data.source` names, its class names, and its identity.

    That is a record for each split, not for each picture: what TFDS tells of a split without reading it.

    Args:
        data: `root` is TFDS's data_dir (empty: its own default), `train` and `valid` are split expressions.
        num_classes: as many as the data set has, or 0.

    Raises:
        UserError: TFDS is not installed; there is no such data set, prepared and of pictures with labels, or split; or
            a setting asks for what a data set prepared elsewhere cannot give.
    """
    _check_settings(data)
    require("tensorflow_datasets", data.source, extra="tfds")
    require("array_record", data.source, extra="tfds")
    builder = _find(data)
    keys = _picture_and_label(builder, data.source)
    classes = tuple(builder.info.features[keys[1]].names)
    if num_classes not in (0, len(classes)):
        raise UserError(
            f"{data.source} has {len(classes)} classes and model.num_classes = {num_classes}: "
            f"leave model.num_classes out, or set it to {len(classes)}"
        )
    splits = {split: _open_split(builder, keys, split, data) for split in ("train", "valid")}
    records = tuple(_record(builder, split, getattr(data, split), pictures) for split, pictures in splits.items())
    return splits["train"], splits["valid"], classes, records


def _record(builder: Any, split: str, expression: str, pictures: "TfdsPictures") -> PictureRecord:
    told = [builder.info.full_name, expression, len(pictures)]
    told += [[name, info.num_bytes, *info.shard_lengths] for name, info in sorted(builder.info.splits.items())]
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
    return PictureRecord(split, f"{builder.info.full_name} {expression}", NO_LABEL, digest)


def _check_settings(data: DataConfig) -> None:
    if not _NAME.fullmatch(data.source.removeprefix(PREFIX)):
        raise UserError(f"data.source = {data.source!r}: write tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.2.3")
    if data.fraction < 1:
        raise UserError(
            f"data.fraction = {data.fraction}: a share of {data.source} is a split of its own: leave data.fraction out "
            f"and set data.train = {data.train}[:{100 * data.fraction:g}%]"
        )
    if data.skip_corrupt:
        raise UserError(
            f"data.skip_corrupt = true: how many pictures {data.source} has is known before they are read: leave "
            "data.skip_corrupt out, and unreadable pictures out of the data set"
        )


def _find(data: DataConfig) -> Any:
    """The builder of a data set, from its files alone: the code that made it may need TensorFlow."""
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    name = data.source.removeprefix(PREFIX)
    where = {"data_dir": str(to_local_path(data.root, "data.root ="))} if data.root else {}
    try:
        builder = builder_from_files(name, **where)
    except DatasetNotFoundError:
        place = data.root or "TFDS's default folder"
        raise UserError(f"{data.source} is not in {place}: {_how_to_prepare(name)}, or set data.root") from None
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if _FORMAT not in formats:
        raise UserError(
            f"{data.source} is in {builder.data_dir} as {', '.join(sorted(formats))}, which cannot be read in any "
            f"order: move it away and {_how_to_prepare(name)}"
        )
    return builder


def _how_to_prepare(name: str) -> str:
    if name.startswith("food11"):
        return "prepare it with python -m jaxfood.data.tfds --images hw3_data"
    prepare = f"tfds.builder('{name}', file_format='{_FORMAT}').download_and_prepare()"
    return f'prepare it with python -c "import tensorflow_datasets as tfds; {prepare}"'


def _picture_and_label(builder: Any, source: str) -> tuple[str, str]:
    """The names of the two features that a classifier learns from."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image, label, *_ = builder.info.supervised_keys or ("image", "label")
    is_picture = isinstance(features.get(image), tfds.features.Image) and features[image].np_dtype == np.uint8
    if not is_picture or not isinstance(features.get(label), tfds.features.ClassLabel):
        names = ", ".join(sorted(features))
        raise UserError(f"{source} is no set of pictures with a class each (its features: {names}): take another")
    return image, label


def _open_split(builder: Any, keys: tuple[str, str], split: str, data: DataConfig) -> TfdsPictures:
    import tensorflow_datasets as tfds

    expression = getattr(data, split)
    decoders = {keys[0]: tfds.decode.SkipDecoding()}
    try:
        records = builder.as_data_source(expression, decoders=decoders, file_format=_FORMAT)
    except ValueError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"data.{split} = {expression!r}: {reason}; {data.source} has the splits {', '.join(builder.info.splits)}"
        ) from None
    named = f"{data.source}, data.{split}"
    how = (data.exif_orientation, data.resize, data.decodes_fast)
    return TfdsPictures(records, keys, data.image_size, named, *how)


def prepare_food11(images: str | Path, data_dir: str | Path = "") -> Path:
    """Write the homework's pictures as the data set `food11`, and return its folder.

    Args:
        images: the folder that holds `train` and `valid` with labels, and maybe `test`.
        data_dir: where TFDS keeps data sets, on this machine; the empty string is its own default.

    Raises:
        UserError: TFDS is not installed, the data set is there already, pictures cannot be read or have wrong labels.
    """
    require("tensorflow_datasets", "food11", extra="tfds")
    root = absolute(to_path(images).expanduser())
    where = str(to_local_path(data_dir, "--data_dir")) if str(data_dir) else None
    import tensorflow_datasets as tfds

    from jaxfood.data.tfds.food11 import Food11, index_splits

    builder = Food11(data_dir=where, file_format=_FORMAT)
    if builder.data_path.exists():  # it appears whole
        raise UserError(f"{builder.data_dir} is there already: remove it to prepare it again")
    for index in index_splits(root).values():
        _check_readable(index)
        if index.passed_over:
            print(printable(f"passed over in {index.root}: {counted(index.passed_over)}"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=root, try_download_gcs=False))
    return Path(builder.data_dir)


def _check_readable(index: PictureIndex) -> None:
    with closing(map_in_threads(lambda path: decode_file_or_reason(path, 1), index.paths)) as pictures:
        decoded = zip(index.paths, pictures, strict=True)
        unreadable = {index.name(path): picture for path, picture in decoded if isinstance(picture, str)}
    if unreadable:
        named = list_unreadable(unreadable)
        raise UserError(f"{len(unreadable)} pictures in {index.root} cannot be read: {named}; mend or remove them")
