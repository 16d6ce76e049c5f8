"""The pictures of a folder, a bucket, a list or one file, as an index.

Understood are the homework's flat folders (`train/LABEL_NUMBER.jpg`), its older trees (`training/labeled/00/x.jpg`),
class folders (`training/Bread/x.jpg`), list files and single pictures.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxfood.data.index import NO_LABEL, PictureIndex, common_folder
from jaxfood.data.labels import label_file, label_tree
from jaxfood.errors import UserError
from jaxfood.files import is_remote, list_bucket, read_bytes, to_path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


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
        return _index_bucket(root, classes, labelled)
    if os.path.isdir(root):
        return _index_folder(root, _walk(root), classes, labelled)
    if os.path.isfile(root) and root.suffix.lower() == ".txt":
        return _index_files(root, _read_list(root), classes, labelled)
    if os.path.isfile(root) and root.suffix.lower() in PICTURE_SUFFIXES:
        return _index_files(root, [root], classes, labelled)
    if os.path.exists(root):
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
    return _index_files(common_folder({path.parent for path in paths}), paths, classes, labelled)


def _index_bucket(root: Path, classes: Sequence[str], labelled: bool) -> PictureIndex:
    """As `index_pictures`, by one listing of all that `root` holds."""
    listed = list_bucket(root)
    if "" in listed and root.suffix.lower() == ".txt":
        return _index_files(root, _read_list(root), classes, labelled)
    if "" in listed and root.suffix.lower() in PICTURE_SUFFIXES:
        return _index_files(root, [root], classes, labelled)
    if not listed:
        raise UserError(f"no such folder or file: {root}; check the path")
    pictures = [name for name in listed if _is_picture(name) and not any(map(_is_hidden, name.split("/")))]
    index = _index_folder(root, pictures, classes, labelled)
    return replace(index, versions={root / name: listed[name] for name in pictures})


def _index_folder(root: Path, pictures: Iterable[str], classes: Sequence[str], labelled: bool) -> PictureIndex:
    # Strings, not Paths: 10,000 of them sort in milliseconds, and in the order of the notes' sorted(os.path.join(...)).
    names = sorted(pictures)
    if not names:
        raise UserError(f"no pictures ({', '.join(PICTURE_SUFFIXES)}) in {root}; check the path")
    if labelled:
        labels, classes = label_tree(root, names, classes)
    else:
        labels = [NO_LABEL] * len(names)
    return PictureIndex(root, tuple(root / name for name in names), np.array(labels, np.int32), tuple(classes))


def _walk(root: Path) -> Iterator[str]:
    """Yields the pictures below `root` as posix paths relative to it."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename} ({error.strerror}): make it readable") from error

    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name) and not _leads_back(folder, name)]
        prefix = "" if folder == str(root) else Path(folder).relative_to(root).as_posix() + "/"
        for name in files:
            if not _is_hidden(name) and _is_picture(name):
                yield prefix + name


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _leads_back(folder: str, name: str) -> bool:
    """Whether `name` is a link to a folder above itself, which a walk would follow for ever."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(os.path.realpath(path)) in Path(os.path.realpath(folder), name).parents


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
