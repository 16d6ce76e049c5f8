"""Which pictures make up step n, padding and mask, and how they get on to the devices."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfood.data.cache import Pictures


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

    All have one shape, `batch_size` rounded up to a multiple of `multiple_of` (the number of devices), or less where
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

    def __init__(self, pictures: Pictures, mesh: Mesh) -> None:
        """Copy `pictures` to every device of `mesh`; batches are split over its axis."""
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.size = len(pictures)
        self.devices = mesh.size
        self._images = jax.device_put(np.asarray(pictures.images), everywhere)
        self._labels = jax.device_put(pictures.labels, everywhere)
        split = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
        self._gather = jax.jit(_gather, out_shardings=split)

    def batches(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[dict[str, jax.Array]]:
        """The batches of an order: image uint8 `[B, H, W, 3]`, label int32 `[B]`, mask `[B]`."""
        for positions, mask in batches(order, batch_size, start=start, multiple_of=self.devices):
            yield self._gather(self._images, self._labels, positions, mask)


def _gather(images: jax.Array, labels: jax.Array, positions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    return {"image": jnp.take(images, positions, axis=0), "label": jnp.take(labels, positions), "mask": mask}
