"""The index of pictures: which there are and what their labels are, before any is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jaxfood.errors import UserError

NO_LABEL = -1
Positions = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class PictureIndex:
    """Pictures and their labels, in a fixed order (the notes' FoodDataset, without the pixels).

    Attributes:
        root: what the user named (folder, list file or single picture), absolute.
        paths: the N pictures, absolute; those of a folder sorted by their path below it.
        labels: int32 [N], -1 where there is no label.
        classes: the class names in label order; () where labels are numbers.
        versions: what the listing of a bucket told of its pictures, which changes when they do.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    versions: Mapping[Path, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, positions: Positions) -> PictureIndex:
        """The pictures at `positions` (integers, a mask or a slice), in that order; torch.utils.data.Subset."""
        rows = np.arange(len(self))[positions]
        return replace(self, paths=tuple(self.paths[row] for row in rows), labels=self.labels[rows])

    def __add__(self, other: PictureIndex) -> PictureIndex:
        """These pictures, then those of `other`; torch.utils.data.ConcatDataset.

        The root becomes the deepest folder that holds both roots.

        Raises:
            UserError: both have labels, and their classes differ.
        """
        has_labels = [index for index in (self, other) if np.any(index.labels != NO_LABEL)] or [self]
        if len({index.classes for index in has_labels}) > 1:
            raise UserError(
                f"{self.root} and {other.root} cannot be joined: their classes differ "
                f"({', '.join(self.classes) or 'numbers'} against {', '.join(other.classes) or 'numbers'}); "
                "index the second with the classes of the first"
            )
        root = common_folder([self.root, other.root])
        labels = np.concatenate((self.labels, other.labels))
        versions = {**self.versions, **other.versions}
        return PictureIndex(root, self.paths + other.paths, labels, has_labels[0].classes, versions)

    def name(self, path: Path) -> str:
        """`path` as messages show it: below the root without the root."""
        return path.relative_to(self.root).as_posix() if path != self.root and self.root in path.parents else str(path)


def common_folder(folders: Collection[Path]) -> Path:
    """The deepest folder that holds them all."""
    first, *others = folders
    return next(folder for folder in (first, *first.parents) if all(folder in (each, *each.parents) for each in others))
