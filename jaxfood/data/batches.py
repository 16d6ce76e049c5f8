"""Which pictures make up step n, padding and mask, and how they get on to the devices."""

from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxfood.data.pictures import Pictures
from jaxfood.devices import by_rows, on_every_device

Rows = TypeVar("Rows", jax.Array, np.ndarray)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch's pictures: a fresh permutation `[size]`, a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Batches in an epoch, the smaller last one included."""
    return -(-size // batch_size)


def batches(
    order: np.ndarray, batch_size: int, *, start: int = 0, multiple_of: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The positions and the mask of each batch of an order, from batch `start` on.

    All have one shape, `batch_size` rounded up to a multiple of `multiple_of` (so that devices share it), or less where
    the whole order is smaller. The mask is 1 for pictures and 0 for padding.
    """
    padded_size = steps_per_epoch(min(batch_size, len(order)), multiple_of) * multiple_of
    for first in range(start * batch_size, len(order), batch_size):
        positions = np.zeros(padded_size, np.int32)
        mask = np.zeros(padded_size, np.float32)
        chosen = order[first : first + batch_size]
        positions[: len(chosen)] = chosen
        mask[: len(chosen)] = 1
        yield positions, mask


class ResidentPictures:
    """Pictures that lie on the devices as uint8, from which batches are gathered there."""

    def __init__(self, pictures: Pictures, mesh: Mesh, *, parts: int = 1, by_device: bool = False) -> None:
        """Copy pictures to every device of a mesh.

        Args:
            pictures: those of one split.
            mesh: its axis is what batches are split over.
            parts: how many parts a batch must be divisible into on each device (`train.accumulate`).
            by_device: give batches a leading axis of devices, as `pmap` takes them.
        """
        self.size = len(pictures)
        self._multiple_of = mesh.size * parts
        self._images = on_every_device(np.asarray(pictures.images), mesh)
        self._labels = on_every_device(pictures.labels, mesh)
        gather = partial(_gather, devices=mesh.size if by_device else None)
        self._gather = jax.jit(gather, out_shardings=by_rows(mesh))

    def batches(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[dict[str, jax.Array]]:
        """The batches of an order: image uint8 `[B, H, W, 3]`, label int32 `[B]`, mask `[B]`, position int32 `[B]`."""
        for positions, mask in batches(order, batch_size, start=start, multiple_of=self._multiple_of):
            yield self._gather(self._images, self._labels, positions, mask)


def _gather(
    images: jax.Array, labels: jax.Array, positions: jax.Array, mask: jax.Array, devices: int | None
) -> dict[str, jax.Array]:
    batch = {
        "image": jnp.take(images, positions, axis=0, mode="clip"),  # none is out of bounds
        "label": jnp.take(labels, positions, mode="clip"),
        "mask": mask,
        "position": positions,
    }
    return batch if devices is None else split_by_device(batch, devices)


def split_by_device(batch: dict[str, Rows], devices: int) -> dict[str, Rows]:
    """A batch `[B, ...]` as `[devices, B / devices, ...]`, the form that `pmap` takes."""
    return {name: rows.reshape(devices, -1, *rows.shape[1:]) for name, rows in batch.items()}
