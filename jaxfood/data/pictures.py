"""Pictures and their labels, as training, prediction and the landscape take them: decoded, or read when needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxfood.data.index import Positions


@dataclass(frozen=True, eq=False)
class Pictures:
    """Decoded pictures and their labels.

    Attributes:
        images: uint8 [N, H, W, 3], RGB; from `cache.load_pictures` a read-only memory map.
        labels: int32 [N], -1 where there is no label.
        paths: where the N pictures came from.
        skipped: unreadable pictures that `skip_corrupt` left out of all the above.
    """

    images: np.ndarray
    labels: np.ndarray
    paths: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, positions: Positions) -> Pictures:
        """The pictures at `positions` (integers, a mask or a slice), in that order; a slice copies nothing."""
        rows = np.arange(len(self))[positions]
        paths = tuple(self.paths[row] for row in rows)
        return Pictures(self.images[positions], self.labels[rows], paths, self.skipped)

    def __add__(self, other: Pictures) -> Pictures:
        """These pictures, then those of `other`, copied into memory; both must have one image size."""
        return Pictures(
            np.concatenate((self.images, other.images)),
            np.concatenate((self.labels, other.labels)),
            self.paths + other.paths,
            self.skipped + other.skipped,
        )


class StoredPictures(ABC):
    """Pictures that stay where they are stored and are read when they are needed.

    Attributes:
        skipped: unreadable pictures that `skip_corrupt` left out.
    """

    skipped: tuple[Path, ...] = ()

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
