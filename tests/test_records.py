"""Which pictures a run is of: what a start says about them, and in what two sets differ."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxfood.config.sections import DataConfig
from jaxfood.data.records import PictureRecord, class_table, differences
from jaxfood.data.splits import Splits, load_splits
from jaxfood.errors import UserError

Food = Callable[..., Path]


def load(root: Path, num_classes: int = 0, **data: object) -> Splits:
    config = DataConfig(root=str(root), image_size=32, **data)  # type: ignore[arg-type]
    return load_splits(config, num_classes, seed=0, progress=False)


def test_the_number_of_classes_is_that_of_the_training_pictures(food: Food) -> None:
    """Not eleven because the homework has eleven."""
    root = food("train/Bread/a.png", "train/Egg/b.png", "train/Soup/c.png", "valid/Egg/d.png")
    assert load(root).classes == ("Bread", "Egg", "Soup")
    assert load(root, 11).classes == ("Bread", "Egg", "Soup", *map(str, range(3, 11)))
    flat = food("flat/0_0.png", "more/4_0.png", "some/1_0.png")
    assert load(flat, train="flat+more", valid="some").classes == ("0", "1", "2", "3", "4")


def test_two_folders_may_have_pictures_of_one_name(food: Food) -> None:
    splits = load(food("train/0_0.png", "more/0_0.png", "more/1_0.png", "valid/0_0.png"), train="train+more")
    assert [record.name for record in splits.records] == ["train/0_0.png", "more/0_0.png", "more/1_0.png", "0_0.png"]
    assert splits.remarks == ()


def test_one_class_is_none(food: Food) -> None:
    with pytest.raises(UserError, match="are all of one class: a classifier needs two"):
        load(food("train/0_a.png", "train/0_b.png", "valid/0_c.png"))


def test_a_time_stamp_is_no_hundred_million_classes(food: Food) -> None:
    with pytest.raises(UserError, match=r"labels beyond .*100000.*20210304_1\.png has 20210304"):
        load(food("train/20210304_1.png", "train/0_b.png", "valid/0_c.png"))


def test_the_table_of_classes(food: Food) -> None:
    splits = load(food("train/Bread/a.png", "train/Bread/c.png", "train/Egg/b.png", "valid/Egg/d.png"))
    assert class_table(splits.records, splits.classes) == [
        "class       train   valid",
        " 0 Bread        2       0",
        " 1 Egg          1       1",
    ]
    assert splits.remarks == ()
    assert class_table(splits.records, [str(label) for label in range(101)])[-1] == "and 71 more classes"


def test_what_is_passed_over_or_guessed_is_said(food: Food) -> None:
    root = food("train/0_bread/a.png", "train/10_veg/b.png", "train/2_egg/c.png", "valid/2_egg/d.png", "train/x.png")
    (root / "train/2_egg/e.heic").touch()
    (root / "valid/2_egg/broken.png").touch()
    splits = load(root, skip_corrupt=True)
    passed_over, left_out, order = splits.remarks
    assert passed_over == f"passed over in {root}/train: 1 .heic, 1 loose pictures beside the class folders"
    assert left_out.startswith("left out 1 validation pictures that cannot be read: 2_egg/broken.png (")
    assert order.startswith("classes are numbered by their sorted names, as ImageFolder does: 1 is 10_veg; with")
    assert order.endswith("data.class_order = 'natural' it would be 2_egg")
    assert load(root, skip_corrupt=True, class_order="natural").classes == ("0_bread", "2_egg", "10_veg")


def test_missing_numbers_and_numbers_that_are_names_are_said(food: Food) -> None:
    (remark,) = load(food("train/0_0.png", "train/2_0.png", "valid/0_0.png")).remarks
    assert remark == "no training picture is of class 1 (1)"
    (remark,) = load(
        food("named/1001/a.png", "named/1002/b.png", "some/1002/c.png"), train="named", valid="some"
    ).remarks
    assert remark.startswith("the folders 1001, 1002 are taken for names: numbers are labels where they run from 0")


def test_what_stands_twice_is_said(food: Food) -> None:
    root = food("train/0_0.png", "train/1_0.png", "valid/0_1.png")
    shutil.copy(root / "train/0_0.png", root / "valid/0_7.png")
    shutil.copy(root / "train/1_0.png", root / "train/0_9.png")
    shutil.copy(root / "train/0_0.png", root / "train/0_8.png")  # in one split and under one label: no harm
    both, labels = load(root).remarks
    assert both == "1 pictures stand in train and in valid, by the same bytes: train/0_0.png = valid/0_7.png"
    assert labels == "1 pictures stand under two labels, by the same bytes: train/0_9.png = train/1_0.png"


def test_a_picture_listed_twice_is_said(food: Food) -> None:
    root = food("train/0_0.png", "train/1_0.png", "valid/0_1.png")
    (root / "mine.txt").write_text("train/0_0.png\ntrain/1_0.png\ntrain/0_0.png\n")
    (remark,) = load(root, train="mine.txt").remarks
    assert remark.startswith("1 pictures are listed more than once, and count as often: train/")


def test_records_are_of_content_not_of_place(food: Food, tmp_path: Path) -> None:
    root = food("train/0_0.png", "train/1_0.png", "valid/0_1.png")
    before = load(root).records
    shutil.copytree(root, tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere/train/0_0.png", (1, 1))
    assert load(tmp_path / "elsewhere").records == before
    assert load(root, resident=False).records == before
    assert [(record.split, record.name, record.label) for record in before] == [
        ("train", "0_0.png", 0),
        ("train", "1_0.png", 1),
        ("valid", "0_1.png", 0),
    ]


def test_differences_are_named() -> None:
    before = tuple(PictureRecord("train", f"{name}.jpg", 0, name) for name in "abcd")
    before += (PictureRecord("valid", "v.jpg", 1, "v"),)
    assert differences(before, before) == []
    assert differences(before, before[1:]) == ["train has lost 1 (a.jpg)"]
    assert differences(before[1:], before) == ["train has gained 1 (a.jpg)"]
    assert differences(before, (before[1], before[0], *before[2:])) == ["train has another order of its pictures"]
    other = (
        before[0]._replace(digest="x"),
        before[1]._replace(label=2),
        *before[2:4],
        before[4]._replace(name="w.jpg"),
    )
    assert differences(before, other) == [
        "train has other content in 1 (a.jpg)",
        "train has other labels for 1 (b.jpg)",
        "valid has lost 1 (v.jpg)",
        "valid has gained 1 (w.jpg)",
    ]
