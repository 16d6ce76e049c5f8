"""Trainings of the package's own networks on a few pictures, as `jaxfood.train` has them, without a run directory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfood.config import Config, load_config
from jaxfood.data.batches import Batches, epoch_order, steps_per_epoch
from jaxfood.data.pictures import Pictures
from jaxfood.data.splits import load_splits
from jaxfood.model.networks import init_variables
from jaxfood.training.metrics import means, zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_update

_update = jax.jit(add_update, donate_argnums=(0, 1))


class Data(NamedTuple):
    """What a lesson trains on, and the configuration that it does so by, whose number of classes is known."""

    config: Config
    train: Pictures
    valid: Pictures


def load_data(settings: Sequence[str], images: Path | None, pictures: int | None) -> Data:
    """The demo recipe's pictures, or those of a data folder.

    Args:
        settings: overrides of the recipe.
        images: a data folder (`data.root`); None: the drawn demo pictures.
        pictures: so many of those to train on, at most, by a fixed choice; None: all.
    """
    source = () if images is None else ("data.source=folder", f"data.root={images}")
    config = load_config("demo", (*source, *settings, "device.count=1"))
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=False)
    chosen = np.sort(np.random.default_rng(0).permutation(len(splits.train))[:pictures])
    return Data(splits.completed(config), splits.train.subset(chosen), splits.valid.subset(slice(None)))


def train_epochs(config: Config, pictures: Batches, epochs: int) -> Iterator[tuple[TrainState, dict[str, float]]]:
    """Train from the weights and in the order of `train.seed`: the state after each epoch, and the epoch's means.

    A state is given up to the next epoch, so it is to be used before that.
    """
    size, seed = config.train.batch_size, config.train.seed
    state = TrainState.create(config, init_variables(config), epochs * steps_per_epoch(pictures.size, size))
    for epoch in range(epochs):
        sums = zero_sums(updates=True)
        for batch in pictures.batches(epoch_order(seed, epoch, pictures.size), size):
            state, sums = _update(state, sums, batch)
        yield state, as_floats(means(sums))


def as_floats(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics off the device."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
