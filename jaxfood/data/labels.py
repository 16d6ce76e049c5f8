"""What the names of files and folders say about labels: one rule, for folders, buckets, lists and single pictures.

The class of a picture is the first folder below the split folder, as in torchvision's ImageFolder and Keras; where the
pictures lie in the split folder itself, the label is the number before the `_` of the name, as in the notes. A folder
`labeled` is no class, and below one named `unlabeled` nothing has a label: the homework's older trees.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxfood.errors import UserError, first_few

NO_LABEL = -1

_LABELLED_FOLDERS = {"labeled", "labelled"}
_UNLABELLED_FOLDERS = {"unlabeled", "unlabelled"}
_SPLIT_FOLDERS = {"train", "training", "valid", "val", "validation", "dev", "test", "testing", "eval", "evaluation"}
# At most nine digits, so that a label fits int32: longer numbers are time stamps, not labels.
_LABEL_IN_NAME = re.compile(r"(\d{1,9})_", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Labelling:
    """The labels of some pictures.

    Attributes:
        rows: int [n], which of the names given are pictures of the classes; the others are loose beside class folders.
        labels: int32 [n], theirs; -1 where there is no label.
        classes: the names of the classes, in label order; () where labels are numbers.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def label_names(
    names: Sequence[str], root: Path, known: Sequence[str] = (), *, num_classes: int = 0, class_order: str = "name"
) -> Labelling:
    """The labels of pictures by their paths below a split folder.

    Args:
        names: paths below the folder, with `/`.
        root: the folder.
        known: the classes of train, where it is not train itself that is labelled.
        num_classes: as many as are set; 0: as many as there are.
        class_order: "name" numbers class folders by their sorted names, as ImageFolder does; "natural": 2 before 10.

    Raises:
        UserError: a folder that is no class of train, folders that are splits or one number twice, or as many pictures
            beside class folders as in them.
    """
    above = not _UNLABELLED_FOLDERS.isdisjoint(part.lower() for part in root.parts)
    folders = [_class_folder(name, unlabelled=above) for name in names]
    counts = Counter(folder for folder in folders if folder)
    loose = folders.count("")
    numbers, classes = number_classes(root, set(counts), known, num_classes=num_classes, class_order=class_order)
    if counts and loose:
        _check_loose(root, names[folders.index("")], loose, counts)
    rows, labels = [], []
    for row, (name, folder) in enumerate(zip(names, folders, strict=True)):
        if folder == "" and counts:
            continue
        rows.append(row)
        labels.append(NO_LABEL if folder is None else numbers[folder] if folder else _label_in_name(name))
    return Labelling(np.array(rows, np.intp), np.array(labels, np.int32), classes)


def _class_folder(name: str, *, unlabelled: bool) -> str | None:
    """The first folder that may be a class; "" where there is none, None where there is no label."""
    folders = name.split("/")[:-1]
    if unlabelled or not _UNLABELLED_FOLDERS.isdisjoint(map(str.lower, folders)):
        return None
    return next((folder for folder in folders if folder.lower() not in _LABELLED_FOLDERS), "")


def class_folders(folders: Iterable[str]) -> set[str]:
    """Those folders' classes, of folders by their paths below the split folder, whether pictures are in them or not."""
    return {name for folder in folders if (name := _class_folder(f"{folder}/", unlabelled=False))}


def _check_loose(root: Path, example: str, loose: int, counts: Counter[str]) -> None:
    """Pictures beside class folders are left over, as a cover is, where most are in the folders."""
    if loose >= counts.total():
        raise UserError(
            f"{root} has {loose} pictures beside folders with {counts.total()} ({first_few(sorted(counts))}): is the "
            f"class told by the folder, or by the name as in {example}? Move the others away"
        )


def number_classes(
    root: Path, names: set[str], known: Sequence[str] = (), *, num_classes: int = 0, class_order: str = "name"
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class by its name, and the classes in label order; arguments and errors as `label_names`.

    Numbers are labels where they run from 0 on without a gap, lie below `num_classes`, or train's were; otherwise they
    are names as any other.
    """
    if len(names) > 1 and names <= {name for name in names if name.lower() in _SPLIT_FOLDERS}:
        raise UserError(
            f"the folders of {root} are splits ({', '.join(sorted(names))}), not classes: name one of them, or join "
            "their names by +"
        )
    if broken := [name for name in names if name.splitlines() != [name]]:
        raise UserError(f"{root} has a class name of several lines, {broken[0]!r}: rename it")
    numbers = {name: int(name) for name in names if _NUMBER.fullmatch(name)}
    are_numbers = len(numbers) == len(names)
    if are_numbers and (twice := [number for number, count in Counter(numbers.values()).items() if count > 1]):
        same = sorted(name for name, number in numbers.items() if number == twice[0])
        raise UserError(f"{root} has the class {twice[0]} twice: {' and '.join(same)}; make one folder of them")
    if known:
        if are_numbers and (names.isdisjoint(known) or _end_in_numbers(known)):
            return numbers, tuple(known)
        return _by_known_names(root, names, known), tuple(known)
    values = set(numbers.values())
    if are_numbers and (values == set(range(len(values))) or max(values) < num_classes):
        return numbers, ()
    ordered = sort_names(names, class_order)
    composed = tuple(map(composed_name, ordered))
    if len(set(composed)) < len(composed):
        alike = next(name for name, count in Counter(composed).items() if count > 1)
        raise UserError(
            f"{root} has two folders that are both called {alike}, in two encodings (Unicode NFC and NFD): make one "
            "folder of them"
        )
    return {name: label for label, name in enumerate(ordered)}, composed


def _by_known_names(root: Path, names: set[str], known: Sequence[str]) -> dict[str, int]:
    labels = {composed_name(name): label for label, name in enumerate(known)}
    if unknown := sorted(name for name in names if composed_name(name) not in labels):
        raise UserError(
            f"{root} has folders that are no classes of train: {first_few(unknown)}; "
            f"rename or remove them (the classes are {first_few(known, 12)})"
        )
    return {name: labels[composed_name(name)] for name in names}


def _end_in_numbers(classes: Sequence[str]) -> bool:
    """Whether train's labels were numbers: its classes are names of the first, if there are any, then the numbers."""
    named = next((label for label, name in enumerate(classes) if _NUMBER.fullmatch(name)), len(classes))
    return list(classes[named:]) == [str(label) for label in range(named, len(classes))]


def sort_names(names: Iterable[str], class_order: str = "name") -> list[str]:
    """Names sorted as `data.class_order` says."""
    if class_order == "name":
        return sorted(names)
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def composed_name(name: str) -> str:
    """A class name as it is kept: macOS writes accents apart from their letters (NFD), other systems together (NFC)."""
    return unicodedata.normalize("NFC", name)


def _label_in_name(name: str) -> int:
    match = _LABEL_IN_NAME.match(name.rpartition("/")[2])
    return int(match[1]) if match else NO_LABEL


def mend_for_missing_label(path: Path) -> str:
    """What the user can do about a picture that has none."""
    for folder in path.parents:
        if folder.name.lower() in _UNLABELLED_FOLDERS:
            labelled = folder.with_name(re.sub("un", "", folder.name, count=1, flags=re.IGNORECASE))
            return f"{folder} is for pictures without labels, name the labelled ones instead, such as {labelled}"
    return "name them LABEL_NUMBER.jpg, put them into class folders, or write their labels into a list"
