"""Which training pictures are validated on: shares and folds by hand, their counts, and what cannot be."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxfood.config.sections import DataConfig
from jaxfood.data.shares import fold_numbers, held_out
from jaxfood.data.splits import Splits, load_splits
from jaxfood.errors import UserError

Food = Callable[..., Path]


def labels_of(*counts: int) -> np.ndarray:
    """So many pictures of each class, mixed."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def load(root: Path, *, seed: int = 0, folds: int = 0, fold: int = 0, **data: object) -> Splits:
    config = DataConfig(root=str(root), image_size=32, **data)  # type: ignore[arg-type]
    return load_splits(config, seed=seed, folds=folds, fold=fold, progress=False)


def names(splits: Splits, split: str) -> list[str]:
    return [record.name for record in splits.records if record.split == split]


@pytest.fixture
def food12(food: Food) -> Path:
    """Classes of 7, 4 and 1 pictures, and a validation folder."""
    pictures = [f"train/{label}_{number}.png" for label, count in enumerate((7, 4, 1)) for number in range(count)]
    return food(*pictures, "valid/0_a.png", "valid/1_b.png")


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ((10, 10, 10), 0.2, [2, 2, 2]),
        ((100, 50, 10), 0.1, [10, 5, 1]),
        ((100, 100), 0.29, [29, 29]),  # 0.29 * 100 is a little less than 29
        ((4, 4, 4, 4), 0.125, [1, 1, 0, 0]),  # half a picture of each: two in all
        ((7, 3), 0.25, [2, 0]),  # 1.75 and 0.75: two in all, to the equal remainders in turn
        ((7, 1, 1), 0.5, [4, 0, 0]),  # 4.5 in all, and single pictures stay
        ((3, 2), 0.99, [2, 1]),
    ],
)
def test_a_share_is_as_near_as_whole_pictures_come(
    counts: tuple[int, ...], fraction: float, expected: list[int]
) -> None:
    labels = labels_of(*counts)
    positions = held_out(labels, fraction, seed=1)
    assert np.bincount(labels[positions], minlength=len(counts)).tolist() == expected
    assert positions.tolist() == sorted(set(positions.tolist()))


def test_a_share_is_drawn_by_the_seed() -> None:
    labels = labels_of(20, 20)
    drawn = [held_out(labels, 0.3, seed).tolist() for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert drawn[0][:6] != [0, 1, 2, 3, 4, 5]
    assert set(drawn[0]) < set(held_out(labels, 0.5, 1).tolist()), "a larger share has the smaller one"


@pytest.mark.parametrize("counts", [(10, 10), (7, 5, 3), (2, 2, 2), (1, 9, 4)])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_alike(counts: tuple[int, ...], folds: int) -> None:
    """Each class differs by one picture at most, and so do the folds in all; every picture is in one of them."""
    labels = labels_of(*counts)
    numbers = fold_numbers(labels, folds, seed=3)
    for label, count in enumerate(counts):
        of_class = np.bincount(numbers[labels == label], minlength=folds + 1)
        if count == 1:
            assert of_class[0] == 1, "stays in training everywhere"
            continue
        assert of_class[0] == 0
        assert np.ptp(of_class[1:]) <= 1
    assert np.ptp(np.bincount(numbers, minlength=folds + 1)[1:]) <= 1
    np.testing.assert_array_equal(numbers, fold_numbers(labels, folds, seed=3))
    assert (numbers != fold_numbers(labels, folds, seed=4)).any()


def test_more_folds_than_pictures_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"train\.folds = 7: there are 6 training pictures, of classes .*set train\.folds to 6"
    ):
        fold_numbers(labels_of(4, 2, 1), 7, seed=0)
    with pytest.raises(UserError, match=r"train\.folds = 2: no class has two training pictures"):
        fold_numbers(labels_of(1, 1, 1), 2, seed=0)


