"""A picture of a report, with its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A picture as it is written to a file or put into a page.

    Attributes:
        name: the file's name without suffix, unique in a report.
        title: a heading.
        caption: what is to be seen, in a sentence or a few.
        png: the file's bytes.
        alt: the same in words, for who cannot see it; "" where the caption says it.
    """

    name: str
    title: str
    caption: str
    png: bytes
    alt: str = ""
