"""What names of files and folders say about labels: the homework's two layouts, class folders, and what is missing."""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxfood.errors import UserError

NO_LABEL = -1

_LABELLED_FOLDERS = {"labeled", "labelled"}
_UNLABELLED_FOLDERS = {"unlabeled", "unlabelled"}
# At most nine digits, so that a label fits int32: longer numbers are time stamps, not labels.
_LABEL_IN_NAME = re.compile(r"(\d{1,9})_")
_LABEL_FOLDER = re.compile(r"\d{1,9}")


def label_tree(root: Path, names: list[str], classes: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """The labels of pictures at the relative paths `names` below `root`, and the classes they count in."""
    parents = {_split(name)[0] for name in names}
    unlabelled = {parent for parent in parents if _UNLABELLED_FOLDERS & {root.name.lower(), *parent.lower().split("/")}}
    class_folders = {
        parent: folder
        for parent in parents - unlabelled
        if (folder := _split(parent)[1]) and folder.lower() not in _LABELLED_FOLDERS
    }
    numbers, classes = _number_classes(root, set(class_folders.values()), classes)
    labels = {parent: numbers[folder] for parent, folder in class_folders.items()} | dict.fromkeys(unlabelled, NO_LABEL)
    split = (_split(name) for name in names)
    return [labels[parent] if parent in labels else _label_in_name(name) for parent, name in split], classes


def _number_classes(root: Path, names: set[str], classes: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class folder name, and the classes in label order."""
    are_numbers = all(_LABEL_FOLDER.fullmatch(name) for name in names)
    if are_numbers and (names.isdisjoint(classes) or _end_in_numbers(classes)):
        return {name: int(name) for name in names}, tuple(classes)
    known = tuple(classes) or tuple(sorted(names))
    if unknown := sorted(names.difference(known)):
        raise UserError(
            f"{root} has folders that are no classes of train: {', '.join(unknown)}; "
            f"rename or remove them (the classes are {', '.join(known)})"
        )
    return {name: known.index(name) for name in names}, known


def _end_in_numbers(classes: Sequence[str]) -> bool:
    """Whether train's labels were numbers: its classes are names of the first, if there are any, then the numbers."""
    named = next((label for label, name in enumerate(classes) if _LABEL_FOLDER.fullmatch(name)), len(classes))
    return list(classes[named:]) == [str(label) for label in range(named, len(classes))]


def label_file(path: Path, classes: Sequence[str]) -> int:
    """The label of a picture that was named by itself; the rules are those of `index.index_files`."""
    folder = path.parent.name
    if any(part.lower() in _UNLABELLED_FOLDERS for part in path.parts):
        return NO_LABEL
    if folder in classes:
        return classes.index(folder)
    number = int(folder) if _LABEL_FOLDER.fullmatch(folder) else NO_LABEL
    if str(number) in classes and _end_in_numbers(classes):  # 00 is the class 0
        return number
    label = _label_in_name(path.name)
    return number if label == NO_LABEL else label


def _label_in_name(name: str) -> int:
    match = _LABEL_IN_NAME.match(name)
    return int(match[1]) if match else NO_LABEL


def _split(name: str) -> tuple[str, str]:
    parent, _, last = name.rpartition("/")
    return parent, last


def mend_for_missing_label(path: Path) -> str:
    """What the user can do about a picture that has none."""
    for folder in path.parents:
        if folder.name.lower() in _UNLABELLED_FOLDERS:
            labelled = folder.with_name(re.sub("un", "", folder.name, count=1, flags=re.IGNORECASE))
            return f"{folder} is for pictures without labels, name the labelled ones instead, such as {labelled}"
    return "name them LABEL_NUMBER.jpg or put them into class folders"
