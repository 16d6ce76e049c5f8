"""The pictures that a configuration names: joined folders, shares, classes, and mistakes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxfood import processes
from jaxfood.config.sections import DataConfig
from jaxfood.data.splits import Splits, load_splits
from jaxfood.errors import UserError

Food = Callable[..., Path]


def load(root: Path, num_classes: int = 3, seed: int = 0, **data: object) -> Splits:
    config = DataConfig(root=str(root), image_size=32, **data)  # type: ignore[arg-type]
    return load_splits(config, num_classes, seed=seed, progress=False)


def greys(splits: Splits) -> list[int]:
    return splits.train.images[:, 0, 0, 0].tolist()


def names(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


# Folders.


def test_the_homeworks_folders(food: Food) -> None:
    root = food("train/2_0.png", "train/0_0.png", "train/1_0.png", "valid/1_0.png")
    splits = load(root)
    assert names(root, splits.train.paths) == ["train/0_0.png", "train/1_0.png", "train/2_0.png"]
    assert splits.train.labels.tolist() == [0, 1, 2]
    assert greys(splits) == [2, 3, 1]
    assert splits.train.images.shape == (3, 32, 32, 3)
    assert splits.train.images.dtype == np.uint8
    assert names(root, splits.valid.paths) == ["valid/1_0.png"]
    assert splits.classes == ("0", "1", "2")


def test_several_folders_are_joined_by_plus_in_their_order(food: Food) -> None:
    root = food("train/0_0.png", "more/2_0.png", "more/1_0.png", "valid/1_0.png", "extra/0_0.png")
    splits = load(root, train="train+more", valid="valid+extra")
    assert names(root, splits.train.paths) == ["train/0_0.png", "more/1_0.png", "more/2_0.png"]
    assert splits.train.labels.tolist() == [0, 1, 2]
    assert greys(splits) == [1, 3, 2]
    assert splits.valid.labels.tolist() == [1, 0]


def test_a_folder_whose_name_has_a_plus_is_itself(food: Food) -> None:
    root = food("a/0_0.png", "b/1_0.png", "a+b/2_0.png", "valid/1_0.png")
    assert names(root, load(root, train="a+b").train.paths) == ["a+b/2_0.png"]


def test_a_list_of_pictures_is_a_split(food: Food) -> None:
    root = food("train/0_0.png", "train/1_0.png", "train/2_0.png", "valid/1_0.png")
    (root / "few.txt").write_text("train/2_0.png\ntrain/0_0.png\n", encoding="utf-8")
    splits = load(root, train="few.txt")
    assert splits.train.labels.tolist() == [2, 0]
    assert greys(splits) == [3, 1]


@pytest.mark.parametrize("train", ["train+", "+train", "train++valid", ""])
def test_an_empty_name_is_not_the_whole_root(train: str, food: Food) -> None:
    """Validation pictures among the training ones would go unnoticed."""
    root = food("train/0_0.png", "valid/1_0.png")
    with pytest.raises(UserError, match=r"data\.train"):
        load(root, train=train)


def test_a_missing_split_names_what_there_is(food: Food) -> None:
    root = food("training/0_0.png", "validation/1_0.png")
    with pytest.raises(UserError) as error:
        load(root)
    for word in ("data.train", "'train'", str(root / "train"), "does not exist", "training, validation"):
        assert word in str(error.value)
    assert str(error.value).endswith("; set --data.train training --data.valid validation")
    with pytest.raises(UserError, match=r"data\.valid = 'validation\+old': .*old does not exist"):
        load(root, train="training", valid="validation+old")


@pytest.mark.parametrize(
    ("names", "below", "mend"),
    [
        (("food/train/0_0.png", "food/valid/0_0.png"), "", "; another folder holds it: --data.root {root}/food"),
        (("a/b/c/training/0_0.png",), "", "; another folder holds it: --data.root {root}/a/b/c"),
        (("train/0_0.png", "valid/0_0.png"), "train", "; another folder holds it: --data.root {root}"),
        (("a/train/0_0.png", "b/train/0_0.png"), "", "; if these are the classes, set --data.train . --data.valid_fra"),
        (("cake/1.png", "soup/1.png"), "", "; if these are the classes, set --data.train . --data.valid_fraction 0.2"),
        (("cake/1.png",), "", "; name the folder that holds train/ and valid/"),
        (("Train/0_0.png",), "", ": did you mean Train?"),
        (("train/0_0.png", "train/1_1.png"), "", "; or hold out a share of the training pictures: --data.valid_frac"),
        (("train/0_0.png", "val/0_0.png"), "", "; set --data.valid val"),
    ],
)
def test_a_missing_split_says_what_to_set(food: Food, names: tuple[str, ...], below: str, mend: str) -> None:
    root = food(*names)
    with pytest.raises(UserError) as error:
        load(root / below)
    assert mend.format(root=root) in str(error.value)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root = .*nowhere: no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data\.root is not set: .*--config demo"):
        load_splits(DataConfig(), 3, seed=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.root = .*file: no such folder"):
        load(tmp_path / "file")


def test_an_empty_folder(food: Food) -> None:
    root = food("train/0_0.png")
    (root / "valid").mkdir()
    with pytest.raises(UserError, match=r"no pictures .*valid"):
        load(root)


# Shares.


@pytest.fixture
def uneven(food: Food) -> Path:
    """20, 10 and 1 pictures of three classes."""
    return food(*(f"train/{label}_{i}.png" for label, n in enumerate((20, 10, 1)) for i in range(n)), "valid/0_0.png")


def test_a_share_is_one_of_each_class(uneven: Path) -> None:
    splits = load(uneven, fraction=0.3)
    assert np.bincount(splits.train.labels).tolist() == [6, 3, 1]
    whole = load(uneven)
    rows = [whole.train.paths.index(path) for path in splits.train.paths]
    assert rows == sorted(rows)
    assert rows[:6] != list(range(6)), "a random share, not the first pictures"
    np.testing.assert_array_equal(splits.train.images, whole.train.images[rows])
    np.testing.assert_array_equal(splits.train.labels, whole.train.labels[rows])
    assert len(splits.valid) == len(whole.valid)


def test_a_share_is_a_function_of_the_seed(uneven: Path) -> None:
    shares = [load(uneven, fraction=0.5, seed=seed).train.paths for seed in (1, 2, 1)]
    assert shares[0] == shares[2] != shares[1]


def test_the_whole_is_every_picture(uneven: Path) -> None:
    assert len(load(uneven, fraction=1.0).train) == 31
    assert len(load(uneven, fraction=1e-9).train) == 3


# Classes.


def test_class_folders_are_numbered_by_the_sorted_names_of_train(food: Food) -> None:
    root = food("train/Soup/a.png", "train/Bread/b.png", "train/Egg/c.png", "valid/Soup/d.png")
    splits = load(root, 4)
    assert splits.classes == ("Bread", "Egg", "Soup", "3")
    assert splits.train.labels.tolist() == [0, 1, 2]
    assert splits.valid.labels.tolist() == [2]


def test_joined_class_folders_are_numbered_like_the_first(food: Food) -> None:
    root = food("train/Bread/a.png", "train/Egg/b.png", "train/Soup/c.png", "more/Soup/d.png", "valid/Egg/e.png")
    splits = load(root, train="train+more")
    assert splits.train.labels.tolist() == [0, 1, 2, 2]
    assert splits.valid.labels.tolist() == [1]


@pytest.mark.parametrize("where", ["valid", "more"])
def test_a_class_that_train_does_not_have(where: str, food: Food) -> None:
    root = food("train/Bread/a.png", "train/Egg/b.png", "valid/Egg/c.png", f"{where}/Tofu/d.png")
    with pytest.raises(UserError, match="no classes of train: Tofu"):
        load(root, train="train+more" if where == "more" else "train")


@pytest.mark.parametrize("where", ["valid", "more"])
def test_named_class_folders_beside_numbers_in_train_are_refused(where: str, food: Food) -> None:
    """Their sorted order says nothing about the numbers: Soup would silently become 0."""
    root = food("train/0_a.png", "train/1_b.png", "train/2_c.png", "valid/1_d.png", f"{where}/Soup/e.png")
    with pytest.raises(UserError, match="Soup"):
        load(root, train="train+more" if where == "more" else "train")


def test_numeric_class_folders_are_the_labels(food: Food) -> None:
    root = food("train/00/a.png", "train/02/b.png", "valid/2/c.png")
    splits = load(root)
    assert splits.train.labels.tolist() == [0, 2]
    assert splits.valid.labels.tolist() == [2]
    assert splits.classes == ("0", "1", "2")


def test_classes_txt_names_numbers(food: Food) -> None:
    root = food("train/0_0.png", "train/2_0.png", "valid/1_0.png")
    (root / "classes.txt").write_text("\ufeffBread\n\n  Dairy product \r\n", encoding="utf-8")
    assert load(root).classes == ("Bread", "Dairy product", "2")


def test_classes_txt_in_another_encoding_is_the_users_mistake(food: Food) -> None:
    root = food("train/0_0.png", "valid/1_0.png")
    (root / "classes.txt").write_bytes("Gemüse\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"classes\.txt"):
        load(root)


# Several processes.


def test_processes_that_share_a_cache_must_see_the_same_files(food: Food, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would take turns in its entries, each decoding again what the other has replaced."""
    root = food("train/0_0.png", "valid/1_0.png")
    said: list[str] = []

    def share(text: str) -> list[str]:
        said.append(text)
        return said

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "share_folder", lambda folder: True)
    monkeypatch.setattr(processes, "share", share)
    monkeypatch.setattr(processes, "first_then_all", lambda work, folder: work())
    load(root)
    load(root)
    os.utime(root / "valid/1_0.png", (1, 1))
    with pytest.raises(UserError, match=r"^the processes see other pictures, .* in .*valid: give them one data\.root"):
        load(root)


