"""Which pictures make up step n, padding and mask, and how they get on to the devices: from there, or from disk."""

import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.data.threads import available_cpus, map_in_threads
from jaxfood.devices import by_rows, on_every_device

_LEAST_ROWS = 8  # that a thread reads at a time: handing them over costs as much as reading three cached pictures
_READ_AHEAD = 2  # batches that the threads read before they are asked for
_UNLABELED = 1  # a random stream of its own
_PUT_AHEAD = 1  # batches that lie on the devices beside the one in use

Rows = TypeVar("Rows", jax.Array, np.ndarray)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch's pictures: a fresh permutation `[size]`, a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def unlabeled_order(seed: int, epoch: int, size: int, count: int) -> np.ndarray:
    """The positions `[count]` of an epoch's unlabelled pictures, among `size` in all; a function of these alone.

    They come one permutation after another, whatever the epochs: each is seen once before any is seen again.
    """
    first, last = epoch * count // size, ((epoch + 1) * count - 1) // size
    permutations = [
        np.random.default_rng([seed, number, _UNLABELED]).permutation(size) for number in range(first, last + 1)
    ]
    start = epoch * count - first * size
    return np.concatenate(permutations)[start : start + count]


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Batches in an epoch, the smaller last one included."""
    return math.ceil(size / batch_size)


def batches(
    order: np.ndarray, batch_size: int, *, start: int = 0, multiple_of: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The positions and the mask of each batch of an order, from batch `start` on.

    All have one shape, `batch_size` rounded up to a multiple of `multiple_of` (so that devices share it), or less where
    the whole order is smaller. The mask is 1 for pictures and 0 for padding.
    """
    padded_size = math.ceil(min(batch_size, len(order)) / multiple_of) * multiple_of
    for first in range(start * batch_size, len(order), batch_size):
        positions = np.zeros(padded_size, np.int32)
        mask = np.zeros(padded_size, np.float32)
        chosen = order[first : first + batch_size]
        positions[: len(chosen)] = chosen
        mask[: len(chosen)] = 1
        yield positions, mask


