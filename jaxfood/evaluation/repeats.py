"""Pictures that stand twice, and pictures that the runs have seen in training: what they do to the accuracy."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxfood.data.labels import NO_LABEL
from jaxfood.runs.pictures import read_pictures


@dataclass(frozen=True)
class Repeats:
    """Pictures of the same bytes.

    Attributes:
        groups: the rows of each group of two or more, in the order of their first.
        accuracy_each_once: the accuracy where each content counts once, its copies sharing its weight.
        under_two_labels: how many groups stand under several labels, of which at most one can be right.
    """

    groups: tuple[tuple[int, ...], ...]
    accuracy_each_once: float
    under_two_labels: int

    @property
    def surplus(self) -> int:
        """How many pictures there would be less if each stood once."""
        return sum(len(group) - 1 for group in self.groups)


def find_repeats(digests: Sequence[str], truth: np.ndarray, right: np.ndarray) -> Repeats:
    """The pictures that stand several times.

    Args:
        digests: of the contents of N pictures.
        truth: int [N], labels.
        right: bool [N], whether the answers are.
    """
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    groups = tuple(tuple(rows) for rows in rows_of.values() if len(rows) > 1)
    each_once = float(np.mean([right[rows].mean() for rows in rows_of.values()]))
    return Repeats(groups, each_once, sum(len(set(truth[list(group)].tolist())) > 1 for group in groups))


@dataclass(frozen=True, eq=False)
class Seen:
    """Which of N pictures a run had in training, by content.

    Attributes:
        splits: bool [N] for "train", "valid" (the best checkpoint was chosen by them) and "unlabeled".
    """

    splits: dict[str, np.ndarray]

    @property
    def trained_on(self) -> np.ndarray:
        """Those that its weights were fitted to, bool [N]."""
        return self.splits["train"] | self.splits["unlabeled"]


def find_seen(run: Path, digests: Sequence[str]) -> Seen | None:
    """Which pictures a run had in training; None where it does not tell: of weights from elsewhere, or of TFDS.

    Raises:
        UserError: its list is damaged.
    """
    records = read_pictures(run)
    if not records or any(record.label == NO_LABEL and record.split != "unlabeled" for record in records):
        return None  # TFDS has one record for a whole split
    of_split = {
        split: {record.digest for record in records if record.split == split}
        for split in ("train", "valid", "unlabeled")
    }
    return Seen({split: np.array([digest in known for digest in digests]) for split, known in of_split.items()})
