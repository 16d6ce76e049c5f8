"""The training and validation pictures that a configuration names."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jaxfood import processes
from jaxfood.config.loss import BALANCED
from jaxfood.config.model import MAX_CLASSES
from jaxfood.config.sections import Config, DataConfig
from jaxfood.data import tfds
from jaxfood.data.cache import UnreadableError, load_pictures
from jaxfood.data.cache_folder import cache_folder, fingerprint
from jaxfood.data.cached_pictures import CachedPictures
from jaxfood.data.decode import is_jpeg
from jaxfood.data.demo import demo_root
from jaxfood.data.index import PictureIndex, Positions, check_labels, counted, index_pictures
from jaxfood.data.labels import NO_LABEL
from jaxfood.data.layout import mend
from jaxfood.data.pictures import Pictures, StoredPictures, list_unreadable
from jaxfood.data.records import Records, class_remarks, doubles, record_split
from jaxfood.data.shares import select
from jaxfood.data.unlabeled import choose_unlabeled
from jaxfood.errors import UserError, first_few
from jaxfood.files import read_bytes, to_path
from jaxfood.optim.losses import balanced_class_weights, is_balanced
from jaxfood.places import entries, exists, is_file, is_folder, similar


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and validation pictures, decoded or to be read batch by batch, and what a run must remember of them.

    Attributes:
        train: what is trained on.
        valid: what is evaluated on.
        unlabeled: what is trained on without labels, if anything.
        classes: each class's name in label order.
        records: the pictures of all by name, label and content.
        remarks: what was passed over, guessed or stands twice, a line each.
    """

    train: Pictures | StoredPictures
    valid: Pictures | StoredPictures
    classes: tuple[str, ...]
    records: Records = ()
    remarks: tuple[str, ...] = ()
    unlabeled: Pictures | StoredPictures | None = None

    def completed(self, config: Config) -> Config:
        """A configuration with as many classes as these pictures have, and with class weights in numbers.

        Raises:
            UserError: the class weights are to be balanced and the labels are not known.
        """
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=len(self.classes)))
        if not is_balanced(config.loss):
            return config
        labels = [record.label for record in self.records if record.split == "train"]
        if NO_LABEL in labels:
            raise UserError(
                f"loss.class_weights = {BALANCED}: {config.data.source} does not tell how many pictures each class "
                "has; give a weight for each class"
            )
        weights = balanced_class_weights(np.bincount(labels, minlength=len(self.classes)).tolist())
        loss = dataclasses.replace(config.loss, class_weights=weights)  # type: ignore[call-arg]  # not of every loss
        return dataclasses.replace(config, loss=loss)


def load_splits(
    data: DataConfig, num_classes: int = 0, *, seed: int, folds: int = 0, fold: int = 0, progress: bool = True
) -> Splits:
    """Index the splits, check every label, then decode them (or find them decoded).

    Several processes must all call it, within `processes.together`; where they share a cache folder the first decodes.

    Args:
        data: where the pictures are. `train` and `valid` may name several folders joined by `+`. For a data set of
            TFDS see `jaxfood.data.tfds`.
        num_classes: labels must be below it; 0: as many as the training pictures have.
        seed: which pictures `data.valid_fraction` and `data.fraction` take, and which fold has which.
        folds: how many folds of the training pictures there are to be; 0: none.
        fold: the one that is validated on in place of `data.valid`, from 1 on; 0: none, but that they can be made is
            checked.
        progress: whether to show bars.

    Raises:
        UserError: a folder is missing or empty, a label is missing or too large, pictures cannot be read, there are too
            few for a share or for folds.
    """
    if data.source.startswith(tfds.PREFIX):
        if data.unlabeled:
            raise UserError(
                f"data.unlabeled = {data.unlabeled}: not with {data.source}, only with data.source = folder"
            )
        _refuse_shares(data, folds)
        opened = tfds.open_splits(data, num_classes)
        named = f"{len(opened[2])} classes: {first_few(opened[2], 12)}"
        return Splits(*opened, (f"{named}; how many pictures each has TFDS does not tell",))
    return _of_folders(data, num_classes, seed=seed, folds=folds, fold=fold, progress=progress)


