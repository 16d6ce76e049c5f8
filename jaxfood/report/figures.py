"""A picture of a report, with its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A picture as a report shows it; its words are plain text, which whoever writes a page escapes.

    Attributes:
        name: of the file, without suffix; unique in a report.
        title: a few words.
        caption: what is to be seen, in a sentence or a few.
        png: the file's content.
        alt: what stands in place of the picture where it cannot be seen.
    """

    name: str
    title: str
    caption: str
    png: bytes
    alt: str = ""