# Mistakes in pictures.


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_label_beyond_the_number_of_classes(split: str, food: Food) -> None:
    root = food("train/0_0.png", "valid/1_0.png", f"{split}/7_x.png")
    with pytest.raises(UserError, match=r"model\.num_classes = 8") as error:
        load(root)
    assert "7_x.png has 7" in str(error.value)
    assert load(root, 8).classes[7] == "7"


def test_more_class_folders_than_classes(food: Food) -> None:
    root = food(*(f"train/{name}/a.png" for name in ("Bread", "Egg", "Soup", "Tofu")), "valid/Egg/c.png")
    with pytest.raises(UserError, match=r"model\.num_classes = 4"):
        load(root)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_picture_without_a_label(split: str, food: Food) -> None:
    root = food("train/0_0.png", "valid/1_0.png", f"{split}/picture.png")
    with pytest.raises(UserError, match=r"1 of the 2 pictures in .* have no label \(picture\.png\)"):
        load(root)


def test_pictures_that_cannot_be_read(food: Food) -> None:
    root = food("train/0_0.png", "train/1_0.png", "valid/1_0.png")
    (root / "train" / "0_1.png").write_bytes(b"no picture")
    (root / "valid" / "0_1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0_1\.png.*data\.skip_corrupt = true"):
        load(root)
    splits = load(root, skip_corrupt=True)
    assert names(root, splits.train.paths) == ["train/0_0.png", "train/1_0.png"]
    assert splits.train.labels.tolist() == [0, 1]
    assert greys(splits) == [1, 2]
    assert names(root, splits.train.skipped) == ["train/0_1.png"]
    assert names(root, splits.valid.skipped) == ["valid/0_1.png"]
    joined = load(root, train="train+valid", skip_corrupt=True)
    assert names(root, joined.train.skipped) == ["train/0_1.png", "valid/0_1.png"]
    assert len(joined.train) == 3
