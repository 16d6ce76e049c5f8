"""RUN/pictures.csv: which pictures a run was trained and validated on, by name, label and content."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxfood.data.records import PictureRecord, Records, differences
from jaxfood.errors import UserError, first_few
from jaxfood.files import read_bytes, reason, write_whole

PICTURES = "pictures.csv"


def write_pictures(workdir: Path, records: Records) -> None:
    """Write down what a run is trained on."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([PictureRecord._fields, *records])
    write_whole(workdir / PICTURES, text.getvalue().encode("utf-8", "surrogateescape"))


def read_pictures(workdir: Path) -> Records | None:
    """What a run was trained on; None where it does not tell: made by an earlier version, or of weights from elsewhere.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = read_bytes(workdir / PICTURES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {workdir / PICTURES} ({reason(error)}): make it readable") from error
    try:
        header, *rows = csv.reader(io.StringIO(text))
        if tuple(header) != PictureRecord._fields:
            raise ValueError("another header")
        return tuple(PictureRecord(split, name, int(label), digest) for split, name, label, digest in rows)
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{workdir / PICTURES} is damaged ({error}): restore it; without it --resume cannot tell whether the "
            "pictures are the run's"
        ) from None


def check_pictures(workdir: Path, classes: Sequence[str], now: Records, classes_now: Sequence[str]) -> bool:
    """Check that pictures, labels and classes are those that a run was trained on, wherever they lie now.

    Returns whether the run tells which pictures these were; otherwise only classes can be compared.

    Args:
        workdir: the run.
        classes: its classes.
        now: the pictures that it is to go on with.
        classes_now: their classes.

    Raises:
        UserError: they are others; what differs is named.
    """
    before = read_pictures(workdir)
    changed = []
    if not are_numbers(classes) and not are_numbers(classes_now):  # numbers fit any names
        pairs = enumerate(zip(classes, classes_now, strict=False))
        changed = [f"class {label} is {b}, was {a}" for label, (a, b) in pairs if a != b]
    if len(classes) != len(classes_now):
        changed.append(f"{len(classes_now)} classes, were {len(classes)}")
    found = ([first_few(changed)] if changed else []) + (differences(before, now) if before is not None else [])
    if found:
        raise UserError(
            f"the pictures are not those that {workdir} was trained on: {'; '.join(found)}: put them back as they "
            "were, or begin a new run"
        )
    return before is not None


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether classes have no names: those of a run of PyTorch weights, or of labels in file names."""
    return list(classes) == [str(label) for label in range(len(classes))]


def most_frequent_label(workdir: Path) -> int | None:
    """The label that most of a run's training pictures have, the lowest of equals; None where it does not tell."""
    counts = Counter(record.label for record in read_pictures(workdir) or () if record.split == "train")
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None
