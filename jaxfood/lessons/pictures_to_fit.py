"""A small network that fits a few pictures exactly: what lessons on curvature train, fully known and fast.

As in Cohen et al. 2021 (arXiv 2103.00065, whose fully connected network of tanh units learns 5,000 pictures of
CIFAR-10 by the squared error), but of 200 pictures of 8 px and 64 units a layer, so that a step is a millisecond.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config import load_config
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError

PICTURES, SIDE, WIDTH = 200, 8, 64
_LOADED_SIDE = 32  # the smallest that data.image_size takes; brought down to SIDE by means of squares


class Task(NamedTuple):
    """What is fitted.

    Attributes:
        inputs: `[N, features]`, each feature of mean 0, all of deviation 1.
        labels: `[N]`.
        classes: how many there are.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: int


def load_task(images: Path | None = None, pictures: int = PICTURES) -> Task:
    """The drawn demo pictures, or photographs of a data folder (`data.root`), as many of them, by a fixed choice.

    Raises:
        UserError: the folder is no data folder, or has fewer pictures.
    """
    source = () if images is None else ("data.source=folder", f"data.root={images}")
    config = load_config("demo", (*source, f"data.image_size={_LOADED_SIDE}"))
    splits = load_splits(config.data, config.model.num_classes, seed=0, progress=False)
    if len(splits.train) < pictures:
        raise UserError(f"--images: {images} has {len(splits.train)} training pictures; the lesson takes {pictures}")
    chosen = np.sort(np.random.default_rng(0).permutation(len(splits.train))[:pictures])
    chosen_pictures = splits.train.subset(chosen)
    step = _LOADED_SIDE // SIDE
    squares = chosen_pictures.images.astype(np.float32).reshape(pictures, SIDE, step, SIDE, step, 3) / 255
    inputs = squares.mean(axis=(2, 4)).reshape(pictures, -1)
    inputs -= inputs.mean(axis=0)
    return Task(inputs / inputs.std(), chosen_pictures.labels, len(splits.classes))


def init_params(task: Task, seed: int, width: int = WIDTH) -> Any:
    """PyTorch's default of `nn.Linear` for the weights, 0 for the biases, of three layers."""
    sizes = (task.inputs.shape[1], width, width, task.classes)
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        f"layer{number}": {
            "kernel": jax.random.uniform(key, (before, after), minval=-1, maxval=1) / before**0.5,
            "bias": jnp.zeros(after),
        }
        for number, (key, before, after) in enumerate(zip(keys, sizes, sizes[1:], strict=False), start=1)
    }


def outputs(params: Any, inputs: jax.Array | np.ndarray) -> jax.Array:
    """`[N, features]` to `[N, classes]`."""
    x = inputs
    for number in (1, 2):
        x = jnp.tanh(x @ params[f"layer{number}"]["kernel"] + params[f"layer{number}"]["bias"])
    return x @ params["layer3"]["kernel"] + params["layer3"]["bias"]


def squared_error(task: Task) -> Callable[[Any], jax.Array]:
    """Half the squared distance from one-hot targets, summed over classes and averaged over pictures."""
    targets = jax.nn.one_hot(task.labels, task.classes)
    return lambda params: jnp.mean(jnp.sum((outputs(params, task.inputs) - targets) ** 2, axis=1)) / 2
