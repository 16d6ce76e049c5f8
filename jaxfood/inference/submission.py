"""The homework's answer sheet: `Id,Category`, one row for each picture."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxfood.errors import UserError
from jaxfood.files import write_whole


def stem_ids(paths: Sequence[Path]) -> list[str]:
    """Each file's own number padded to 4 digits ("7.jpg" is 0007); other names as they are."""
    return [f"{int(path.stem):04}" if _is_number(path.stem) else path.stem for path in paths]


def index_ids(paths: Sequence[Path]) -> list[str]:
    """The position in sorted order padded to 4 digits, as the notes' code has it."""
    return [f"{position:04}" for position in range(len(paths))]


def check_distinct(ids: Sequence[str], paths: Sequence[Path]) -> None:
    """Check that every picture has an Id of its own.

    Raises:
        UserError: several pictures share one.
    """
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        sharing = ", ".join(str(path) for path, other in zip(paths, ids, strict=True) if other == name)
        raise UserError(f"the Id {name} stands for {count} pictures ({sharing}); rename them or take --ids index")


def write_submission(path: Path, ids: Sequence[str], categories: Sequence[int]) -> None:
    """Write `Id,Category` rows, numbers in numerical order before other Ids; whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    rows = sorted(zip(ids, categories, strict=True), key=lambda row: (not _is_number(row[0]), _number(row[0]), row[0]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("Id", "Category"), *rows])
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; give another --out") from None


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdecimal()


def _number(name: str) -> int:
    return int(name) if _is_number(name) else 0
