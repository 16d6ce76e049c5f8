"""Pictures and their labels, as training, prediction and the landscape take them: decoded, or read when needed."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxfood.data.index import Positions


@dataclass(frozen=True, eq=False)
class Pictures:
    """Decoded pictures and their labels.

    Attributes:
        images: uint8 [N, H, W, 3], RGB; from `cache.load_pictures` a read-only memory map.
        labels: int32 [N], -1 where there is no label.
        paths: where the N pictures came from.
        skipped: unreadable pictures that `skip_corrupt` left out of all the above, each with the reason.
        digests: of each picture file's bytes, BLAKE2b of 128 bits in hexadecimal; () where the files are not known.
        oriented: how many pictures have EXIF data that turn or mirror them. Of a subset it is, as `skipped`, what was
            said of all the pictures that it was taken from.
    """

    images: np.ndarray
    labels: np.ndarray
    paths: tuple[Path, ...]
    skipped: Mapping[Path, str] = field(default_factory=dict)
    digests: tuple[str, ...] = ()
    oriented: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, positions: Positions) -> Pictures:
        """The pictures at `positions` (integers, a mask or a slice), in that order; a slice copies nothing."""
        rows = np.arange(len(self))[positions]
        paths = tuple(self.paths[row] for row in rows)
        digests = tuple(self.digests[row] for row in rows) if self.digests else ()
        return Pictures(self.images[positions], self.labels[rows], paths, self.skipped, digests, self.oriented)

    def __add__(self, other: Pictures) -> Pictures:
        """These pictures, then those of `other`, copied into memory; both must have one image size."""
        return Pictures(
            np.concatenate((self.images, other.images)),
            np.concatenate((self.labels, other.labels)),
            self.paths + other.paths,
            {**self.skipped, **other.skipped},
            self.digests + other.digests if self.digests and other.digests else (),
            self.oriented + other.oriented,
        )


class StoredPictures(ABC):
    """Pictures that stay where they are stored and are read when they are needed.

    Attributes:
        skipped: as in `Pictures`.
        digests: as in `Pictures`.
        oriented: as in `Pictures`.
    """

    skipped: Mapping[Path, str] = MappingProxyType({})
    digests: tuple[str, ...] = ()
    oriented: int = 0

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
        digests = tuple(self.digests[row] for row in rows) if self.digests else ()
        paths = tuple(Path(str(row)) for row in rows)
        return Pictures(images, labels, paths, self.skipped, digests, self.oriented)


def list_unreadable(reasons: Mapping[Any, str], few: int = 10) -> str:
    """The first few of the pictures that cannot be read, each with its reason, for a message."""
    named = [f"{picture} ({reason})" for picture, reason in itertools.islice(reasons.items(), few)]
    return ", ".join(named) + (f", and {len(reasons) - few} more" if len(reasons) > few else "")
