"""A picture of an evaluation as PNG, drawn by matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from jaxfood.report.figures import Figure
from jaxfood.report.page import plot_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

DPI = 110
_COLOURS = 256  # of a file's palette, dithered: half the bytes of one without, and hardly a difference to see


class Drawing(NamedTuple):
    """A picture being drawn: `canvas` to draw on, `finished` to call once it is."""

    canvas: "Canvas"

    def finished(self, name: str, title: str, caption: str, alt: str = "", *, photographs: bool = False) -> Figure:
        """The picture as PNG, with its words; of `photographs`, which hardly compress, with a palette."""
        png = io.BytesIO()
        # No version of matplotlib in the file: equal pictures are equal files.
        self.canvas.savefig(png, metadata={"Software": None})
        content = with_palette(png.getvalue()) if photographs else png.getvalue()
        return Figure(name, title, caption, content, alt or title)


@contextmanager
def drawing(size: tuple[float, float], *, layout: str = "constrained") -> Iterator[Drawing]:
    """A picture to draw on, `size` in inches, in the style of pages; `layout` as matplotlib's ("none": by hand)."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(plot_style()):
        yield Drawing(Canvas(figsize=size, dpi=DPI, layout=layout))  # type: ignore[arg-type]


def with_palette(png: bytes) -> bytes:
    """A PNG of 256 colours chosen for it, a quarter to a third as large."""
    with Image.open(io.BytesIO(png)) as picture:
        full = picture.convert("RGB")
    # Chosen by a ninth of the pixels: by all of them a sheet takes four seconds.
    palette = full.reduce(3).quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=2)
    palette.putpalette(_with_white(palette.getpalette() or []))
    fewer = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    smaller = io.BytesIO()
    fewer.save(smaller, format="PNG", optimize=True)
    return smaller.getvalue()


def _with_white(colours: list[int]) -> list[int]:
    """A palette's values, those next to white made white: the page behind a picture shall not show its edge.

    All that are near, as Pillow looks a colour up among those that share its upper bits.
    """
    table = np.array(colours).reshape(-1, 3)
    table[(table >= 240).all(1)] = 255
    return [int(value) for value in table.ravel()]
