"""How many pictures each year's homework has, as published, and which year's a data folder is."""

from collections.abc import Mapping
from typing import NamedTuple

SPLITS = ("train", "unlabeled", "valid", "test")  # the folders that are made, in this order


class Year(NamedTuple):
    """A year's data set: what it is called, and how many pictures each of its splits has."""

    name: str
    counts: Mapping[str, int]


# Counts as the homework's slides and notebooks have them: https://speech.ee.ntu.edu.tw/~hylee/ml
_WHOLE = {"train": 9866, "valid": 3430, "test": 3347}
YEARS = (
    Year(
        "the 2021 homework (Kaggle: ml2021spring-hw3)", {"train": 3080, "unlabeled": 6786, "valid": 660, "test": 3347}
    ),
    Year("the 2022 homework (Kaggle: ml2022spring-hw3b); 2020's and Food-11 itself have as many", _WHOLE),
    Year("the 2023 homework (Kaggle: ml2023spring-hw3)", {"train": 10000, "valid": 3643, "test": 3000}),
)

_NEAR = 0.1  # a split that differs from the published count by this share at most is taken for a year's

WHAT_TO_FETCH = """\
Nothing is downloaded here. Fetch one of these by hand, and name it with --from:
  Kaggle competition ml2023spring-hw3    10,000 / 3,643 / 3,000 pictures (train / valid / test)
  Kaggle competition ml2022spring-hw3b    9,866 / 3,430 / 3,347, 1.2 GB
  Kaggle competition ml2021spring-hw3     3,080 and 6,786 without labels / 660 / 3,347
  Kaggle data set trolukovich/food11-image-dataset    9,866 / 3,430 / 3,347: Food-11 itself
  Hugging Face data set cv-talks/food-11  a copy as .parquet files
(A competition wants an account that has joined it: its page's Data tab, or kaggle competitions download -c NAME.)
then: python -m jaxfood.food11 --from FILE_OR_FOLDER --out hw3_data
Without any of them: python -m jaxfood.train draws its own pictures."""


def counted(counts: Mapping[str, int]) -> str:
    """Counts in words: "train 9,866, valid 3,430"."""
    return ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts.get(split))


def compare(counts: Mapping[str, int]) -> str:
    """Which year's pictures these are by their counts, or in what they differ from the year that is nearest."""
    year = min(YEARS, key=lambda year: _distance(counts, year))
    differences = [
        f"{split} has {counts.get(split, 0):,} of {published:,}" if counts.get(split) else f"{split} is missing"
        for split in SPLITS
        if counts.get(split, 0) != (published := year.counts.get(split, 0)) and published
    ]
    differences += [
        f"{split} is not of that year" for split in SPLITS if counts.get(split) and split not in year.counts
    ]
    if not differences:
        return f"exactly as many as {year.name}"
    held = [split for split in SPLITS if counts.get(split)]
    if 2 * sum(_is_near(counts[split], year.counts.get(split, 0)) for split in held) <= len(held):
        return "no year's homework has such counts: another data set, or a part of one"
    return (
        f"nearest to {year.name}, but {', '.join(differences)}: fetch it again if it should be whole, or train on it "
        "as it is"
    )


def _distance(counts: Mapping[str, int], year: Year) -> float:
    """Over the splits, what a count differs by as a share of what is published."""
    return sum(
        min(1.0, abs(counts.get(split, 0) - year.counts.get(split, 0)) / max(year.counts.get(split, 0), 1))
        for split in SPLITS
    )


def _is_near(count: int, published: int) -> bool:
    return abs(count - published) <= _NEAR * published