def _of_folders(data: DataConfig, num_classes: int, *, seed: int, folds: int, fold: int, progress: bool) -> Splits:
    root = _root(data)
    train, num_classes = _index_train(root, data, num_classes)
    classes = class_names(root, train[0].classes, num_classes)
    has_own = not data.valid_fraction and not fold
    valid = _index_split(root, "valid", data, num_classes, classes) if has_own else []
    for index in (*train, *valid):
        check_labels(index, num_classes)
    unlabeled = _index_split(root, "unlabeled", data, 0, (), labelled=False) if data.unlabeled else []
    # Folds together are evaluated on data.valid, which then nothing of a fold may be trained on.
    others = _index_split(root, "valid", data, num_classes, classes) if unlabeled and fold and has_valid(data) else []
    indexes = {"train": train, "valid": valid, "unlabeled": unlabeled, "valid of all folds": others}
    _check_same_files([index for split in indexes.values() for index in split], data)
    train_parts, valid_parts, unlabeled_parts, other_parts = processes.first_then_all(
        lambda: _load(indexes, data, progress), cache_folder(data.cache_dir)
    )
    labels = np.concatenate([part.labels for part in train_parts])
    chosen = select(labels, data, classes, seed=seed, folds=folds, fold=fold)
    remarks = [*_remarks("training", train, train_parts, data), *_remarks("validation", valid, valid_parts, data)]
    if chosen.valid is not None:
        valid, valid_parts = train, train_parts
    positions: Positions = slice(None) if chosen.valid is None else chosen.valid
    join = _join if data.resident else CachedPictures
    records = record_split("train", train, train_parts, chosen.train)
    records += record_split("valid", valid, valid_parts, positions)
    remarks += [
        *chosen.remarks,
        *class_remarks(records, classes, class_order=data.class_order, are_names=bool(train[0].classes)),
        *doubles(records),
    ]
    found = Splits(join(train_parts, chosen.train), join(valid_parts, positions), classes, records, tuple(remarks))
    if not unlabeled:
        return found
    remarks += _remarks("unlabelled", unlabeled, unlabeled_parts, data)
    held_out = {digest for part in other_parts for digest in part.digests}
    kept = choose_unlabeled(root, data, unlabeled, unlabeled_parts, records, held_out)
    return dataclasses.replace(
        found,
        unlabeled=join(unlabeled_parts, kept.positions),
        records=records + record_split("unlabeled", unlabeled, unlabeled_parts, kept.positions),
        remarks=(*remarks, *kept.remarks),
    )


def has_valid(data: DataConfig) -> bool:
    """Whether there are pictures to validate on, not counting folds; a `data.valid` of the user's own choice counts."""
    if data.source != "folder" or data.valid_fraction or data.valid != DataConfig.valid:
        return True
    return exists(_root(data) / data.valid)


def _refuse_shares(data: DataConfig, folds: int) -> None:
    """Refuse what needs the labels, which TFDS tells only with the pictures."""
    settings = {f"data.valid_fraction = {data.valid_fraction:g}": data.valid_fraction, f"train.folds = {folds}": folds}
    for setting, is_set in settings.items():
        if is_set:
            raise UserError(
                f"{setting}: {data.source} does not tell its labels before it is read; leave it out and name the "
                "shares as splits, such as data.train = train[20%:] and data.valid = train[:20%]"
            )


def _remarks(split: str, indexes: Sequence[PictureIndex], parts: Sequence[Pictures], data: DataConfig) -> Iterator[str]:
    """What of a split's folders is not as the user may think."""
    for index in indexes:
        if index.passed_over:
            yield f"passed over in {index.root}: {counted(index.passed_over)}"
    pairs = zip(indexes, parts, strict=True)
    if skipped := {index.name(path): reason for index, part in pairs for path, reason in part.skipped.items()}:
        yield f"left out {len(skipped)} {split} pictures that cannot be read: {list_unreadable(skipped)}"
    if data.decodes_fast and not any(is_jpeg(path) for index in indexes for path in index.paths):
        yield f"data.decode = fast changes nothing for the {split} pictures: none is called as a JPEG file is"
    if oriented := sum(part.oriented for part in parts):
        how = "are turned by it" if data.exif_orientation else "stay as stored: data.exif_orientation = true turns them"
        yield f"{oriented} {split} pictures carry an orientation in their EXIF data and {how}"


def _index_train(root: Path, data: DataConfig, num_classes: int) -> tuple[list[PictureIndex], int]:
    """The indexes of the training pictures, and how many classes they have or, where it is set, were given."""
    indexes = _index_split(root, "train", data, num_classes, ())
    if num_classes:
        return indexes, num_classes
    return indexes, count_classes(indexes)


