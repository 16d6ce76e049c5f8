"""The index of a picture folder: which pictures, in which order, with which labels, and what a mistake says."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxfood.data.decode import decode_picture
from jaxfood.data.index import PictureIndex, check_labels, index_files, index_pictures
from jaxfood.errors import UserError


def make_tree(root: Path, *names: str) -> Path:
    """Empty files: indexing opens no picture."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_and_labels(index: PictureIndex) -> list[tuple[str, int]]:
    return [(index.name(path), int(label)) for path, label in zip(index.paths, index.labels, strict=True)]


def message_of(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_flat_folder_is_what_the_notes_read(tmp_path):
    make_tree(tmp_path, "10_2.jpg", "1_10.jpg", "1_9.jpg", "0_0.jpg", "0001.jpg", "salad.jpg")
    index = index_pictures(tmp_path)
    notes_files = sorted([os.path.join(tmp_path, x) for x in os.listdir(tmp_path) if x.endswith(".jpg")])
    assert [str(path) for path in index.paths] == notes_files
    assert names_and_labels(index) == [
        ("0001.jpg", -1),
        ("0_0.jpg", 0),
        ("10_2.jpg", 10),
        ("1_10.jpg", 1),
        ("1_9.jpg", 1),
        ("salad.jpg", -1),
    ]
    assert index.root == tmp_path
    assert index.labels.dtype == np.int32
    assert index.classes == ()


def test_suffixes_in_any_case_and_nothing_hidden(tmp_path):
    kept = ("1_0.JPG", "1_1.Jpeg", "1_2.png", "1_3.webp")
    passed_over = ("._1_0.JPG", ".x/1_4.jpg", "__MACOSX/1_5.jpg", "1_6.txt", "1_7.jpg.part", "Thumbs.db")
    index = index_pictures(make_tree(tmp_path, *kept, *passed_over))
    assert names_and_labels(index) == [(name, 1) for name in kept]


def test_hidden_root_is_searched(tmp_path):
    assert len(index_pictures(make_tree(tmp_path / ".cache", "1_0.jpg"))) == 1


def test_numeric_folders_are_labels(tmp_path):
    index = index_pictures(make_tree(tmp_path, "00/a.jpg", "7/3_b.jpg", "10/c.jpg"))
    assert names_and_labels(index) == [("00/a.jpg", 0), ("10/c.jpg", 10), ("7/3_b.jpg", 7)]
    assert index.classes == ()


def test_named_folders_are_classes_in_sorted_order(tmp_path):
    index = index_pictures(make_tree(tmp_path, "Rice/0.jpg", "Bread/3_1.jpg", "Dairy product/2.jpg", "Bread/0.jpg"))
    assert index.classes == ("Bread", "Dairy product", "Rice")
    assert [label for _, label in names_and_labels(index)] == [0, 0, 1, 2]


def test_classes_of_train_number_other_folders(tmp_path):
    make_tree(tmp_path, "Rice/0.jpg")
    index = index_pictures(tmp_path, classes=("Bread", "Dairy product", "Rice"))
    assert index.labels.tolist() == [2]
    assert index.classes == ("Bread", "Dairy product", "Rice")


def test_folder_that_train_does_not_have_is_named(tmp_path):
    make_tree(tmp_path, "Rice/0.jpg", "Pizza/0.jpg")
    with pytest.raises(UserError) as error:
        index_pictures(tmp_path, classes=("Bread", "Rice"))
    assert "Pizza" in message_of(error)
    assert "Bread, Rice" in message_of(error)


def test_numeric_folders_stay_labels_beside_named_classes(tmp_path):
    make_tree(tmp_path, "0/a.jpg", "1/a.jpg")
    assert index_pictures(tmp_path, classes=("Bread", "Rice")).labels.tolist() == [0, 1]
    assert index_pictures(tmp_path, classes=("1", "0")).labels.tolist() == [1, 0]


NUMBERS = tuple(map(str, range(11)))  # what a run that was trained on numbers calls its classes


@pytest.mark.parametrize("folders", [("00", "02", "10"), ("0", "2", "10"), ("000", "2", "010")])
def test_numeric_folders_are_a_runs_numbers_however_they_are_padded(tmp_path, folders):
    root = make_tree(tmp_path, *(f"{folder}/7_x.jpg" for folder in folders))
    index = index_pictures(root, classes=NUMBERS)
    assert sorted(index.labels) == [0, 2, 10]
    assert index.classes == NUMBERS
    paths = [root / folder / "7_x.jpg" for folder in folders]
    assert index_files(paths, classes=NUMBERS).labels.tolist() == [0, 2, 10]
    (root / "list.txt").write_text("".join(f"{folder}/7_x.jpg\n" for folder in folders))
    assert index_pictures(root / "list.txt", classes=NUMBERS).labels.tolist() == [0, 2, 10]


def test_numeric_folders_are_labels_where_only_the_first_classes_have_names(tmp_path):
    make_tree(tmp_path, "0/a.jpg", "1/a.jpg", "2/a.jpg")
    assert index_pictures(tmp_path, classes=("Bread", "Dairy product", "2")).labels.tolist() == [0, 1, 2]


def test_a_class_that_is_called_by_another_number_stays_a_name(tmp_path):
    make_tree(tmp_path, "7/a.jpg", "Bread/a.jpg")
    classes = index_pictures(tmp_path).classes
    assert classes == ("7", "Bread")
    assert index_pictures(tmp_path / "7", classes=classes).labels.tolist() == [-1]
    (tmp_path / "Bread").rename(tmp_path / "1")
    with pytest.raises(UserError, match=r"no classes of train: 1;"):
        index_pictures(tmp_path, classes=classes)


def test_homework_tree_of_2022(tmp_path):
    make_tree(tmp_path, "labeled/00/x.jpg", "labeled/01/y.jpg", "Unlabeled/00/z.jpg")
    index = index_pictures(tmp_path)
    assert dict(names_and_labels(index)) == {"labeled/00/x.jpg": 0, "labeled/01/y.jpg": 1, "Unlabeled/00/z.jpg": -1}


def test_unlabelled_folder_named_itself_has_no_labels(tmp_path):
    index = index_pictures(make_tree(tmp_path / "unlabelled", "00/x.jpg", "1_0.jpg"))
    assert index.labels.tolist() == [-1, -1]


def test_labelled_folder_is_no_class(tmp_path):
    index = index_pictures(make_tree(tmp_path, "labeled/3_0.jpg", "unlabeled/0.jpg"))
    assert dict(names_and_labels(index)) == {"labeled/3_0.jpg": 3, "unlabeled/0.jpg": -1}
    assert index.classes == ()


def test_predict_does_not_interpret_folders(tmp_path):
    make_tree(tmp_path, "Pizza/1_0.jpg", "1_0.jpg")
    assert index_pictures(tmp_path, classes=("Bread",), labelled=False).labels.tolist() == [-1, -1]


def test_time_stamps_are_not_labels(tmp_path):
    index = index_pictures(make_tree(tmp_path, "1693526400123_food.jpg"))
    assert index.labels.tolist() == [-1]


def test_single_picture(tmp_path):
    make_tree(tmp_path, "4_0.JPG")
    index = index_pictures(tmp_path / "4_0.JPG")
    assert index.paths == (tmp_path / "4_0.JPG",) == (index.root,)
    assert index.labels.tolist() == [4]


def test_list_keeps_its_order(tmp_path, monkeypatch):
    make_tree(tmp_path / "food", "2_0.jpg", "0_0.jpg", "more/1_0.jpg")
    (tmp_path / "food/list.txt").write_text("2_0.jpg\n\n  more/1_0.jpg \n0_0.jpg\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    index = index_pictures("food/list.txt")
    assert names_and_labels(PictureIndex(tmp_path / "food", index.paths, index.labels)) == [
        ("2_0.jpg", 2),
        ("more/1_0.jpg", 1),
        ("0_0.jpg", 0),
    ]
    assert index.root == tmp_path / "food/list.txt"


def test_explicit_files_take_names_then_folders(tmp_path):
    make_tree(tmp_path, "test/0001.jpg", "3/0001.jpg", "3/5_1.jpg", "Rice/9_1.jpg", "unlabeled/9_1.jpg")
    files = [
        tmp_path / name for name in ("test/0001.jpg", "3/0001.jpg", "3/5_1.jpg", "Rice/9_1.jpg", "unlabeled/9_1.jpg")
    ]
    assert index_files(files).labels.tolist() == [-1, 3, 5, 9, -1]
    assert index_files(files, classes=("Bread", "Rice")).labels.tolist() == [-1, 3, 5, 1, -1]
    assert index_files(files, labelled=False).labels.tolist() == [-1] * 5
    assert index_files(files).paths == tuple(files)


def test_list_with_missing_files_names_all(tmp_path):
    make_tree(tmp_path, "1_0.jpg")
    (tmp_path / "list.txt").write_text("1_0.jpg\nlost.jpg\nsub/gone.jpg\n")
    with pytest.raises(UserError) as error:
        index_pictures(tmp_path / "list.txt")
    assert "lost.jpg" in message_of(error)
    assert "gone.jpg" in message_of(error)
    assert "1_0.jpg" not in message_of(error)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("nowhere", "no such folder"),
        ("empty", ".webp"),
        ("notes.md", "neither"),
        ("list.txt", "empty"),
        ("utf16.txt", "UTF-8"),
    ],
)
def test_mistakes_are_named(tmp_path, location, expected):
    make_tree(tmp_path, "empty/readme.txt", "notes.md", "list.txt")
    (tmp_path / "utf16.txt").write_text("1_0.jpg", encoding="utf-16")
    with pytest.raises(UserError) as error:
        index_pictures(tmp_path / location)
    assert str(tmp_path / location) in message_of(error)
    assert expected in message_of(error)


