"""Pictures drawn with matplotlib, as the bytes of a PNG file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from jaxfood.evaluation.drawing import with_palette
from jaxfood.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120


class Canvas:
    """A picture in the making, measured in inches from its upper left corner; `png` once its block has ended."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.png = b""

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Axes at a place."""
        whole_width, whole_height = self.figure.get_size_inches()
        bottom = whole_height - top - height
        rectangle = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
        return self.figure.add_axes(rectangle)

    def panel(self, left: float, top: float, side: float, image: np.ndarray) -> "Axes":
        """An image `[H, W, 3]` in [0, 1] in a square, each pixel as one: smoothed it would look better than it is."""
        axes = self.axes(left, top, side, side)
        axes.set_axis_off()
        axes.imshow(np.clip(image, 0, 1), interpolation="nearest")
        return axes


@contextmanager
def canvas(width: float, height: float) -> Iterator[Canvas]:
    """A white picture of so many inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    require("matplotlib", "a picture of explanations", extra="evaluate")
    from matplotlib.figure import Figure

    drawn = Canvas(Figure(figsize=(width, height)))
    yield drawn
    file = io.BytesIO()
    drawn.figure.savefig(file, format="png", dpi=DPI)
    drawn.png = with_palette(file.getvalue())
