"""What a machine and a data folder can do, and why not more, in lines of text."""

from collections.abc import Iterable, Iterator

_MARGIN = 10  # columns, in which the first line's subject stands


def lines_on(subject: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines as a terminal shows them: the subject before the first, as much room before the others."""
    for number, line in enumerate(lines):
        yield f"{'' if number else subject:{_MARGIN}}{line}"


def in_words(size: float) -> str:
    """A number of bytes, as "3.2 GB"; 1 GB is 10^9 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
