"""Which pictures there are and what their labels are, before any is opened: of a folder, a bucket, a list or one file.

Understood are the homework's flat folders (`train/LABEL_NUMBER.jpg`), its older trees (`training/labeled/00/x.jpg`),
class folders (`training/Bread/x.jpg`), list files and single pictures. What names say about labels: `labels`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jaxfood.data.decode import PICTURE_SUFFIXES
from jaxfood.data.labels import NO_LABEL, label_file, label_tree, mend_for_missing_label
from jaxfood.errors import UserError
from jaxfood.files import is_remote, list_bucket, read_bytes, to_path

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
    """

    root: Path
    paths: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    versions: Mapping[Path, str] = field(default_factory=dict)

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
                f"({', '.join(self.classes) or 'numbers'} against {', '.join(other.classes) or 'numbers'}); "
                "index the second with the classes of the first"
            )
        root = _common_folder([self.root, other.root])
        labels = np.concatenate((self.labels, other.labels))
        versions = {**self.versions, **other.versions}
        return PictureIndex(root, self.paths + other.paths, labels, has_labels[0].classes, versions)

    def name(self, path: Path) -> str:
        """`path` as messages show it: below the root without the root."""
        return path.relative_to(self.root).as_posix() if path != self.root and self.root in path.parents else str(path)


def index_pictures(location: str | Path, classes: Sequence[str] = (), *, labelled: bool = True) -> PictureIndex:
    """Indexes a folder (searched recursively), one picture, or a `.txt` list of pictures.

    The label of a picture directly in a folder is the number before the `_` of its name, as in the notes. Below
    subfolders it is its immediate parent: numeric folder names are labels, otherwise the sorted names are the classes.
    Pictures below a folder named `unlabeled` have no label, and a folder named `labeled` is not a class. Hidden files
    and macOS's leftovers are passed over. For list files and single pictures see `index_files`.

    Unlike the notes' `x.endswith(".jpg")`, other suffixes and upper case count too.

    Args:
        location: the folder, picture or list file; the lines of a list are relative to its own folder.
        classes: the class names of train, if class folders are to be numbered like those of train.
        labelled: False where labels do not matter (predict): all become -1, and class folders may have any name.

    Raises:
        UserError: nothing there, no pictures in it, listed files missing, or a class folder that train does not have.
    """
    root = _absolute(location)
    if is_remote(root):
        listed = list_bucket(root)
        is_file, is_folder = "" in listed, bool(listed)
    else:
        listed = {}
        is_file, is_folder = os.path.isfile(root), os.path.isdir(root)
    if is_file and root.suffix.lower() == ".txt":
        return _index_files(root, _read_list(root), classes, labelled)
    if is_file and root.suffix.lower() in PICTURE_SUFFIXES:
        return _index_files(root, [root], classes, labelled)
    if is_folder:
        return _index_folder(root, listed, classes, labelled)
    if is_file or os.path.exists(root):
        raise UserError(f"{root} is neither a folder nor a picture ({', '.join(PICTURE_SUFFIXES)}) nor a .txt list")
    raise UserError(f"no such folder or file: {root}; check the path")


def index_files(files: Iterable[str | Path], classes: Sequence[str] = (), *, labelled: bool = True) -> PictureIndex:
    """Indexes the pictures named, in the order given: the `files=` of the notes' FoodDataset.

    The parent folder is the class if `classes` has it; otherwise the label is the number before the `_` of the name,
    as in the notes; otherwise the number that the parent folder's name is; otherwise -1. A list never makes up classes.

    Raises:
        UserError: no files, or some are missing (all of them are named).
    """
    paths = [_absolute(file) for file in files]
    if not paths:
        raise UserError("the list of pictures is empty: name at least one")
    return _index_files(_common_folder({path.parent for path in paths}), paths, classes, labelled)


def _index_folder(root: Path, listed: Mapping[str, str], classes: Sequence[str], labelled: bool) -> PictureIndex:
    """As `index_pictures`, of a folder; if it is a bucket's, by the listing of all that it holds."""
    # Strings, not Paths: 10,000 of them sort in milliseconds, and in the order of the notes' sorted(os.path.join(...)).
    names = sorted(_pictures_listed(listed) if is_remote(root) else _walk(str(root)))
    if not names:
        raise UserError(f"no pictures ({', '.join(PICTURE_SUFFIXES)}) in {root}; check the path")
    labels = [NO_LABEL] * len(names)
    if labelled:
        labels, classes = label_tree(root, names, classes)
    paths = tuple(root / name for name in names)
    versions = {path: listed[name] for path, name in zip(paths, names, strict=True) if listed}
    return PictureIndex(root, paths, np.array(labels, np.int32), tuple(classes), versions)


def _pictures_listed(names: Iterable[str]) -> list[str]:
    return [name for name in names if _is_picture(name) and not any(map(_is_hidden, name.split("/")))]


def _walk(folder: str, prefix: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields the pictures below `folder` as posix paths, each behind `prefix`.

    Links are followed, but not to a folder that holds one of those that led here: links in a circle end, and count no
    picture twice. A folder that two links lead to stands in two places, and counts in both.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    above |= {real, *map(str, Path(real).parents)}
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}): make it readable") from error
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        # The listing tells which are folders; of links alone the disk must be asked.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above)
        elif _is_picture(entry.name):
            yield prefix + entry.name


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _index_files(root: Path, paths: list[Path], classes: Sequence[str], labelled: bool) -> PictureIndex:
    versions = _versions_in_buckets(paths)
    if missing := [str(path) for path in paths if path not in versions and not os.path.isfile(path)]:
        source = f"{root} names" if os.path.isfile(root) else "the list names"
        raise UserError(f"{source} files that do not exist: {', '.join(missing)}; correct or remove them")
    labels = [label_file(path, classes) if labelled else NO_LABEL for path in paths]
    return PictureIndex(root, tuple(paths), np.array(labels, np.int32), tuple(classes), versions)


def _versions_in_buckets(paths: Iterable[Path]) -> dict[Path, str]:
    """The versions of those of the files that are in buckets and exist, by a listing of each of their folders."""
    folders = {path.parent for path in paths if is_remote(path)}
    return {folder / name: version for folder in folders for name, version in list_bucket(folder).items()}


def _read_list(path: Path) -> list[Path]:
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path} ({error}): make it readable, as UTF-8 text") from error
    files = [_absolute(path.parent / line.strip()) for line in lines if line.strip()]
    if not files:
        raise UserError(f"the list {path} is empty: write one picture a line")
    return files


def _absolute(path: str | Path) -> Path:
    path = to_path(path)
    return path if is_remote(path) else Path(os.path.abspath(path.expanduser()))


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
            f"({_first_few(index.name(path) for path in missing)}): {mend_for_missing_label(missing[0])}"
        )
    rows = np.flatnonzero(index.labels >= num_classes)
    beyond = [f"{index.name(index.paths[row])} has {index.labels[row]}" for row in rows]
    if beyond:
        raise UserError(
            f"{len(beyond)} of the {len(index)} pictures in {index.root} have labels beyond "
            f"model.num_classes = {num_classes}, where labels run 0..{num_classes - 1} ({_first_few(beyond)}): "
            f"set model.num_classes = {index.labels.max() + 1} or correct the labels"
        )


def _first_few(names: Iterable[str], few: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:few]) + (", ..." if len(listed) > few else "")
