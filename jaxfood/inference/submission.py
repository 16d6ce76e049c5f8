"""The homework's answer sheet: `Id,Category`, one row for each picture; and its probabilities, in the same rows."""

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxfood.errors import UserError, first_few
from jaxfood.files import reason, write_whole

if TYPE_CHECKING:  # --help does not wait for it
    import numpy as np

ID_FORMS = {
    "stem": "the file's own number padded to four digits (7.jpg is 0007); other names as they are",
    "stem_unpadded": "the same, not padded",
    "index": "the position in sorted order from 0000 on, as in the notes' code",
    "index_unpadded": "the same, not padded: the form of 2021",
    "index_from_1": "the position from 0001 on",
}


def make_ids(paths: Sequence[Path], form: str) -> list[str]:
    """The Id of each of the pictures, which are in sorted order, in a form of `ID_FORMS`.

    Raises:
        UserError: several pictures share one.
    """
    width = 1 if form.endswith("unpadded") else 4
    if form.startswith("stem"):
        ids = [f"{int(path.stem):0{width}}" if _is_number(path.stem) else path.stem for path in paths]
    else:
        first = int(form == "index_from_1")
        ids = [f"{first + position:0{width}}" for position in range(len(paths))]
    _check_distinct(ids, paths)
    return ids


def describe_ids(paths: Sequence[Path], ids: Sequence[str], form: str) -> str:
    """What the Ids are and, where files sort otherwise than they count, that it matters."""
    text = f"Ids are {ids[0]} to {ids[-1]} by --ids {form}" if len(ids) > 1 else f"the Id is {ids[0]} by --ids {form}"
    numbers = [int(path.stem) for path in paths if _is_number(path.stem)]
    unsorted = next(((a, b) for a, b in itertools.pairwise(paths) if _counts_down(a, b)), None)
    if len(numbers) == len(paths) and unsorted:
        text += (
            f"; mind the order: {unsorted[0].name} sorts before {unsorted[1].name}, so Ids by the files' numbers "
            "(stem) and by their position (index), which the notes' code takes, name other pictures"
        )
    return text


def _counts_down(first: Path, second: Path) -> bool:
    return _is_number(first.stem) and _is_number(second.stem) and int(first.stem) > int(second.stem)


def _check_distinct(ids: Sequence[str], paths: Sequence[Path]) -> None:
    """Check that every picture has an Id of its own.

    Raises:
        UserError: several pictures share one.
    """
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        sharing = first_few(str(path) for path, other in zip(paths, ids, strict=True) if other == name)
        raise UserError(f"the Id {name} stands for {count} pictures ({sharing}); rename them or take --ids index")


def write_submission(path: Path, ids: Sequence[str], categories: Sequence[int]) -> None:
    """Write `Id,Category` rows, numbers in numerical order before other Ids; whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    _write_rows(path, "--out", ("Category",), ids, [(category,) for category in categories])


def write_probabilities(path: Path, ids: Sequence[str], classes: Sequence[str], probabilities: "np.ndarray") -> None:
    """Write a row for each picture: its Id, and a column for each class; whole or not at all.

    Args:
        path: of the file.
        ids: of N pictures. Their rows stand as those of the submission do.
        classes: their names head the columns, in label order.
        probabilities: float32 [N, num_classes], written to the last digit; the row of a picture whose are NaN is empty
            but for the Id.

    Raises:
        UserError: the file cannot be written.
    """
    cells = [["" if math.isnan(value) else str(value) for value in row] for row in probabilities]
    _write_rows(path, "--probabilities", classes, ids, cells)


def _write_rows(
    path: Path, flag: str, columns: Sequence[str], ids: Sequence[str], cells: Sequence[Sequence[object]]
) -> None:
    pairs = sorted(zip(ids, cells, strict=True), key=lambda row: (not _is_number(row[0]), _number(row[0]), row[0]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("Id", *columns), *((name, *row) for name, row in pairs)])
    try:
        # A name that is not UTF-8 is written with the bytes that it has.
        write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}; give another {flag}") from None


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdecimal()


def _number(name: str) -> int:
    return int(name) if _is_number(name) else 0
