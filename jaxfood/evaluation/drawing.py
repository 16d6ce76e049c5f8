"""A picture of an evaluation as PNG, drawn by matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jaxfood.report.figures import Figure
from jaxfood.report.page import plot_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

DPI = 110


class Drawing(NamedTuple):
    """A picture being drawn: `canvas` to draw on, `finished` to call once it is."""

    canvas: "Canvas"

    def finished(self, name: str, title: str, caption: str, alt: str = "") -> Figure:
        """The picture as PNG, with its words."""
        png = io.BytesIO()
        # No version of matplotlib in the file: equal pictures are equal files.
        self.canvas.savefig(png, metadata={"Software": None})
        return Figure(name, title, caption, png.getvalue(), alt or title)


@contextmanager
def drawing(size: tuple[float, float], *, layout: str = "constrained") -> Iterator[Drawing]:
    """A picture to draw on, `size` in inches, in the style of pages; `layout` as matplotlib's ("none": by hand)."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(plot_style()):
        yield Drawing(Canvas(figsize=size, dpi=DPI, layout=layout))  # type: ignore[arg-type]
