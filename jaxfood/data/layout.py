"""Where the splits of a data set are, by their usual names: below a folder, or below one beside it that was meant."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxfood.data.unlabeled import TEST_FOLDERS
from jaxfood.files import absolute, is_remote
from jaxfood.places import exists, similar

# As the homework's years, Food-101 and the data sets of others name them; the first that is there counts.
TRAIN_FOLDERS = ("train", "training/labeled", "training", "meta/train.txt")
VALID_FOLDERS = ("valid", "validation", "val", "meta/test.txt")
VALID_FRACTION = 0.2  # advised where there is no validation folder
_SPLITS = {name.partition("/")[0] for name in (*TRAIN_FOLDERS, *VALID_FOLDERS, *TEST_FOLDERS)}
_DEEPEST = 3  # levels below, as archives in archives have
_MOST_FOLDERS = 200  # looked into


class Layout(NamedTuple):
    """Where the splits are below a folder; "" for one that is not there."""

    train: str
    valid: str
    test: str


def find_layout(root: Path) -> Layout:
    """The splits of a folder by their usual names; where none has one, the folder itself is for training."""
    train, valid, test = (
        next((name for name in names if exists(root / name)), "")
        for names in (TRAIN_FOLDERS, VALID_FOLDERS, TEST_FOLDERS)
    )
    return Layout(train or ("" if valid else "."), valid, test)


def find_root(root: Path) -> Path | None:
    """The folder with a training split where `root` has none: the one that it is a split of, or the only one below it.

    None where there is no such folder, or none that is alone at its depth; of a bucket, which may be slow to ask.
    """
    if is_remote(root):
        return None
    above = absolute(root).parent
    if absolute(root).name.lower() in _SPLITS and _has_training(above):
        return above
    level, left = [root], _MOST_FOLDERS
    for _ in range(_DEEPEST):
        level = [folder for above in level for folder in _folders(above)][:left]
        left -= len(level)
        if found := [folder for folder in level if _has_training(folder)]:
            return found[0] if len(found) == 1 else None
    return None


def flags(layout: Layout) -> str:
    """What `train` must be told of a layout beside its root, each with a space before it."""
    train = f" --data.train {layout.train}" if layout.train != "train" else ""
    if not layout.valid:
        return f"{train} --data.valid_fraction {VALID_FRACTION}"
    return train + (f" --data.valid {layout.valid}" if layout.valid != "valid" else "")


def mend(root: Path, split: str, name: str) -> str:
    """What to set where `root` has no `name`, the folder of a split, for the end of a message."""
    layout = find_layout(root)
    usual = {"train": layout.train, "valid": layout.valid}.get(split, "")
    if usual not in ("", "."):
        both = f" --data.valid {layout.valid}" if split == "train" and layout.valid not in ("", "valid") else ""
        return f"; set --data.{split} {usual}{both}"
    if close := similar(root / name):
        return close
    if split == "valid":
        return f"; or hold out a share of the training pictures: --data.valid_fraction {VALID_FRACTION}"
    if split != "train" or is_remote(root):
        return ""
    if meant := find_root(root):
        return f"; another folder holds it: --data.root {shlex.quote(str(meant))}"
    if layout.train and len(list(_folders(root))) > 1:
        return f"; if these are the classes, set{flags(layout)}"
    return "; name the folder that holds train/ and valid/"


def _has_training(root: Path) -> bool:
    return find_layout(root).train not in ("", ".")


def _folders(root: Path) -> Iterator[Path]:
    """Those in a folder, sorted; of one that may not be listed none."""
    try:
        with os.scandir(root) as entries:
            return iter(sorted(Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith(".")))
    except OSError:
        return iter(())
