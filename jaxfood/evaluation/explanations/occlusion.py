"""Occlusion: how much of the answer is lost when a part of the picture is hidden."""

from functools import partial

import numpy as np

from jaxfood.evaluation.explanations.scores import (
    Variables,
    class_probabilities,
    in_parts,
    probabilities_of_variants,
)
from jaxfood.model.network import Network

_WINDOWS_A_SIDE = 6  # by default a window's side is this part of the picture's


def occlusion(
    model: Network,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    size: int = 0,
    stride: int = 0,
    fill: float | None = None,
) -> np.ndarray:
    """How far the class's probability falls when a square that covers a pixel is hidden, `[B, H, W]`.

    The mean over all squares that cover it; below 0 where hiding makes the answer surer. Zeiler and Fergus 2014,
    https://arxiv.org/abs/1311.2901.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: `[B, H, W, 3]` in [0, 1].
        labels: `[B]`, the class of each to explain.
        size: the square's side in pixels; 0: a sixth of the picture's.
        stride: how many pixels from one square to the next; 0: half of the side. The last ones end with the picture.
        fill: the grey that hides, in [0, 1]; None: the picture's mean colour.
    """
    height, width = images.shape[1:3]
    size = size or max(1, min(height, width) // _WINDOWS_A_SIDE)
    windows = square_windows(height, width, size, stride or max(1, size // 2))
    hidden = images.mean((1, 2), keepdims=True) if fill is None else np.full((len(images), 1, 1, 3), fill, images.dtype)

    def variants(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, places = np.divmod(numbers, len(windows))
        return np.where(windows[places][..., None], hidden[rows], images[rows]), labels[rows]

    found = probabilities_of_variants(model, variables, len(images) * len(windows), variants)
    whole = in_parts(partial(class_probabilities, model, variables), images, labels)
    drops = whole[:, None] - found.reshape(len(images), len(windows))
    return np.einsum("bw,whv->bhv", drops, windows.astype(drops.dtype)) / windows.sum(0)


def square_windows(height: int, width: int, size: int, stride: int) -> np.ndarray:
    """Squares that cover a picture, bool `[W, height, width]`, true where a square is."""
    rows, columns = (np.unique([*range(0, side - size, stride), side - size]) for side in (height, width))
    windows = np.zeros((len(rows) * len(columns), height, width), bool)
    for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
        windows[number, row : row + size, column : column + size] = True
    return windows
