"""More pictures than memory: batches read from disk while the device is busy with those before them.

Neither the host's nor a device's memory grows with the pictures, beyond some 40 bytes for each. The order is the
resident path's own, `epoch_order`; Grain only reads in it, by threads, so that an epoch can go on at any step.
"""

import os
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood.data.batches import ResidentPictures, batches, split_by_device, steps_per_epoch
from jaxfood.data.index import Positions
from jaxfood.data.pictures import Pictures
from jaxfood.data.threads import available_cpus
from jaxfood.devices import by_rows
from jaxfood.errors import UserError

_READ_AHEAD = 2  # batches that the threads read before they are asked for
_PUT_AHEAD = 1  # batches that lie on the devices beside the one in use


class StoredPictures(ABC):
    """Pictures that stay where they are stored and are read when they are needed.

    Attributes:
        skipped: unreadable pictures that `skip_corrupt` left out.
        handful: how many a thread should read at a time, lest handing them over cost more than reading them.
    """

    skipped: tuple[Path, ...] = ()
    handful = 1

    @abstractmethod
    def __len__(self) -> int:
        """The number of pictures."""

    @abstractmethod
    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pictures at `positions` and their labels: uint8 [n, H, W, 3] and int32 [n]. Several threads call it."""

    def subset(self, positions: Positions) -> Pictures:
        """The pictures at `positions`, read into memory; their paths are not kept, and are positions here."""
        rows = np.arange(len(self))[positions]
        images, labels = self.read(rows)
        return Pictures(images, labels, tuple(Path(str(row)) for row in rows), self.skipped)


class CachedPictures(StoredPictures):
    """Pictures in the cache, read from their files.

    Not through the memory map that `load_pictures` gives: all its pages that were once read count as this process's
    memory (until the kernel wants them back), after an epoch the whole data set.
    """

    handful = 64  # reading one takes 10 microseconds, handing over 100

    def __init__(self, parts: Sequence[Pictures], positions: Positions = slice(None)) -> None:
        """Open the files of the cache.

        Args:
            parts: as `load_pictures` gives them; all of one image size.
            positions: which of their pictures, counted through all parts.
        """
        arrays = [_memory_map(part) for part in parts]
        self._shape = arrays[0].shape[1:]
        files = [os.open(str(array.filename), os.O_RDONLY) for array in arrays]
        # Open as long as somebody may read: a later run may replace a file in the cache, not its content.
        self._close = weakref.finalize(self, _close_all, files)
        sizes = [len(array) for array in arrays]
        offsets = [array.offset + np.arange(size) * array[:1].nbytes for array, size in zip(arrays, sizes, strict=True)]
        self._files = np.repeat(files, sizes)[positions]
        self._offsets = np.concatenate(offsets)[positions]
        self._labels = np.concatenate([part.labels for part in parts])[positions]
        self.skipped = tuple(path for part in parts for path in part.skipped)

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(positions), *self._shape), np.uint8)
        for image, file, offset in zip(images, self._files[positions], self._offsets[positions], strict=True):
            if os.preadv(file, [image.data], offset) != image.nbytes:
                raise UserError(
                    "a file of decoded pictures has been cut short: remove the cache folder and start again"
                )
        return images, self._labels[positions]


def _memory_map(pictures: Pictures) -> np.memmap:
    if not isinstance(pictures.images, np.memmap):
        raise TypeError("pictures in memory cannot be read from the cache: give them as load_pictures does")
    return pictures.images


def _close_all(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


class StreamedPictures:
    """Stored pictures, of which each batch is read, and put on the devices, shortly before it is needed.

    With several processes each reads only the rows of its own devices.
    """

    def __init__(self, pictures: StoredPictures, mesh: Mesh, *, parts: int = 1, by_device: bool = False) -> None:
        """Prepare to read; the arguments are those of `ResidentPictures`."""
        self.size = len(pictures)
        self._pictures = pictures
        self._multiple_of = mesh.size * parts
        self._devices, self._by_device, self._sharding = mesh.size, by_device, by_rows(mesh)
        ours = [device.process_index == jax.process_index() for device in mesh.devices.flat]
        self._our_devices = np.flatnonzero(ours)

    def batches(self, order: np.ndarray, batch_size: int, start: int = 0) -> Iterator[dict[str, jax.Array]]:
        """The batches of an order: image uint8 `[B, H, W, 3]`, label int32 `[B]`, mask `[B]`, position int32 `[B]`."""
        chosen = batches(order, batch_size, start=start, multiple_of=self._multiple_of)
        ours = [(self._our_rows(positions), self._our_rows(mask)) for positions, mask in chosen]
        ahead: deque[dict[str, jax.Array]] = deque()
        with closing(self._read([positions for positions, _ in ours])) as read:
            for (images, labels), (positions, mask) in zip(read, ours, strict=True):
                ahead.append(self._put({"image": images, "label": labels, "mask": mask, "position": positions}))
                if len(ahead) > _PUT_AHEAD:
                    yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def _our_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those rows of a batch that lie on the devices of this process."""
        return rows.reshape(self._devices, -1)[self._our_devices].reshape(-1)

    def _read(self, chosen: Sequence[np.ndarray]) -> Any:
        """An iterator of Grain's over the pictures and labels of each batch, which threads read in parts."""
        import grain

        cpus, rows = available_cpus(), len(chosen[0]) if chosen else 1
        parts = min(cpus, steps_per_epoch(rows, self._pictures.handful))
        ahead = _READ_AHEAD * parts
        options = grain.ReadOptions(num_threads=min(cpus, ahead), prefetch_buffer_size=ahead)
        positions = [part for positions in chosen for part in np.array_split(positions, parts)]
        dataset = grain.MapDataset.source(positions).map(self._pictures.read).to_iter_dataset(options)
        return iter(dataset.batch(parts, batch_fn=_join))

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if self._by_device:
            batch = split_by_device(batch, len(self._our_devices))
        placed: dict[str, jax.Array] = jax.make_array_from_process_local_data(self._sharding, batch)
        return placed


def _join(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


Batches = ResidentPictures | StreamedPictures


def make_batches(
    pictures: Pictures | StoredPictures, mesh: Mesh, *, parts: int = 1, by_device: bool = False
) -> Batches:
    """What gives batches of pictures: from the devices if they are in memory, else from where they are stored."""
    if isinstance(pictures, Pictures):
        return ResidentPictures(pictures, mesh, parts=parts, by_device=by_device)
    return StreamedPictures(pictures, mesh, parts=parts, by_device=by_device)
