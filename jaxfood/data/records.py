"""Which pictures a run is of: each by its split, name, label and content. A path is no identity: data move."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxfood.data.index import PictureIndex, Positions
from jaxfood.data.labels import NO_LABEL, sort_names
from jaxfood.data.pictures import Pictures
from jaxfood.errors import first_few

_SHOWN_CLASSES = 30


class PictureRecord(NamedTuple):
    """One picture: train, valid or unlabeled, its path below that folder, its label, a digest of its bytes."""

    split: str
    name: str
    label: int
    digest: str


Records = tuple[PictureRecord, ...]


def record_split(
    split: str, indexes: Sequence[PictureIndex], parts: Sequence[Pictures], positions: Positions = slice(None)
) -> Records:
    """The records of the pictures at `positions`, counted through all parts: those of `indexes`, decoded.

    Where several folders are joined, the folder's name comes before a picture's.
    """
    records = [
        PictureRecord(split, (f"{index.root.name}/" if len(indexes) > 1 else "") + index.name(path), int(label), digest)
        for index, part in zip(indexes, parts, strict=True)
        for path, label, digest in zip(part.paths, part.labels, part.digests, strict=True)
    ]
    return tuple(records[row] for row in np.arange(len(records))[positions])


def differences(before: Records, now: Records) -> list[str]:
    """In what two sets of records differ, a phrase each; empty where they are the same in the same order."""
    phrases = []
    for split in ("train", "valid", "unlabeled"):
        old, new = ([record for record in records if record.split == split] for records in (before, now))
        phrases += [f"{split} has {phrase}" for phrase in _split_differences(old, new)]
    return phrases


def _split_differences(old: Sequence[PictureRecord], new: Sequence[PictureRecord]) -> Iterator[str]:
    by_name = [{record.name: record for record in records} for records in (old, new)]
    both = by_name[0].keys() & by_name[1].keys()
    kinds = {
        "lost": by_name[0].keys() - both,
        "gained": by_name[1].keys() - both,
        "other content in": {name for name in both if by_name[0][name].digest != by_name[1][name].digest},
        "other labels for": {name for name in both if by_name[0][name].label != by_name[1][name].label},
    }
    for kind, names in kinds.items():
        if names:
            yield f"{kind} {len(names)} ({first_few(sorted(names))})"
    if not any(kinds.values()) and list(old) != list(new):
        yield "another order of its pictures"


def class_table(records: Records, classes: Sequence[str]) -> list[str]:
    """The lines of a table: number and name of each class, and how many pictures of each split it has.

    No lines where the records do not tell, as those of TFDS.
    """
    if any(record.label == NO_LABEL and record.split != "unlabeled" for record in records):
        return []
    counts = {split: Counter(each.label for each in records if each.split == split) for split in ("train", "valid")}
    shown = list(enumerate(classes))[:_SHOWN_CLASSES]
    width = max(len("class"), *(len(f"{label:2d} {name}") for label, name in shown))
    lines = [f"{'class':{width}}  {'train':>7} {'valid':>7}"]
    for label, name in shown:
        lines.append(f"{f'{label:2d} {name}':{width}}  {counts['train'][label]:7d} {counts['valid'][label]:7d}")
    if len(classes) > _SHOWN_CLASSES:
        lines.append(f"and {len(classes) - _SHOWN_CLASSES} more classes")
    return lines


def class_remarks(records: Records, classes: Sequence[str], *, class_order: str, are_names: bool) -> Iterator[str]:
    """What may surprise about the classes: one that nothing is trained for, and the order of the names.

    Args:
        records: of both splits.
        classes: their names in label order.
        class_order: as `labels.sort_names` takes it.
        are_names: whether folders named the classes.
    """
    trained = {record.label for record in records if record.split == "train"}
    if missing := [f"{label} ({name})" for label, name in enumerate(classes) if label not in trained]:
        yield f"no training picture is of class {first_few(missing)}"
    if not are_names:
        return
    if all(name.isdecimal() for name in classes):
        yield (
            f"the folders {first_few(classes)} are taken for names: numbers are labels where they run from 0 on "
            "without a gap, or lie below a model.num_classes that is set"
        )
    other = "natural" if class_order == "name" else "name"
    ordered = sort_names(classes, other)
    if ordered != list(classes):
        label = next(label for label, (a, b) in enumerate(zip(classes, ordered, strict=True)) if a != b)
        how = "their sorted names, as ImageFolder does" if class_order == "name" else "the numbers in their names"
        yield (
            f"classes are numbered by {how}: {label} is {classes[label]}; with data.class_order = {other!r} it "
            f"would be {ordered[label]}"
        )


def doubles(records: Iterable[PictureRecord]) -> Iterator[str]:
    """What stands twice where it matters: one name in one split, or one content in both splits or under two classes."""
    records = list(records)
    names = Counter((record.split, record.name) for record in records)
    if repeated := [f"{split}/{name}" for (split, name), count in names.items() if count > 1]:
        yield f"{len(repeated)} pictures are listed more than once, and count as often: {first_few(repeated)}"
    by_digest: defaultdict[str, list[PictureRecord]] = defaultdict(list)
    for record in records:
        by_digest[record.digest].append(record)
    for differs, what in (("split", "stand in train and in valid"), ("label", "stand under two labels")):
        found = []
        for group in by_digest.values():
            one_of_each = {getattr(record, differs): f"{record.split}/{record.name}" for record in reversed(group)}
            if len(one_of_each) > 1:
                found.append(" = ".join(sorted(one_of_each.values())[:2]))
        if found:
            yield f"{len(found)} pictures {what}, by the same bytes: {first_few(found)}"
