"""Test-time augmentation: changed views of a picture beside the plain one, of the kind that a run was trained on."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxfood.config.sections import Config
from jaxfood.data.augment import augment, changes

_STREAM = 2**31 - 1  # no epoch has this number, so that no view is one of training's

PLAIN_WEIGHT = 0.5  # of the plain view; the others share the rest, as the homework's hint for its highest tier has it


def knows_views(config: Config) -> bool:
    """Whether a run of this configuration was trained on changed pictures."""
    return changes(config.augment)


def picture_numbers(digests: Sequence[str]) -> np.ndarray:
    """A number for each picture, `uint32 [N]`, that its content makes: it is the same in whatever folder it stands."""
    return np.array([int(digest[:8], 16) for digest in digests], np.uint32)


def change(config: Config, images: jax.Array, numbers: jax.Array, view: jax.Array) -> jax.Array:
    """The view of a number from 0 on, as training could have shown it: the changes of pixels, without mixing.

    Args:
        config: the run's; `augment` and `train.seed` are read.
        images: `[B, H, W, 3]`.
        numbers: `[B]`, as `picture_numbers` gives them.
        view: `[]`.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.train.seed), _STREAM), view)
    return augment(config.augment, images, numbers, key)


def weigh(plain: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The answer of the plain view and the mean answer of the others as one; all `[N, num_classes]`."""
    return PLAIN_WEIGHT * plain + (1 - PLAIN_WEIGHT) * others
