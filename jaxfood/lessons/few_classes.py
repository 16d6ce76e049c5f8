"""A network of one hidden layer that learns a few classes of pictures: what the lesson on outlying eigenvalues trains.

Unlike `pictures_to_fit` it has ReLU, the cross-entropy, and inputs from 0 on, so that all have a common part.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.config import load_config
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError

PICTURES, SIDE, WIDTH = 60, 8, 256  # of each class; px; hidden units
LEAST, MOST = 3, 10  # classes
AS_THEY_ARE, RANDOM, CENTRED = "labels and inputs as they are", "labels drawn at random", "inputs of mean 0"
_LOADED_SIDE = 32  # the smallest that data.image_size takes; brought down to SIDE by means of squares


class Pictures(NamedTuple):
    """What is learned: inputs `[N, features]`, of mean square 1, labels `[N]`, and how many classes there are."""

    inputs: np.ndarray
    labels: np.ndarray
    classes: int

    def of_first(self, classes: int) -> "Pictures":
        """Those of the first classes."""
        chosen = self.labels < classes
        return Pictures(self.inputs[chosen], self.labels[chosen], classes)

    def changed(self, way: str, seed: int) -> "Pictures":
        """With random labels, as many of each as before, or with the mean of each feature taken away."""
        if way == RANDOM:
            return self._replace(labels=np.random.default_rng(seed).permutation(self.labels))
        if way == CENTRED:
            inputs = self.inputs - self.inputs.mean(axis=0)
            return self._replace(inputs=inputs / np.sqrt(np.mean(inputs**2)))
        return self


def load_pictures(images: Path | None) -> Pictures:
    """The drawn demo pictures or a folder's photographs, so many of each class, by a fixed choice, at 8 px.

    Raises:
        UserError: the folder is no data folder, has too few classes, or too few pictures of one.
    """
    source = () if images is None else ("data.source=folder", f"data.root={images}")
    config = load_config("demo", (*source, f"data.image_size={_LOADED_SIDE}"))
    splits = load_splits(config.data, config.model.num_classes, seed=0, progress=False)
    classes = min(len(splits.classes), MOST)
    if classes < LEAST:
        raise UserError(f"--images: {images} has {classes} classes; the lesson takes {LEAST} or more")
    everything = splits.train.subset(np.arange(len(splits.train)))
    chosen = list[np.ndarray]()
    for label in range(classes):
        of_class = np.flatnonzero(everything.labels == label)
        if len(of_class) < PICTURES:
            raise UserError(
                f"--images: {images} has {len(of_class)} training pictures of {splits.classes[label]}; the lesson "
                f"takes {PICTURES} of each class"
            )
        chosen.append(np.sort(np.random.default_rng(label).permutation(of_class)[:PICTURES]))
    part, step = everything.subset(np.concatenate(chosen)), _LOADED_SIDE // SIDE
    squares = part.images.astype(np.float32).reshape(-1, SIDE, step, SIDE, step, 3) / 255
    inputs = squares.mean(axis=(2, 4)).reshape(len(squares), -1)
    return Pictures(inputs / np.sqrt(np.mean(inputs**2)), part.labels, classes)


def init_params(features: int, classes: int, seed: int) -> Any:
    """Of one hidden layer of ReLU: normal numbers of variance 2 / inputs (He et al. 2015), biases of 0."""
    sizes = features, WIDTH, classes
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        f"layer{number}": {
            "kernel": jax.random.normal(key, (before, after)) * (2 / before) ** 0.5,
            "bias": jnp.zeros(after),
        }
        for number, (key, before, after) in enumerate(zip(keys, sizes, sizes[1:], strict=False), start=1)
    }


def outputs(params: Any, inputs: jax.Array | np.ndarray) -> jax.Array:
    """`[N, features]` to `[N, classes]`."""
    hidden = jax.nn.relu(inputs @ params["layer1"]["kernel"] + params["layer1"]["bias"])
    return hidden @ params["layer2"]["kernel"] + params["layer2"]["bias"]


def mean_loss(params: Any, inputs: jax.Array | np.ndarray, labels: jax.Array | np.ndarray) -> jax.Array:
    """The cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs(params, inputs), labels).mean()
