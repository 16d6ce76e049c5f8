"""LIME: a linear model of the segments of one picture that answers as the network does nearby."""

from typing import NamedTuple

import numpy as np

from jaxfood.evaluation.explanations.scores import Variables, probabilities_of_variants
from jaxfood.evaluation.explanations.segments import superpixels
from jaxfood.model.network import Network

_KERNEL_WIDTH = 0.25  # of the cosine distance, as the authors' code has it for pictures
_RIDGE = 1.0  # as there
_SAME = 1e-12  # a variance of probabilities that is their rounding: the network answers the same whatever is shown


class Surrogate(NamedTuple):
    """A linear model of which of S segments are shown.

    Attributes:
        weights: `[S]`, what showing each adds to the class's probability.
        intercept: the probability when none is shown.
        r2: the share of the variance that it explains of answers that it was not fitted to, each left out once,
            weighted as in the fit; 1 is all, 0 or less: no better than their mean.
    """

    weights: np.ndarray
    intercept: float
    r2: float


class LimeMaps(NamedTuple):
    """LIME of B pictures.

    Attributes:
        maps: `[B, H, W]`, each pixel with its segment's weight, above 0 where it speaks for the class.
        r2: `[B]`, how well each linear model answers as the network does.
    """

    maps: np.ndarray
    r2: np.ndarray


def lime(
    model: Network,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    samples: int = 256,
    segments: int = 49,
    seed: int = 0,
) -> LimeMaps:
    """Which segments of each picture speak for the class, and which against it.

    Some segments, drawn at random, are hidden; a linear model of which are shown is fitted to the class's probability.
    Ribeiro, Singh and Guestrin 2016, https://arxiv.org/abs/1602.04938. What hides is the picture's mean colour, not the
    segment's as in the authors' code: a segment of one colour would not be hidden.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: `[B, H, W, 3]` in [0, 1].
        labels: `[B]`, the class of each to explain.
        samples: how many times segments are hidden.
        segments: how many at most; see `segments.superpixels`.
        seed: of what is hidden; it is the same for all pictures with as many segments.
    """
    cuts = [superpixels(image, segments) for image in images]
    shown = [draw_masks(samples, cut.max() + 1, seed) for cut in cuts]
    hidden = images.mean((1, 2))

    def variants(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, draws = np.divmod(numbers, samples)
        made = [
            np.where(shown[row][draw][cuts[row]][..., None], images[row], hidden[row])
            for row, draw in zip(rows, draws, strict=True)
        ]
        return np.stack(made), labels[rows]

    answers = probabilities_of_variants(model, variables, len(images) * samples, variants).reshape(-1, samples)
    fits = [fit_surrogate(masks, values) for masks, values in zip(shown, answers, strict=True)]
    maps = [fit.weights[cut] for fit, cut in zip(fits, cuts, strict=True)]
    return LimeMaps(np.stack(maps), np.array([fit.r2 for fit in fits]))


def draw_masks(samples: int, segments: int, seed: int) -> np.ndarray:
    """Which segments are shown, bool `[samples, segments]`: all in the first, then each with probability 1/2."""
    masks = np.random.default_rng(seed).random((samples, segments)) < 0.5
    masks[0] = True
    return masks


def fit_surrogate(
    masks: np.ndarray, values: np.ndarray, *, ridge: float = _RIDGE, kernel_width: float = _KERNEL_WIDTH
) -> Surrogate:
    """The linear model of masks `[M, S]` nearest to values `[M]`, by weighted ridge regression.

    A mask weighs `exp(-d^2 / kernel_width^2)` with its cosine distance d from the whole picture.

    Args:
        masks: which segments are shown.
        values: what the network answers.
        ridge: the penalty of the squared weights, which keeps them apart from noise; not of the intercept.
        kernel_width: how near a mask must be to count.
    """
    shown = masks.astype(np.float64)
    distance = 1 - np.sqrt(shown.mean(1))  # of 0s and 1s, from all 1s
    importance = np.exp(-np.square(distance / kernel_width))
    share = importance / importance.sum()
    mean_mask, mean_value = share @ shown, share @ values
    inputs, outputs = shown - mean_mask, values - mean_value
    weighted = inputs.T * importance
    inverse = np.linalg.inv(weighted @ inputs + ridge * np.eye(shown.shape[1]))
    weights = inverse @ (weighted @ outputs)
    # What is missed of each answer when the fit leaves it out, by its leverage: no fit needs to be made again.
    leverage = share + importance * np.einsum("ms,st,mt->m", inputs, inverse, inputs, optimize=True)
    missed = share @ np.square((outputs - inputs @ weights) / (1 - leverage))
    total = share @ np.square(outputs)
    r2 = 1 - missed / total if total > _SAME else 1.0
    return Surrogate(weights, float(mean_value - mean_mask @ weights), float(r2))
