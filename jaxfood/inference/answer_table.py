"""What runs answer for a few pictures, as a table for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxfood.errors import columns, printable, within_columns

if TYPE_CHECKING:  # --help does not wait for it
    import numpy as np

FEW = 10  # pictures: more would scroll away what a command says beside
TOP = 3
_FILE, _CLASS = 36, 22  # columns at most


def answer_table(
    names: Sequence[str], probabilities: "np.ndarray", classes: Sequence[str], unreadable: Mapping[int, str]
) -> list[str]:
    """The likeliest classes of each picture, one line each below a header; columns stand below each other.

    Args:
        names: of N pictures.
        probabilities: float32 [N, num_classes].
        classes: in label order.
        unreadable: the rows of the pictures that cannot be read, and why.
    """
    shown = min(TOP, len(classes))
    rows = [["picture", *("1st", "2nd", "3rd")[:shown]]]
    for row, (name, answer) in enumerate(zip(names, probabilities, strict=True)):
        file = _start_cut(printable(name), _FILE)
        if row in unreadable:
            rows.append([file, *[""] * shown])
            continue
        best = (-answer).argsort(kind="stable")[:shown]  # of equal ones the first, as argmax has it
        rows.append([file, *(_answer(classes[label], answer[label]) for label in best)])
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    lines = ["  ".join(map(_padded, cells, widths)).rstrip() for cells in rows]
    for row in unreadable:
        lines[1 + row] = f"{_padded(rows[1 + row][0], widths[0])}  cannot be read"
    return lines


def _answer(name: str, probability: float) -> str:
    return f"{probability:6.1%} {within_columns(printable(name), _CLASS)}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _start_cut(text: str, width: int) -> str:
    """A text of at most so many columns: of a longer one the end, which tells files of a folder apart."""
    if columns(text) <= width:
        return text
    start = next(start for start in range(len(text) + 1) if columns(text[start:]) < width)
    return "…" + text[start:]