class ResidentBatches:
    """Batches of pictures that lie on the devices as uint8, gathered there."""

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
        self._devices, self._sharding = mesh.size if by_device else None, by_rows(mesh)
        self._gather = jax.jit(partial(_gather, devices=self._devices), out_shardings=self._sharding)

    def batches(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[dict[str, jax.Array]]:
        """The batches of an order: image uint8 `[B, H, W, 3]`, label int32 `[B]`, mask `[B]`, position int32 `[B]`."""
        for positions, mask in batches(order, batch_size, start=start, multiple_of=self._multiple_of):
            yield self._gather(self._images, self._labels, positions, mask)

    @property
    def pictures(self) -> dict[str, jax.Array]:
        """All of them: image uint8 `[N, H, W, 3]`, label int32 `[N]`, on every device."""
        return {"image": self._images, "label": self._labels}

    def chosen(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The positions and the mask of each batch of an order, which `stack` takes."""
        return batches(order, batch_size, start=start, multiple_of=self._multiple_of)

    def stack(self, chosen: Sequence[tuple[np.ndarray, np.ndarray]], most: int) -> dict[str, jax.Array]:
        """Batches that are gathered only where they are used: position int32 `[B, most]` and mask `[B, most]`.

        A column is a batch, so that the rows lie on the devices that use them; those that are not given stay 0.
        """
        shape = len(chosen[0][0]), most
        stacks: dict[str, np.ndarray] = {"position": np.zeros(shape, np.int32), "mask": np.zeros(shape, np.float32)}
        for name, columns in zip(stacks, zip(*chosen, strict=True), strict=True):
            stacks[name][:, : len(chosen)] = np.stack(columns, axis=1)
        if self._devices is not None:
            stacks = _split_by_device(stacks, self._devices)
        return {name: self._put(rows) for name, rows in stacks.items()}

    def _put(self, rows: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(rows.shape, self._sharding, lambda index: rows[index])


class StreamedBatches:
    """Batches of stored pictures, each read, and put on the devices, shortly before it is needed.

    Neither the host's nor a device's memory grows with the pictures, beyond some 40 bytes for each. With several
    processes each reads only the rows of its own devices.
    """

    def __init__(self, pictures: StoredPictures, mesh: Mesh, *, parts: int = 1, by_device: bool = False) -> None:
        """Prepare to read; the arguments are those of `ResidentBatches`."""
        self.size = len(pictures)
        self._pictures = pictures
        self._multiple_of = mesh.size * parts
        self._devices, self._by_device, self._sharding = mesh.size, by_device, by_rows(mesh)
        ours = [device.process_index == jax.process_index() for device in mesh.devices.flat]
        self._our_devices = np.flatnonzero(ours)

    def batches(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[dict[str, jax.Array]]:
        """The batches of an order, as `ResidentBatches` gives them."""
        chosen = batches(order, batch_size, start=start, multiple_of=self._multiple_of)
        ours = [(self._our_rows(positions), self._our_rows(mask)) for positions, mask in chosen]
        ahead: deque[dict[str, jax.Array]] = deque()
        with closing(self._read(ours)) as read:
            for batch in read:
                ahead.append(self._put(batch))
                if len(ahead) > _PUT_AHEAD:
                    yield ahead.popleft()
        yield from ahead

    def _our_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those rows of a batch that lie on the devices of this process."""
        return rows.reshape(self._devices, -1)[self._our_devices].reshape(-1)

    def _read(self, chosen: list[tuple[np.ndarray, np.ndarray]]) -> Generator[dict[str, np.ndarray], None, None]:
        """The batches of these positions and masks, of which threads read some rows each."""
        reads = min(available_cpus(), math.ceil(len(chosen[0][0]) / _LEAST_ROWS)) if chosen else 1
        rows = (some for positions, _ in chosen for some in np.array_split(positions, reads))
        with closing(map_in_threads(self._pictures.read, rows, ahead=_READ_AHEAD * reads)) as read:
            for positions, mask in chosen:
                images, labels = map(np.concatenate, zip(*islice(read, reads), strict=True))
                yield {"image": images, "label": labels, "mask": mask, "position": positions}

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if self._by_device:
            batch = _split_by_device(batch, len(self._our_devices))
        placed: dict[str, jax.Array] = jax.make_array_from_process_local_data(self._sharding, batch)
        return placed


Batches = ResidentBatches | StreamedBatches


def make_batches(
    pictures: Pictures | StoredPictures, mesh: Mesh, *, parts: int = 1, by_device: bool = False
) -> Batches:
    """What gives batches of pictures: from the devices if they are in memory, else from where they are stored."""
    if isinstance(pictures, Pictures):
        return ResidentBatches(pictures, mesh, parts=parts, by_device=by_device)
    return StreamedBatches(pictures, mesh, parts=parts, by_device=by_device)


def _split_by_device(batch: dict[str, Rows], devices: int) -> dict[str, Rows]:
    """A batch `[B, ...]` as `[devices, B / devices, ...]`, the form that `pmap` takes."""
    return {name: rows.reshape(devices, -1, *rows.shape[1:]) for name, rows in batch.items()}


def _gather(
    images: jax.Array, labels: jax.Array, positions: jax.Array, mask: jax.Array, devices: int | None
) -> dict[str, jax.Array]:
    rows = {"position": positions, "mask": mask}
    batch = _taken({"image": images, "label": labels}, rows)
    return batch if devices is None else _split_by_device(batch, devices)


def _taken(pictures: Mapping[str, jax.Array], rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    taken = {name: jnp.take(whole, rows["position"], axis=0, mode="clip") for name, whole in pictures.items()}
    return {**taken, **rows}  # "clip": none is out of bounds


def batch_of(pictures: Mapping[str, Any], drawn: Mapping[str, Any], number: jax.Array) -> dict[str, Any]:
    """A batch of a stack (`ResidentBatches.stack`), gathered here; what was not stacked is a batch already.

    Args:
        pictures: all of them (`ResidentBatches.pictures`), and in `"unlabeled"` such a dictionary where there are any;
            empty where batches come from disk.
        drawn: the stack, and `"unlabeled"` so too; or the batch.
        number: which of the stacked, from 0 on.
    """
    if not pictures:
        return dict(drawn)
    rows = {
        name: jax.lax.dynamic_index_in_dim(drawn[name], number, axis=1, keepdims=False) for name in ("position", "mask")
    }
    batch: dict[str, Any] = _taken({name: pictures[name] for name in ("image", "label")}, rows)
    if "unlabeled" in pictures:
        batch["unlabeled"] = batch_of(pictures["unlabeled"], drawn["unlabeled"], number)
    return batch
