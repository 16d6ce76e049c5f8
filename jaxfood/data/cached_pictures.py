"""Decoded pictures that are read from the cache batch by batch: `data.resident = false`."""

import io
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxfood.data.index import Positions
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.errors import UserError
from jaxfood.files import reading


class CachedPictures(StoredPictures):
    """Pictures in the cache, read from their files.

    Not through the memory map that `load_pictures` gives: all its pages that were once read count as this process's
    memory (until the kernel wants them back), after an epoch the whole data set.

    Attributes:
        labels: int32 [N].
    """

    def __init__(self, parts: Sequence[Pictures], positions: Positions = slice(None)) -> None:
        """Open the files of the cache.

        Args:
            parts: as `load_pictures` gives them; all of one image size.
            positions: which of their pictures, counted through all parts.
        """
        arrays = [part.images for part in parts if isinstance(part.images, np.memmap)]
        if len(arrays) < len(parts):
            raise TypeError("pictures in memory cannot be read from the cache: give them as load_pictures does")
        self._shape = arrays[0].shape[1:]
        # Open as long as somebody may read: a later run may replace a file in the cache, not its content.
        self._files = [_open_if_there(str(array.filename)) for array in arrays]
        self._arrays = arrays
        for file in self._files:
            if file is not None:
                weakref.finalize(self, file.close)
        self._cache = Path(str(arrays[0].filename)).parents[1]
        self._lock = threading.Lock()
        rows = [np.arange(len(array)) for array in arrays]
        self._file_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[positions]
        self._row_of = np.concatenate(rows)[positions]
        self.labels = np.concatenate([part.labels for part in parts])[positions]
        self.skipped = {path: reason for part in parts for path, reason in part.skipped.items()}
        self.oriented = sum(part.oriented for part in parts)
        if all(part.digests for part in parts):
            digests = [digest for part in parts for digest in part.digests]
            self.digests = tuple(digests[row] for row in np.arange(len(digests))[positions])

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(positions), *self._shape), np.uint8)
        rows = zip(images, self._file_of[positions], self._row_of[positions], strict=True)
        # A file has one place to read at, for all threads. Locked once for all rows: for each it costs a third more.
        with self._lock, reading(self._cache):
            for image, which, row in rows:
                if (file := self._files[which]) is None:
                    image[:] = self._arrays[which][row]
                    continue
                file.seek(self._arrays[which].offset + int(row) * image.nbytes)
                if file.readinto(image.data) != image.nbytes:
                    raise UserError(
                        "a file of decoded pictures has been cut short: remove the cache folder and start again"
                    )
        return images, self.labels[positions]


def _open_if_there(path: str) -> io.FileIO | None:
    """A file of the cache, or None where another process has removed it since it was mapped."""
    try:
        return io.FileIO(path)
    except FileNotFoundError:
        return None