def test_no_files_at_all():
    with pytest.raises(UserError):
        index_files([])


def test_folder_named_like_a_picture_is_a_folder(tmp_path):
    assert names_and_labels(index_pictures(make_tree(tmp_path, "1_0.jpg", "x.jpg/readme.txt"))) == [("1_0.jpg", 1)]


def test_link_to_a_folder_above_ends(tmp_path):
    make_tree(tmp_path, "train/1_0.jpg", "more/2_0.jpg")
    (tmp_path / "train/back").symlink_to(tmp_path)
    (tmp_path / "train/here").symlink_to(tmp_path / "train")
    (tmp_path / "train/5").symlink_to(tmp_path / "more")
    assert names_and_labels(index_pictures(tmp_path / "train")) == [("1_0.jpg", 1), ("5/2_0.jpg", 5)]


def test_links_in_a_circle_end(tmp_path):
    make_tree(tmp_path, "a/0_0.jpg", "b/1_0.jpg")
    (tmp_path / "a/link").symlink_to("../b")
    (tmp_path / "b/link").symlink_to("../a")
    index = index_pictures(tmp_path, labelled=False)
    assert [index.name(path) for path in index.paths] == ["a/0_0.jpg", "a/link/1_0.jpg", "b/1_0.jpg", "b/link/0_0.jpg"]


