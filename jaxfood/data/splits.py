"""The training and validation pictures that a configuration names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jaxfood import processes
from jaxfood.config.sections import DataConfig
from jaxfood.data import tfds
from jaxfood.data.cache import CachedPictures, UnreadableError, load_pictures
from jaxfood.data.cache_folder import cache_folder, fingerprint
from jaxfood.data.demo import demo_root
from jaxfood.data.index import PictureIndex, Positions, check_labels, index_pictures
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.errors import UserError
from jaxfood.files import read_bytes, to_path


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and validation pictures, decoded or to be read batch by batch, and each class's name in label order."""

    train: Pictures | StoredPictures
    valid: Pictures | StoredPictures
    classes: tuple[str, ...]


def load_splits(data: DataConfig, num_classes: int, *, seed: int, progress: bool = True) -> Splits:
    """Index both splits, check every label, then decode them (or find them decoded).

    Several processes must all call it, within `processes.together`; where they share a cache folder the first decodes.

    Args:
        data: where the pictures are. `train` and `valid` may name several folders joined by `+`. For a data set of
            TFDS see `jaxfood.data.tfds`.
        num_classes: labels must be below it.
        seed: which pictures `data.fraction` takes.
        progress: whether to show bars.

    Raises:
        UserError: a folder is missing or empty, a label is missing or too large, pictures cannot be read.
    """
    if data.source.startswith(tfds.PREFIX):
        return Splits(*tfds.open_splits(data, num_classes))
    root = _root(data)
    train = _index_split(root, "train", data.train)
    valid = _index_split(root, "valid", data.valid, train[0])
    for index in (*train, *valid):
        check_labels(index, num_classes)
    _check_same_files([*train, *valid], data)
    train_parts, valid_parts = processes.first_then_all(
        lambda: _load({"train": train, "valid": valid}, data, progress), cache_folder(data.cache_dir)
    )
    chosen: Positions = slice(None)
    if data.fraction < 1:
        chosen = _stratified(np.concatenate([part.labels for part in train_parts]), data.fraction, seed)
    join = _join if data.resident else CachedPictures
    classes = _class_names(root, train[0].classes, num_classes)
    return Splits(join(train_parts, chosen), join(valid_parts, slice(None)), classes)


def _root(data: DataConfig) -> Path:
    if data.source == "demo":
        return demo_root(data.cache_dir)
    if not data.root:
        raise UserError("data.root is not set: give the folder that holds train/ and valid/, or take --config demo")
    root = to_path(data.root)
    if not root.is_dir():
        raise UserError(f"data.root = {data.root}: no such folder; check the path")
    return root


def _index_split(root: Path, split: str, names: str, first: PictureIndex | None = None) -> list[PictureIndex]:
    """The indexes of the folders that `names` joins by `+`, counting classes as `first` does, or the first of them."""
    indexes: list[PictureIndex] = []
    for name in [names] if names and (root / names).exists() else names.split("+"):
        if not name:
            raise UserError(f"data.{split} = {names!r} has an empty name; write FOLDER or FOLDER+FOLDER")
        if not (root / name).exists():
            there = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) or "no folders"
            raise UserError(f"data.{split} = {names!r}: {root / name} does not exist; {root} holds: {there}")
        index = index_pictures(root / name, first.classes if first else ())
        if first and index.classes != first.classes:
            raise UserError(
                f"{index.root} has class folders with names ({', '.join(index.classes)}) where {first.root} "
                "has numbers; name both in one way"
            )
        first = first or index
        indexes.append(index)
    return indexes


def _check_same_files(indexes: Sequence[PictureIndex], data: DataConfig) -> None:
    """Check that no two processes put different pictures into one place of a cache folder that they share."""
    if processes.count() == 1 or not processes.share_folder(cache_folder(data.cache_dir)):
        return
    own = {
        str(index.root): fingerprint(index, data.image_size, data.skip_corrupt, data.exif_orientation)
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


def _stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a random share of each class (at least one picture of each), in their old order."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        chosen.append(rng.permutation(positions)[: max(1, round(fraction * len(positions)))])
    return np.sort(np.concatenate(chosen))


def _class_names(root: Path, folders: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
    """Class folders' names, else the lines of `root/classes.txt`, else (and beyond them) the numbers themselves."""
    names = folders
    if not names and (root / "classes.txt").is_file():
        try:
            lines = read_bytes(root / "classes.txt").decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{root / 'classes.txt'} is not UTF-8 text; save it as UTF-8, one class a line") from None
        names = tuple(line.strip() for line in lines if line.strip())
    return tuple(names[label] if label < len(names) else str(label) for label in range(num_classes))