def test_a_share_of_the_training_pictures_is_validated_on(food12: Path) -> None:
    splits = load(food12, valid_fraction=0.3)
    every = names(load(food12), "train")
    train, valid = names(splits, "train"), names(splits, "valid")
    assert sorted(train + valid) == every
    assert [sum(name.startswith(f"{label}_") for name in valid) for label in range(3)] == [2, 2, 0]
    assert len(splits.valid) == 4
    greys = splits.valid.images[:, 0, 0, 0].tolist()
    assert greys == [1 + every.index(name) for name in valid], "pictures, labels and records are of one order"
    assert splits.valid.labels.tolist() == [int(name[0]) for name in valid]
    assert (
        "data.valid_fraction = 0.3: 4 of the 12 training pictures are validated on; data.valid is not read"
        in splits.remarks
    )
    assert "trained on and not validated, as there is one picture of it: class 2" in splits.remarks
    assert "no validation picture is of class 1" in load(food12, valid_fraction=0.1).remarks


def test_a_validation_folder_that_is_not_read_is_named(food12: Path) -> None:
    remarks = load(food12, valid_fraction=0.3, valid="nowhere").remarks
    assert any(line.endswith("data.valid (nowhere) is not read") for line in remarks)


@pytest.mark.parametrize("fraction", [0.01, 0.04])
def test_a_share_of_no_picture_is_refused(fraction: float, food12: Path) -> None:
    with pytest.raises(UserError, match=r"data\.valid_fraction = 0\.0\d of 12 training pictures .* set it higher"):
        load(food12, valid_fraction=fraction)


def test_the_share_moves_with_the_pictures(food12: Path, tmp_path: Path) -> None:
    """A path is no identity: a copy elsewhere has the same records, so that a run goes on with it."""
    shutil.copytree(food12, tmp_path / "moved" / "food")
    for settings in ({"valid_fraction": 0.3}, {"folds": 3, "fold": 2}):
        ours, theirs = (load(root, **settings).records for root in (food12, tmp_path / "moved" / "food"))  # type: ignore[arg-type]
        assert ours == theirs


def test_the_share_is_the_same_whatever_else_is_set(food12: Path) -> None:
    """It is taken first: fewer training pictures, folds or reading from disk leave the validation pictures alone."""
    valid = names(load(food12, valid_fraction=0.3), "valid")
    fewer = load(food12, valid_fraction=0.3, fraction=0.5)
    assert names(fewer, "valid") == valid
    assert len(names(fewer, "train")) < 8
    assert names(load(food12, valid_fraction=0.3, folds=2), "valid") == valid
    streamed = load(food12, valid_fraction=0.3, resident=False)
    assert names(streamed, "valid") == valid
    images, labels = streamed.valid.read(np.arange(4))  # type: ignore[union-attr]
    whole = load(food12, valid_fraction=0.3).valid
    np.testing.assert_array_equal(images, whole.images)  # type: ignore[union-attr]
    np.testing.assert_array_equal(labels, whole.labels)  # type: ignore[union-attr]


def test_each_fold_is_validated_on_once(food12: Path) -> None:
    every = names(load(food12), "train")
    folds = [load(food12, folds=3, fold=fold) for fold in (1, 2, 3)]
    for splits in folds:
        assert sorted(names(splits, "train") + names(splits, "valid")) == every
        assert "2_0.png" in names(splits, "train")
    validated = [name for splits in folds for name in names(splits, "valid")]
    assert sorted([*validated, "2_0.png"]) == every
    assert "fold 2 of 3: trained on 8 pictures, validated on 4" in folds[1].remarks
    few = load(food12, folds=5, fold=1).remarks
    assert "fewer pictures than the 5 folds, so that some validate none of it: class 1 (4)" in few


def test_folds_leave_out_what_is_held_out(food12: Path) -> None:
    held = names(load(food12, valid_fraction=0.3), "valid")
    for fold in (1, 2):
        splits = load(food12, valid_fraction=0.3, folds=2, fold=fold)
        assert not set(held) & set(names(splits, "train") + names(splits, "valid"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"valid_fraction": 0.2}, r"data\.valid_fraction = 0\.2"), ({"folds": 5}, r"train\.folds = 5")],
)
def test_what_tfds_does_not_tell_is_refused_by_name(settings: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=rf"^{named}: tfds:food11 does not tell .* data\.train = train\[20%:\]"):
        load(Path("/nowhere"), source="tfds:food11", **settings)  # type: ignore[arg-type]
