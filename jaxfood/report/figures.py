"""A picture of a report, with its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A picture of a report, with its words.

    Attributes:
        name: file name without suffix, unique in a report.
        title: a few words above it.
        caption: what is to be seen, below it.
        png: the file's content.
        alt: what it shows, for whoever cannot see it; empty: the title is read.
    """

    name: str
    title: str
    caption: str
    png: bytes
    alt: str = ""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """How a notebook shows it."""
        return self.png, {"alt": self.alt or self.title}
