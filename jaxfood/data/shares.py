"""Which of the training pictures are trained on and which are validated on, where a share of them is asked for.

All shares are stratified and depend on the seed and on the order of the labels alone, so that every process, and a run
that goes on, finds the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxfood.config.sections import DataConfig
from jaxfood.data.index import Positions
from jaxfood.errors import UserError, first_few

_VALIDATION, _FOLDS = 1, 2  # random streams of their own: what one setting draws does not depend on another


@dataclass(frozen=True, eq=False)
class Selection:
    """Positions among all the training pictures, ascending.

    Attributes:
        train: to be trained on.
        valid: to be validated on; None where `data.valid` is.
        remarks: what there is to say of it, a line each.
    """

    train: Positions
    valid: np.ndarray | None = None
    remarks: tuple[str, ...] = ()


def select(
    labels: np.ndarray, data: DataConfig, classes: Sequence[str], *, seed: int, folds: int = 0, fold: int = 0
) -> Selection:
    """Take `data.valid_fraction`, of what is left `data.fraction`, and of that one of several folds.

    Args:
        labels: int [N], of all training pictures.
        data: what is asked for.
        classes: their names in label order, for messages.
        seed: of the draws.
        folds: how many folds are to be made; 0: none.
        fold: the one that is validated on, from 1 on; 0: none.

    Raises:
        UserError: no picture would be left to validate on.
    """
    chosen, valid, remarks = np.arange(len(labels)), None, list[str]()
    if data.valid_fraction:
        valid = held_out(labels, data.valid_fraction, seed)
        chosen = np.setdiff1d(chosen, valid)
        unread = f" ({data.valid})" * (data.valid != DataConfig.valid)
        remarks.append(
            f"data.valid_fraction = {data.valid_fraction:g}: {len(valid)} of the {len(labels)} training pictures are "
            f"validated on; data.valid{unread} is not read"
        )
        remarks += _single(labels, classes)
    if data.fraction < 1:
        chosen = chosen[share_of_each_class(labels[chosen], data.fraction, seed)]
    if folds:
        numbers = fold_numbers(labels[chosen], folds, seed)
        remarks += _single(labels[chosen], classes)
        remarks += _smaller(labels[chosen], folds, classes)
        if fold:
            valid, chosen = chosen[numbers == fold], chosen[numbers != fold]
            remarks.append(f"fold {fold} of {folds}: trained on {len(chosen)} pictures, validated on {len(valid)}")
    if valid is not None:
        remarks += _without(labels[valid], labels[chosen], classes)
    everything = len(chosen) == len(labels)  # as a slice, which copies nothing
    return Selection(slice(None) if everything else chosen, valid, tuple(dict.fromkeys(remarks)))


def share_of_each_class(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a random share of each class (at least one picture of each), in their old order."""
    rng = np.random.default_rng(seed)
    chosen = []
    for positions in _of_each_class(labels):
        chosen.append(rng.permutation(positions)[: max(1, round(fraction * len(positions)))])
    return np.sort(np.concatenate(chosen))


def held_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a random share of all pictures, of each class as near to it as whole pictures come.

    Each class keeps one picture at least to be trained on.

    Raises:
        UserError: the share is no whole picture.
    """
    counts = np.unique(labels, return_counts=True)[1]
    exact = fraction * counts
    taken = np.minimum(exact.astype(int), counts - 1)
    left = round(fraction * len(labels)) - taken.sum()
    # What rounding down left goes to the classes that lost most by it (method of largest remainders).
    for row in np.argsort(taken - exact, kind="stable"):
        if left > 0 and taken[row] < counts[row] - 1:
            taken[row] += 1
            left -= 1
    if not taken.any():
        raise UserError(
            f"data.valid_fraction = {fraction:g} of {len(labels)} training pictures in {len(counts)} classes leaves "
            "none to validate on, as each class keeps one to train on: set it higher, or name a data.valid"
        )
    rng = np.random.default_rng([seed, _VALIDATION])
    return np.sort(np.concatenate([positions[:n] for positions, n in zip(_shuffled(labels, rng), taken, strict=True)]))


def fold_numbers(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each picture, int [N] from 1 on: pictures of a class differ by one at most between folds, as do all.

    A class of one picture is in none (0): what is validated on it would know nothing of the class.

    Raises:
        UserError: there are fewer pictures than folds.
    """
    numbers = np.zeros(len(labels), int)
    rng, dealt = np.random.default_rng([seed, _FOLDS]), 0
    for positions in _shuffled(labels, rng):
        if len(positions) > 1:
            numbers[positions] = (dealt + np.arange(len(positions))) % folds + 1
            dealt += len(positions)
    if dealt < folds:
        raise UserError(
            f"train.folds = {folds}: there are {dealt} training pictures, of classes that have more than one, and each "
            f"fold takes one at least; set train.folds to {dealt} or less"
            if dealt >= 2
            else f"train.folds = {folds}: no class has two training pictures, of which one could be validated on"
        )
    return numbers


def _shuffled(labels: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The positions of each class, in label order, at random."""
    return map(rng.permutation, _of_each_class(labels))


def _of_each_class(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of each class, ascending, in label order; by one sort, not by a search for every class."""
    counts = np.unique(labels, return_counts=True)[1]
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _single(labels: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    if names := [classes[label] for label, count in _counts(labels) if count == 1]:
        yield f"trained on and not validated, as there is one picture of it: {_classes(names)}"


def _smaller(labels: np.ndarray, folds: int, classes: Sequence[str]) -> Iterator[str]:
    if few := [f"{classes[label]} ({count})" for label, count in _counts(labels) if 1 < count < folds]:
        yield f"fewer pictures than the {folds} folds, so that some validate none of it: {_classes(few)}"


def _without(validated: np.ndarray, trained: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    there = set(validated.tolist())
    if names := [classes[label] for label, count in _counts(trained) if count > 1 and label not in there]:
        yield f"no validation picture is of {_classes(names)}"


def _counts(labels: np.ndarray) -> list[tuple[int, int]]:
    """Each label that occurs, and how often."""
    return list(zip(*(array.tolist() for array in np.unique(labels, return_counts=True)), strict=True))


def _classes(names: Sequence[str]) -> str:
    return f"class {first_few(names)}"
