"""Lists of pictures: a path a line, a path and its label, or a table with a header; in `.txt`, `.csv` or `.tsv`.

Food-101's own `meta/train.txt` is one: its lines are paths without a suffix below `images/` beside `meta/`.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxfood.data.decode import PICTURE_SUFFIXES
from jaxfood.data.walk import is_picture
from jaxfood.errors import UserError, first_few
from jaxfood.files import is_remote, list_bucket, read_bytes

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
_PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "image",
    "image_path",
    "img",
    "picture",
    "name",
    "id",
)
_LABEL_COLUMNS = ("label", "class", "category", "target", "class_name", "label_name", "class_id", "y")


@dataclass(frozen=True)
class ListedPictures:
    """The pictures of a list, in its order.

    Attributes:
        paths: where they are, absolute.
        labels: as they are written beside each; () where the list has paths alone.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]


def read_list(path: Path) -> ListedPictures:
    """Read a list. Paths count from the list's folder, the one above it, or `images/` there, whichever has them.

    Raises:
        UserError: it cannot be read, is empty, has labels on some lines only, or names pictures that do not exist.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path} ({error}): make it readable, as UTF-8 text") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"the list {path} is empty: write one picture a line")
    find = _Finder([path.parent, path.parent.parent, path.parent.parent / "images"])
    table = _read_table(path, lines)
    if table is None:
        found, labels = _read_lines(path, lines, find)
    else:
        names, labels = table
        found = [find(name) for name in names]
        _check_found(path, names, found)
    return ListedPictures(tuple(place for place in found if place is not None), tuple(labels))


def _read_table(path: Path, lines: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """The names and labels of a table whose first line names its columns; None where the list is no such table."""
    delimiter = "\t" if "\t" in lines[0] else "," if "," in lines[0] else ""
    if not delimiter:
        return None
    header, *rows = csv.reader(lines, delimiter=delimiter)
    columns = [name.strip().lower() for name in header]
    names = [column for column in _PATH_COLUMNS if column in columns]
    labels = [column for column in _LABEL_COLUMNS if column in columns]
    if not names and not labels:
        return None
    if not names or not labels:
        missing = (
            f"{'pictures' if not names else 'labels'} ({', '.join(_PATH_COLUMNS if not names else _LABEL_COLUMNS)})"
        )
        raise UserError(f"{path}: no column of its header {', '.join(header)} is one of {missing}: name it so")
    if uneven := [number for number, row in enumerate(rows, start=2) if len(row) != len(header)]:
        raise UserError(f"{path}: line {uneven[0]} has other columns than the header: {', '.join(header)}")
    name, label = columns.index(names[0]), columns.index(labels[0])
    return [row[name].strip() for row in rows], [row[label].strip() for row in rows]


def _read_lines(path: Path, lines: Sequence[str], find: "_Finder") -> tuple[list[Path | None], list[str]]:
    """The pictures of lines that are a path, or a path and its label."""
    names, labels = [line.strip() for line in lines], [""] * len(lines)
    found = [find(name) for name in names]
    for row, name in enumerate(names):
        if found[row] is None:
            for first, label in _splits(name):
                if (place := find(first)) is not None:
                    names[row], labels[row], found[row] = first, label, place
                    break
    _check_found(path, names, found)
    has_label = [bool(label) for label in labels]
    if any(has_label) and not all(has_label):
        row = has_label.index(False)
        raise UserError(f"{path}: {sum(has_label)} lines have a label and others none ({names[row]}): give all one")
    return found, labels if any(has_label) else []


def _splits(line: str) -> Iterator[tuple[str, str]]:
    """The ways to cut a line into a path and a label: at its last tab, comma or space."""
    for delimiter in ("\t", ",", None):
        first, *label = line.rsplit(delimiter, 1)
        if label and label[0].strip():
            yield first.strip(), label[0].strip()


def _check_found(path: Path, names: Sequence[str], found: Sequence[Path | None]) -> None:
    if missing := [name for name, place in zip(names, found, strict=True) if place is None]:
        raise UserError(
            f"{path} names {len(missing)} files that do not exist ({first_few(missing)}): correct or remove them; "
            f"paths count from {path.parent}"
        )


class _Finder:
    """Finds the file that a line names, below one of several folders, with its suffix or without."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = list(dict.fromkeys(folders))
        self._listed: dict[Path, dict[str, str]] = {}

    def __call__(self, name: str) -> Path | None:
        return self._find(name) or (self._find(name.replace("\\", "/")) if "\\" in name else None)  # written on Windows

    def _find(self, name: str) -> Path | None:
        suffixes = ("",) if is_picture(name) else ("", *PICTURE_SUFFIXES)
        for folder in self._folders:
            for suffix in suffixes:
                place = _absolute(folder / f"{name}{suffix}")
                if self._is_file(place):
                    self._folders.remove(folder)  # most lines are found where the last one was
                    self._folders.insert(0, folder)
                    return place
        return None

    def _is_file(self, place: Path) -> bool:
        if not is_remote(place):
            return os.path.isfile(place)
        folder = place.parent
        if folder not in self._listed:
            self._listed[folder] = list_bucket(folder)
        return place.name in self._listed[folder]


def _absolute(path: Path) -> Path:
    return path if is_remote(path) else Path(os.path.abspath(path))
