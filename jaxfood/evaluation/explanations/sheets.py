"""Sheets of explanations: a row for each picture, a column for each way to explain its answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxfood.evaluation.explanations.drawing import Canvas, canvas
from jaxfood.report.figures import Figure
from jaxfood.report.labels import fit_labels

ROWS = 4  # of a sheet

_SIDE, _GAP = 1.15, 0.05  # inches, of a panel and between two
_LABEL, _TOP, _BOTTOM = 1.55, 0.25, 0.5  # left of the panels, above and below them
_TEXT = 20  # characters that have room in a row's label
_MAGNITUDES, _SIGNS = "magma", "PuOr_r"  # told apart by colour-blind eyes, and by lightness where there is no colour
_BRIGHTEST = 99  # percentile of a map that has the end of its colours: single pixels would darken all others


@dataclass(frozen=True, eq=False)
class Explanations:
    """Why B pictures were answered as they were; maps `[B, H, W]`.

    Attributes:
        saliency: strength of the gradient, 0 and above.
        smooth_grad: strength of the gradient's mean over noisy copies.
        integrated_gradients: strength of each pixel's contribution.
        grad_cam: where the last features speak for the class, 0 and above.
        occlusion: what is lost by hiding; below 0: what is won.
        lime: weights of segments, below 0 where they speak against the class.
        gap: `[B]`, by what share the contributions miss the logit's difference from a black picture.
        lime_r2: `[B]`, how well LIME's linear models answer as the network does.
    """

    saliency: np.ndarray
    smooth_grad: np.ndarray
    integrated_gradients: np.ndarray
    grad_cam: np.ndarray
    occlusion: np.ndarray
    lime: np.ndarray
    gap: np.ndarray
    lime_r2: np.ndarray


@dataclass(frozen=True)
class RowLabel:
    """What is said of a picture: its file, the answer, how probable that is, and what is true ("": not known)."""

    file: str
    answer: str
    probability: float
    truth: str


_COLUMNS = (
    ("picture", ""),
    ("saliency", "saliency"),
    ("SmoothGrad", "smooth_grad"),
    ("integrated gradients", "integrated_gradients"),
    ("Grad-CAM", "grad_cam"),
    ("occlusion", "occlusion"),
    ("LIME", "lime"),
)


def draw_sheets(images: np.ndarray, labels: Sequence[RowLabel], found: Explanations, said: str) -> list[Figure]:
    """Sheets of B pictures, four on each.

    Args:
        images: `[B, H, W, 3]` in [0, 1].
        labels: of the B rows.
        found: their explanations.
        said: what to add to every caption.
    """
    starts = range(0, len(images), ROWS)
    figures = []
    for number, start in enumerate(starts, start=1):
        rows = slice(start, start + ROWS)
        png = _draw(images[rows], labels[rows], found, start)
        title = "Why these answers" + (f" ({number} of {len(starts)})" if len(starts) > 1 else "")
        caption = (
            "Each row: a picture, and what speaks for its answer. Saliency, SmoothGrad and integrated gradients: the "
            "brighter, the more the pixel counts. Grad-CAM: the brighter, the more the place speaks for the answer. "
            "Occlusion and LIME: orange speaks for the answer, purple against it. Each map has a range of its own. "
            f"Integrated gradients sum up to the logit's difference from a black picture within "
            f"{found.gap[rows].max():.1%}; LIME's linear models explain {found.lime_r2[rows].min():.0%} to "
            f"{found.lime_r2[rows].max():.0%} of what the network answers when segments are hidden."
        )
        alt = "; ".join(f"{row.file}: answered {row.answer} ({row.probability:.0%})" for row in labels[rows])
        figures.append(Figure(f"explanations_{number}", title, " ".join((caption, said)).strip(), png, alt))
    return figures


def _draw(images: np.ndarray, labels: Sequence[RowLabel], found: Explanations, first: int) -> bytes:
    step = _SIDE + _GAP
    height = _TOP + len(images) * step + _BOTTOM
    with canvas(_LABEL + len(_COLUMNS) * step, height) as drawn:
        for column, (name, _) in enumerate(_COLUMNS):
            _write(drawn, _LABEL + column * step + _SIDE / 2, _TOP / 2, name, ha="center")
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            top = _TOP + row * step
            _label(drawn, label, top)
            grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
            for column, (_, field) in enumerate(_COLUMNS):
                panel = _coloured(field, getattr(found, field)[first + row], grey) if field else image
                drawn.panel(_LABEL + column * step, top, _SIDE, panel)
        _scales(drawn, height - _BOTTOM)
    return drawn.png


def _coloured(field: str, values: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """A map `[H, W]` in colours `[H, W, 3]`; those that are coarser than pixels on the picture `grey` `[H, W, 3]`."""
    from matplotlib import colormaps

    end = np.percentile(np.abs(values), _BRIGHTEST) or np.abs(values).max() or 1.0
    if field in ("occlusion", "lime"):
        share = np.clip(values / end, -1, 1)
        colours = colormaps[_SIGNS]((share + 1) / 2)[..., :3]
        # What speaks neither way shows the picture, not the white in the middle of the colours.
        return grey + 0.75 * np.sqrt(np.abs(share))[..., None] * (colours - grey)
    colours = colormaps[_MAGNITUDES](np.clip(values / end, 0, 1))[..., :3]
    return 0.35 * grey + 0.65 * colours if field == "grad_cam" else colours


def _label(drawn: Canvas, label: RowLabel, top: float) -> None:
    lines = [label.file, f"answered ({label.probability:.0%})", label.answer]
    if label.truth:
        lines += ["truth", label.truth]
    for number, line in enumerate(lines):
        weight = "bold" if line == label.answer and number == 2 else "normal"
        _write(drawn, 0.05, top + 0.2 + 0.19 * number, line, ha="left", weight=weight)


def _write(drawn: Canvas, left: float, top: float, text: str, *, ha: str, weight: str = "normal") -> None:
    fitted = fit_labels([text], _TEXT)
    width, height = drawn.figure.get_size_inches()
    drawn.figure.text(
        *(left / width, 1 - top / height, fitted.texts[0]),
        ha=ha,
        va="center",
        fontsize=7.5,
        fontfamily=fitted.families,
        weight=weight,
        parse_math=False,
    )


def _scales(drawn: Canvas, top: float) -> None:
    """The two ranges of colours, with their ends in words."""
    from matplotlib import colormaps

    ramp = np.linspace(0, 1, 128)[None, :]
    step = _SIDE + _GAP
    for first, last, colours, low, high in (
        (1, 4, _MAGNITUDES, "counts little", "counts most"),
        (5, 6, _SIGNS, "against the answer", "for it"),
    ):
        left = _LABEL + first * step
        width = (last - first + 1) * step - _GAP - (0.2 if last < 6 else 0)
        axes = drawn.axes(left, top + 0.12, width, 0.1)
        axes.imshow(colormaps[colours](ramp)[..., :3], aspect="auto")
        axes.set_axis_off()
        _write(drawn, left, top + 0.34, low, ha="left")
        _write(drawn, left + width, top + 0.34, high, ha="right")
