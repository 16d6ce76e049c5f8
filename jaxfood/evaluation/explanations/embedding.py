"""Layers of a network as maps of pictures: near each other is what the layer takes for alike."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfood.evaluation.explanations.features import features
from jaxfood.evaluation.explanations.scores import PART, Variables
from jaxfood.extras import require
from jaxfood.model.network import Network
from jaxfood.model.networks import to_float

GRID = 4  # cells a side, over which a convolutional layer's features are averaged
_PERPLEXITY = 30  # t-SNE's: about how many neighbours of each picture it heeds
_FEWEST = 10  # pictures: of fewer t-SNE makes nothing of use
_COMPONENTS = 50  # of PCA before t-SNE, which takes away noise and time (van der Maaten and Hinton 2008, 4.2)


class LayerFeatures(NamedTuple):
    """What a network makes of N pictures.

    Attributes:
        layer: `[N, cells * C]`, a convolutional layer's features, averaged over the cells of a grid.
        channels: `[N, C]`, the same averaged over all places.
        hidden: `[N, D]`, what enters the last layer.
        answers: `[N]`, the answered class.
    """

    layer: np.ndarray
    channels: np.ndarray
    hidden: np.ndarray
    answers: np.ndarray


def layer_features(model: Network, variables: Variables, images: np.ndarray, layer: str) -> LayerFeatures:
    """The features of uint8 images `[N, H, W, 3]` in a convolutional layer and in the last hidden one.

    A layer's `h * w * C` values are averaged over 4x4 cells, and all kept where h or w does not divide by 4. An early
    layer's own would be gigabytes for a thousand pictures, and two pictures are not less alike when one is shifted by
    a pixel.
    """
    parts = []
    for start in range(0, len(images), PART):
        rows = np.minimum(np.arange(start, start + PART), len(images) - 1)
        found = features(model, variables, to_float(jnp.asarray(images[rows])), layer)
        cells = average_cells(np.asarray(found.layer, np.float32))
        hidden, logits = np.asarray(found.hidden, np.float32), np.asarray(found.logits)
        flat = cells.reshape(len(rows), -1)
        parts.append((flat, cells.mean((1, 2)), hidden, logits.argmax(1)))
    return LayerFeatures(*(np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True)))


def average_cells(values: np.ndarray) -> np.ndarray:
    """Means over the cells of a grid: `[B, h, w, C]` to `[B, 4, 4, C]`, or as it is where it does not divide so."""
    batch, height, width, channels = values.shape
    if height % GRID or width % GRID:
        return values
    return values.reshape(batch, GRID, height // GRID, GRID, width // GRID, channels).mean((2, 4))


def embed(values: np.ndarray, *, method: str = "t-SNE", seed: int = 0) -> np.ndarray:
    """A place in the plane for each of N pictures, `[N, 2]`, from its features `[N, D]`.

    Args:
        values: the features.
        method: "t-SNE", which keeps neighbours together (van der Maaten and Hinton 2008,
            https://jmlr.org/papers/v9/vandermaaten08a.html), after PCA to 50 components; or "PCA", the two directions
            of the largest variance.
        seed: t-SNE's.

    Raises:
        UserError: scikit-learn is not installed.
    """
    if method == "PCA":
        return principal_components(values, 2)
    require("sklearn", "t-SNE", extra="evaluate")
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn's own

    reduced = principal_components(values, _COMPONENTS)
    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    # Its threads mostly wait for each other: 750 pictures took 25 s of processor time on 2 busy cores, and 2 s by one.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)


def choose_method(count: int) -> str:
    """The way to embed so many pictures."""
    return "t-SNE" if count >= _FEWEST else "PCA"


def principal_components(values: np.ndarray, count: int) -> np.ndarray:
    """The first principal components of N pictures' features: `[N, D]` to `[N, count]`, zeros where there are fewer."""
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    # By the smaller of both sides; of N pictures the products between them have all there is.
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(-eigenvalues, kind="stable")[:count]
    found = vectors[:, order] * np.sqrt(np.maximum(eigenvalues[order], 0))
    # An eigenvector's sign is the library's choice: its largest entry shall be above 0.
    largest = np.take_along_axis(found, np.abs(found).argmax(0)[None], axis=0)
    found = found * np.where(largest < 0, -1, 1)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


def neighbour_agreement(values: np.ndarray, labels: np.ndarray) -> float:
    """The share of pictures whose nearest other picture, by the features `[N, D]`, has the same label."""
    values = values.astype(np.float64)
    squares = np.square(values).sum(1)
    distances = squares[:, None] + squares - 2 * values @ values.T
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(labels[distances.argmin(1)] == labels))
