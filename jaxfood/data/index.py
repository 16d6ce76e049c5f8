"""Which pictures there are and what their labels are, before any is opened: of a folder, a bucket, a list or one file.

Which files count: `walk`; lists and tables: `lists`; what names say about labels: `labels`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jaxfood.data.decode import PICTURE_SUFFIXES
from jaxfood.data.labels import (
    NO_LABEL,
    Labelling,
    class_folders,
    composed_name,
    label_names,
    mend_for_missing_label,
    number_classes,
)
from jaxfood.data.lists import LIST_SUFFIXES, read_list
from jaxfood.data.walk import Found, is_picture, of_bucket, walk_folder
from jaxfood.errors import UserError, first_few
from jaxfood.files import is_remote, list_bucket, to_path
from jaxfood.places import exists, kind, similar

Positions = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class PictureIndex:
    """Pictures and their labels, in a fixed order (the notes' FoodDataset, without the pixels).

    Attributes:
        root: what the user named (folder, list file or single picture), absolute.
        paths: the N pictures, absolute; those of a folder sorted by their path below it.
        labels: int32 [N], -1 where there is no label.
        classes: the class names in label order; () where labels are numbers.
        versions: what the listing of a bucket told of its pictures, which changes when they do.
        passed_over: how many files of each kind in the folder are none of these pictures, in words.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    versions: Mapping[Path, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, positions: Positions) -> PictureIndex:
        """The pictures at `positions` (integers, a mask or a slice), in that order; torch.utils.data.Subset."""
        rows = np.arange(len(self))[positions]
        return replace(self, paths=tuple(self.paths[row] for row in rows), labels=self.labels[rows])

    def __add__(self, other: PictureIndex) -> PictureIndex:
        """These pictures, then those of `other`; torch.utils.data.ConcatDataset.

        The root becomes the deepest folder that holds both roots.

        Raises:
            UserError: both have labels, and their classes differ.
        """
        has_labels = [index for index in (self, other) if np.any(index.labels != NO_LABEL)] or [self]
        if len({index.classes for index in has_labels}) > 1:
            raise UserError(
                f"{self.root} and {other.root} cannot be joined: their classes differ "
                f"({first_few(self.classes) or 'numbers'} against {first_few(other.classes) or 'numbers'}); "
                "index the second with the classes of the first"
            )
        root = _common_folder([self.root, other.root])
        labels = np.concatenate((self.labels, other.labels))
        versions = {**self.versions, **other.versions}
        kinds = self.passed_over.keys() | other.passed_over.keys()
        passed_over = {kind: self.passed_over.get(kind, 0) + other.passed_over.get(kind, 0) for kind in kinds}
        return PictureIndex(root, self.paths + other.paths, labels, has_labels[0].classes, versions, passed_over)

    def name(self, path: Path) -> str:
        """`path` as messages show it: below the root without the root."""
        return path.relative_to(self.root).as_posix() if path != self.root and self.root in path.parents else str(path)


@dataclass(frozen=True)
class _Labels:
    """How pictures are labelled; attributes as the arguments of `index_pictures`."""

    classes: Sequence[str]
    labelled: bool
    num_classes: int
    class_order: str

    def of(self, names: Sequence[str], root: Path) -> Labelling:
        """The labels of pictures at paths below a split folder; see `labels.label_names`."""
        if not self.labelled:
            return Labelling(np.arange(len(names)), np.full(len(names), NO_LABEL, np.int32), tuple(self.classes))
        return label_names(names, root, self.classes, num_classes=self.num_classes, class_order=self.class_order)

    def of_written(self, written: Sequence[str], path: Path) -> Labelling:
        """The labels that a list has beside its pictures."""
        numbers, classes = number_classes(
            path, set(written), self.classes, num_classes=self.num_classes, class_order=self.class_order
        )
        return Labelling(np.arange(len(written)), np.array([numbers[name] for name in written], np.int32), classes)


def index_pictures(
    location: str | Path,
    classes: Sequence[str] = (),
    *,
    labelled: bool = True,
    num_classes: int = 0,
    class_order: str = "name",
) -> PictureIndex:
    """Indexes a folder (searched recursively), one picture, or a list of pictures (`.txt`, `.csv`, `.tsv`).

    A picture's class is the first folder below `location`, as in torchvision's ImageFolder; the label of one that lies
    in it directly is the number before the `_` of its name, as in the notes: see `labels`. What is no picture is passed
    over and counted. For lists see `lists` and `index_files`.

    Unlike the notes' `x.endswith(".jpg")`, other suffixes and upper case count too.

    Args:
        location: the folder, picture or list file.
        classes: the class names of train, if class folders are to be numbered like those of train.
        labelled: False where labels do not matter (predict): all become -1, and class folders may have any name.
        num_classes: as many as are set: folders named by numbers below it are labels; 0: as many as there are.
        class_order: how class folders are numbered: by "name", or "natural" (2 before 10).

    Raises:
        UserError: nothing there, no pictures in it, listed files missing, a class folder without pictures or one that
            train does not have, or what `labels.label_names` says.
    """
    root = _absolute(location)
    labels = _Labels(classes, labelled, num_classes, class_order)
    if is_remote(root):
        listed = list_bucket(root)
        is_file, is_folder = "" in listed, bool(listed)
    else:
        listed = {}
        is_file, is_folder = (what := kind(root)) == "file", what == "folder"
    if is_file and root.suffix.lower() in LIST_SUFFIXES:
        listing = read_list(root)
        if not listing.labels or not labelled:
            return _index_files(root, listing.paths, labels)
        return _index_rows(root, listing.paths, labels.of_written(listing.labels, root))
    if is_file and is_picture(root.name):
        return _index_files(root, (root,), labels)
    if is_folder:
        return _index_folder(root, listed, labels)
    if is_file or (not is_remote(root) and exists(root)):
        kinds = f"a picture ({', '.join(PICTURE_SUFFIXES)}) nor a list ({', '.join(LIST_SUFFIXES)})"
        raise UserError(f"{root} is neither a folder nor {kinds}")
    raise UserError(f"no such folder or file: {root}{similar(root)}; check the path")


def index_files(
    files: Iterable[str | Path],
    classes: Sequence[str] = (),
    *,
    labelled: bool = True,
    num_classes: int = 0,
    class_order: str = "name",
) -> PictureIndex:
    """Indexes the pictures named, in the order given: the `files=` of the notes' FoodDataset.

    Their labels are those that they have in their folder: the split folder is the deepest one that holds them all, or,
    where that is a class itself, the one above it. Arguments as `index_pictures`.

    Raises:
        UserError: no files, some are missing, or what `labels.label_names` says.
    """
    paths = tuple(_absolute(file) for file in files)
    if not paths:
        raise UserError("the list of pictures is empty: name at least one")
    there = _versions_in_buckets(paths)
    if missing := [str(path) for path in paths if path not in there and not os.path.isfile(path)]:
        raise UserError(
            f"{len(missing)} of the pictures listed do not exist ({first_few(missing)}): correct or remove them"
        )
    labels = _Labels(classes, labelled, num_classes, class_order)
    return _index_files(_common_folder({path.parent for path in paths}), paths, labels)


def _index_folder(root: Path, listed: Mapping[str, str], labels: _Labels) -> PictureIndex:
    """As `index_pictures`, of a folder; if it is a bucket's, by the listing of all that it holds."""
    found = of_bucket(listed) if is_remote(root) else walk_folder(root)
    if not found.pictures:
        raise UserError(f"no pictures in {root}{_only(found)}; check the path (read are {', '.join(PICTURE_SUFFIXES)})")
    labelling = labels.of(found.pictures, root)
    if labels.labelled:
        _check_empty_classes(root, found, labels)
    if loose := len(found.pictures) - len(labelling.rows):
        found.passed_over["loose pictures beside the class folders"] = loose
    names = [found.pictures[row] for row in labelling.rows]
    paths = tuple(root / name for name in names)
    versions = {path: listed[name] for path, name in zip(paths, names, strict=True) if listed}
    return PictureIndex(root, paths, labelling.labels, labelling.classes, versions, dict(found.passed_over))


def _check_empty_classes(root: Path, found: Found, labels: _Labels) -> None:
    """Check that no class folder of train is without pictures, where later labels would shift; in others count them."""
    filled = class_folders(name.rpartition("/")[0] for name in found.pictures)
    empty = class_folders(found.folders) - filled
    if filled and empty and not labels.classes:
        raise UserError(
            f"{root} has class folders without pictures: {first_few(sorted(empty))}{_only(found)}; put pictures there, "
            "or remove the folders"
        )
    known = set(map(composed_name, labels.classes))
    if unknown := sum(composed_name(name) not in known for name in empty):
        found.passed_over["empty folders"] = unknown


def _only(found: Found) -> str:
    """What there is instead of pictures, in brackets."""
    return f" (passed over: {counted(found.passed_over)})" if found.passed_over else ""


def counted(kinds: Mapping[str, int]) -> str:
    """Counts of kinds in words, the most frequent first: "5 .heic, 1 .txt"."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def _index_files(root: Path, paths: tuple[Path, ...], labels: _Labels) -> PictureIndex:
    folder = _common_folder({path.parent for path in paths})
    if folder.name in labels.classes or _is_number_of(folder.name, labels):
        folder = folder.parent
    return _index_rows(root, paths, labels.of([path.relative_to(folder).as_posix() for path in paths], folder))


def _is_number_of(name: str, labels: _Labels) -> bool:
    """Whether a folder's name is the number of a class."""
    count = len(labels.classes) or labels.num_classes
    return name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < count


def _index_rows(root: Path, paths: tuple[Path, ...], labelling: Labelling) -> PictureIndex:
    loose = len(paths) - len(labelling.rows)
    passed_over = {"loose pictures beside the class folders": loose} if loose else {}
    kept = tuple(paths[row] for row in labelling.rows)
    return PictureIndex(root, kept, labelling.labels, labelling.classes, _versions_in_buckets(kept), passed_over)


def _versions_in_buckets(paths: Iterable[Path]) -> dict[Path, str]:
    """The versions of those of the files that are in buckets and exist, by a listing of each of their folders."""
    folders = {path.parent for path in paths if is_remote(path)}
    return {folder / name: version for folder in folders for name, version in list_bucket(folder).items()}


def _absolute(path: str | Path) -> Path:
    path = to_path(path)
    return path if is_remote(path) else Path(os.path.abspath(path))


def _common_folder(folders: Collection[Path]) -> Path:
    """The deepest folder that holds them all."""
    first, *others = folders
    return next(folder for folder in (first, *first.parents) if all(folder in (each, *each.parents) for each in others))


def check_labels(index: PictureIndex, num_classes: int) -> None:
    """Checks that every picture has a label from 0 to `num_classes` - 1, as train and valid need.

    Raises:
        UserError: some have none, or one beyond; the first few are named.
    """
    missing = [index.paths[row] for row in np.flatnonzero(index.labels < 0)]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(index)} pictures in {index.root} have no label "
            f"({first_few(index.name(path) for path in missing)}): {mend_for_missing_label(missing[0])}"
        )
    rows = np.flatnonzero(index.labels >= num_classes)
    beyond = [f"{index.name(index.paths[row])} has {index.labels[row]}" for row in rows]
    if beyond:
        raise UserError(
            f"{len(beyond)} of the {len(index)} pictures in {index.root} have labels beyond "
            f"model.num_classes = {num_classes}, where labels run 0..{num_classes - 1} ({first_few(beyond)}): "
            f"set model.num_classes = {index.labels.max() + 1} or correct the labels"
        )