def test_a_folder_that_two_links_lead_to_counts_in_both_places(tmp_path):
    make_tree(tmp_path, "more/a.jpg")
    (tmp_path / "train").mkdir()
    for label in "35":
        (tmp_path / "train" / label).symlink_to(tmp_path / "more")
    (tmp_path / "train/self.jpg").symlink_to(tmp_path / "train/self.jpg")
    with pytest.raises(UserError, match=r"cannot read .*self\.jpg"):
        decode_picture(tmp_path / "train/self.jpg", 8)
    (tmp_path / "train/self.jpg").unlink()
    assert names_and_labels(index_pictures(tmp_path / "train")) == [("3/a.jpg", 3), ("5/a.jpg", 5)]


def test_subset_and_concatenation(tmp_path):
    train = index_pictures(make_tree(tmp_path / "train", "Bread/a.jpg", "Rice/a.jpg", "Rice/b.jpg"))
    extra = index_pictures(make_tree(tmp_path / "extra", "x.jpg"))
    picked = train.subset([2, 0])
    assert names_and_labels(picked) == [("Rice/b.jpg", 1), ("Bread/a.jpg", 0)]
    assert names_and_labels(train.subset(train.labels == 0)) == names_and_labels(train.subset(slice(1)))
    assert len(train.subset([])) == 0
    joined = extra + picked
    assert names_and_labels(joined) == [("extra/x.jpg", -1), ("train/Rice/b.jpg", 1), ("train/Bread/a.jpg", 0)]
    assert joined.classes == train.classes
    assert joined.root == tmp_path
    assert joined.labels.dtype == np.int32


def test_concatenation_of_different_classes_fails(tmp_path):
    one = index_pictures(make_tree(tmp_path / "one", "Bread/a.jpg"))
    other = index_pictures(make_tree(tmp_path / "other", "Pizza/a.jpg"))
    numbers = index_pictures(make_tree(tmp_path / "numbers", "0_0.jpg"))
    for second in (other, numbers):
        with pytest.raises(UserError) as error:
            one + second
        assert "Bread" in message_of(error)


def test_check_labels(tmp_path):
    index = index_pictures(make_tree(tmp_path, *(f"{label}_0.jpg" for label in range(11))))
    check_labels(index, 11)
    with pytest.raises(UserError) as error:
        check_labels(index, 10)
    message = message_of(error)
    assert "10_0.jpg" in message
    assert "model.num_classes = 10" in message
    assert "0..9" in message
    assert "= 11" in message


def test_check_labels_names_unlabelled_pictures(tmp_path):
    index = index_pictures(make_tree(tmp_path, "0_0.jpg", *(f"cake{number}.jpg" for number in range(9))))
    with pytest.raises(UserError) as error:
        check_labels(index, 11)
    assert "9 of the 10" in message_of(error)
    assert "cake0.jpg" in message_of(error)


def test_check_labels_points_from_unlabeled_to_labeled(tmp_path):
    index = index_pictures(make_tree(tmp_path, "labeled/00/x.jpg", "unlabeled/00/x.jpg"))
    with pytest.raises(UserError) as error:
        check_labels(index, 11)
    assert message_of(error).endswith(str(tmp_path / "labeled"))


def test_ten_thousand_files_are_indexed_without_asking_for_each(tmp_path, monkeypatch):
    for number in range(10_000):
        os.close(os.open(tmp_path / f"{number % 11}_{number}.jpg", os.O_CREAT))
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *arguments, **names: asked.append(arguments) or stat(*arguments, **names))
    assert len(index_pictures(tmp_path)) == 10_000
    assert len(asked) < 100