def count_classes(train: Sequence[PictureIndex]) -> int:
    """How many classes the training pictures have.

    Raises:
        UserError: a picture has no label, or all have the same.
    """
    for index in train:
        check_labels(index, MAX_CLASSES)
    count = len(train[0].classes) or max(int(index.labels.max()) for index in train) + 1
    if count < 2:
        raise UserError(f"the training pictures in {train[0].root} are all of one class: a classifier needs two")
    return count


def _root(data: DataConfig) -> Path:
    if data.source == "demo":
        return demo_root(data.cache_dir)
    if not data.root:
        raise UserError("data.root is not set: give the folder that holds train/ and valid/, or take --config demo")
    root = to_path(data.root)
    if not is_folder(root):
        raise UserError(f"data.root = {data.root}: no such folder{similar(root)}; check the path")
    return root


def _index_split(
    root: Path, split: str, data: DataConfig, num_classes: int, classes: Sequence[str], *, labelled: bool = True
) -> list[PictureIndex]:
    """The indexes of the folders that `data.train`, `data.valid` or `data.unlabeled` joins by `+`.

    Those count in `classes`; where there are none yet, in the classes of the first.
    """
    indexes: list[PictureIndex] = []
    names: str = getattr(data, split)
    for name in [names] if names and exists(root / names) else names.split("+"):
        if not name:
            raise UserError(f"data.{split} = {names!r} has an empty name; write FOLDER or FOLDER+FOLDER")
        if not exists(root / name):
            there = first_few([entry.name for entry in entries(root) if is_folder(entry)], 12) or "no folders"
            hint = mend(root, split, name)
            raise UserError(f"data.{split} = {names!r}: {root / name} does not exist; {root} holds: {there}{hint}")
        index = index_pictures(
            root / name, classes, labelled=labelled, num_classes=num_classes, class_order=data.class_order
        )
        if not indexes and not classes and (index.labels >= 0).any():
            count = max(num_classes, min(MAX_CLASSES, int(index.labels.max()) + 1))
            classes = index.classes or tuple(map(str, range(count)))
        indexes.append(index)
    return indexes


def _check_same_files(indexes: Sequence[PictureIndex], data: DataConfig) -> None:
    """Check that no two processes put different pictures into one place of a cache folder that they share."""
    if processes.count() == 1 or not processes.share_folder(cache_folder(data.cache_dir)):
        return
    own = {
        str(index.root): fingerprint(
            index, data.image_size, data.skip_corrupt, data.exif_orientation, data.resize, fast=data.decodes_fast
        )
        for index in indexes
    }
    everybodys = [json.loads(text) for text in processes.share(json.dumps(own))]
    for root in own:
        if len({theirs[root] for theirs in everybodys if root in theirs}) > 1:
            raise UserError(
                f"the processes see other pictures, or other times of their files, in {root}: give them one "
                "data.root on a shared disk, or each a data.cache_dir on a disk of its own"
            )


def _load(splits: Mapping[str, list[PictureIndex]], data: DataConfig, progress: bool) -> list[list[Pictures]]:
    """The pictures of each index. All of them are looked at before unreadable ones are reported, together."""
    load = partial(
        load_pictures,
        image_size=data.image_size,
        cache_dir=data.cache_dir,
        skip_corrupt=data.skip_corrupt,
        exif_orientation=data.exif_orientation,
        resize=data.resize,
        fast=data.decodes_fast,
        progress=progress,
    )
    loaded: dict[str, list[Pictures]] = {split: [] for split in splits}
    findings: list[str] = []
    for split, indexes in splits.items():
        for index in indexes:
            try:
                loaded[split].append(load(index, description=f"decoding {split}"))
            except UnreadableError as error:
                findings += error.findings
    if findings:
        raise UnreadableError(findings)
    return list(loaded.values())


def _join(parts: Sequence[Pictures], chosen: Positions) -> Pictures:
    """Some of the pictures of all parts."""
    return sum(parts[1:], start=parts[0]).subset(chosen)


def class_names(root: Path, folders: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
    """Class folders' names, else the lines of `root/classes.txt`, else (and beyond them) the numbers themselves."""
    names = folders
    if not names and is_file(root / "classes.txt"):
        try:
            lines = read_bytes(root / "classes.txt").decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{root / 'classes.txt'} is not UTF-8 text; save it as UTF-8, one class a line") from None
        names = tuple(line.strip() for line in lines if line.strip())
    return tuple(names[label] if label < len(names) else str(label) for label in range(num_classes))
