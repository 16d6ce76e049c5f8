"""The index of a picture folder: which pictures, in which order, with which labels, and what a mistake says."""

import os
from pathlib import Path

import numpy as np
import pytest

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
    root = make_tree(tmp_path, "00/a.jpg", "7/3_b.jpg", "10/c.jpg")
    index = index_pictures(root, num_classes=11)
    assert names_and_labels(index) == [("00/a.jpg", 0), ("10/c.jpg", 10), ("7/3_b.jpg", 7)]
    assert index.classes == ()
    index = index_pictures(make_tree(tmp_path / "all", "00/a.jpg", "02/3_b.jpg", "1/c.jpg"))
    assert names_and_labels(index) == [("00/a.jpg", 0), ("02/3_b.jpg", 2), ("1/c.jpg", 1)]
    assert index.classes == ()


@pytest.mark.parametrize("num_classes", [0, 3])
def test_numbers_that_leave_gaps_are_names(tmp_path, num_classes):
    """Articles 1001 to 1003 are three classes, not a thousand and four."""
    index = index_pictures(make_tree(tmp_path, "1001/a.jpg", "1003/a.jpg", "1002/a.jpg"), num_classes=num_classes)
    assert index.classes == ("1001", "1002", "1003")
    assert index.labels.tolist() == [0, 1, 2]


def test_one_number_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has the class 1 twice: 01 and 1;"):
        index_pictures(make_tree(tmp_path, "0/a.jpg", "01/a.jpg", "1/a.jpg"))


def test_a_class_is_the_first_folder_below_the_split(tmp_path):
    """As in ImageFolder: by their parents these four would be of two classes, camera and phone."""
    names = ("Bread/phone/x.jpg", "Bread/camera/x.jpg", "Dairy/phone/x.jpg", "Dairy/deep/er/x.jpg")
    index = index_pictures(make_tree(tmp_path, *names))
    assert index.classes == ("Bread", "Dairy")
    assert dict(names_and_labels(index)) == {name: int(name.startswith("Dairy")) for name in names}
    index = index_pictures(make_tree(tmp_path / "numbers", "03/1/x.jpg"), num_classes=4)
    assert index.labels.tolist() == [3]


def test_what_is_passed_over_is_counted(tmp_path):
    make_tree(tmp_path, "Bread/a.bmp", "Bread/a.heic", "Rice/b.gif", "Rice/c.jfif", "Rice/notes", "cover_2.jpg")
    make_tree(tmp_path, "@eaDir/a.jpg", "$RECYCLE.BIN/a.jpg", ".ipynb_checkpoints/a.jpg", "x.jpg/a.jpg")
    os.mkfifo(tmp_path / "Bread/pipe.jpg")
    (tmp_path / "Bread/gone.jpg").symlink_to("nowhere")
    index = index_pictures(tmp_path)
    assert names_and_labels(index) == [("Bread/a.bmp", 0), ("Rice/b.gif", 1), ("Rice/c.jfif", 1)]
    assert index.classes == ("Bread", "Rice")
    assert index.passed_over == {
        ".heic": 1,
        "without a suffix": 1,
        "loose pictures beside the class folders": 1,
        "hidden or left by a system": 3,
        "folders named as pictures": 1,
        "pipes or devices": 1,
        "links that lead nowhere": 1,
    }


def test_as_many_pictures_beside_class_folders_as_in_them_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has 2 pictures beside folders with 1 \(backup\): .*as in 0_0\.jpg\?"):
        index_pictures(make_tree(tmp_path, "0_0.jpg", "1_0.jpg", "backup/0_0.jpg"))


def test_a_class_without_pictures_is_refused_by_name(tmp_path):
    """Labels of the later ones would shift by one, without a word."""
    make_tree(tmp_path, "Bread/a.jpg", "Egg/a.heic", "Soup/a.jpg")
    with pytest.raises(UserError, match=r"class folders without pictures: Egg \(passed over: 1 \.heic\); put pictures"):
        index_pictures(tmp_path)
    index = index_pictures(tmp_path, classes=("Bread", "Egg", "Soup"))
    assert index.labels.tolist() == [0, 2]
    (tmp_path / "Tofu").mkdir()
    assert index_pictures(tmp_path, classes=("Bread", "Egg", "Soup")).passed_over == {".heic": 1, "empty folders": 1}
    with pytest.raises(UserError, match="without pictures: 01"):
        index_pictures(make_tree(tmp_path / "tree", "labeled/00/x.jpg", "labeled/01/x.txt", "unlabeled/00/x.jpg"))


def test_splits_are_no_classes(tmp_path):
    make_tree(tmp_path, "train/0_0.jpg", "valid/0_0.jpg")
    with pytest.raises(UserError, match=r"are splits \(train, valid\), not classes"):
        index_pictures(tmp_path)


def test_class_order(tmp_path):
    make_tree(tmp_path, "0_bread/a.jpg", "10_veg/a.jpg", "2_egg/a.jpg")
    assert index_pictures(tmp_path).classes == ("0_bread", "10_veg", "2_egg")  # ImageFolder's
    assert index_pictures(tmp_path, class_order="natural").classes == ("0_bread", "2_egg", "10_veg")


def test_names_in_two_encodings_of_unicode(tmp_path):
    """macOS writes an accent apart from its letter; unpacked elsewhere the two look alike."""
    composed, apart = "Cr\u00e8me", "Cre\u0300me"
    train = index_pictures(make_tree(tmp_path / "train", f"{composed}/a.jpg", "Egg/a.jpg"))
    valid = index_pictures(make_tree(tmp_path / "valid", f"{apart}/a.jpg"), train.classes)
    assert valid.labels.tolist() == [train.classes.index(composed)]
    with pytest.raises(UserError, match=f"both called {composed}, in two encodings .Unicode NFC and NFD"):
        index_pictures(make_tree(tmp_path / "both", "Bread/a.jpg", f"{composed}/a.jpg", f"{apart}/a.jpg"))


def test_linked_pictures_count_where_they_are_linked(tmp_path):
    make_tree(tmp_path, "store/1.jpg", "store/2.jpg", "train/Bread/x.jpg", "train/Soup/x.jpg")
    (tmp_path / "train/Bread/y.jpg").symlink_to("../../store/1.jpg")
    (tmp_path / "train/Soup/z.jpg").symlink_to("../../store/2.jpg")
    index = index_pictures(tmp_path / "train")
    assert names_and_labels(index) == [("Bread/x.jpg", 0), ("Bread/y.jpg", 0), ("Soup/x.jpg", 1), ("Soup/z.jpg", 1)]
    assert index.passed_over == {}


def test_a_list_may_name_pictures_above_it(tmp_path):
    make_tree(tmp_path, "food/0_1.jpg", "food/1_1.jpg")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/mine.txt").write_text("../food/1_1.jpg\n../food/0_1.jpg\n")
    index = index_pictures(tmp_path / "lists/mine.txt")
    assert index.paths == (tmp_path / "food/1_1.jpg", tmp_path / "food/0_1.jpg")
    assert index.labels.tolist() == [1, 0]


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
    make_tree(tmp_path / "food", "2_0.jpg", "0_0.jpg", "1_0.jpg")
    (tmp_path / "food/list.txt").write_text("2_0.jpg\n\n  1_0.jpg \n0_0.jpg\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    index = index_pictures("food/list.txt")
    assert names_and_labels(PictureIndex(tmp_path / "food", index.paths, index.labels)) == [
        ("2_0.jpg", 2),
        ("1_0.jpg", 1),
        ("0_0.jpg", 0),
    ]
    assert index.root == tmp_path / "food/list.txt"


@pytest.mark.parametrize(
    "names",
    [
        ("01/2_IMG0.jpg", "00/3_IMG0.jpg", "02/x.jpg"),
        ("unlabeled/mine/3_1.jpg", "unlabeled/mine/4_1.jpg"),
        ("Bread/phone/a.jpg", "Rice/phone/1_a.jpg"),
        ("3_1.jpg", "1_1.jpg", "x.jpg"),
        ("labeled/00/x.jpg", "labeled/01/2_x.jpg"),
    ],
)
def test_a_picture_has_one_label_however_it_is_named(tmp_path, names):
    """Through its folder, a list and by itself."""
    root = make_tree(tmp_path, *names)
    by_folder = index_pictures(root)
    labels = dict(zip(by_folder.paths, by_folder.labels, strict=True))
    files = [root / name for name in names]
    (root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    for index in (index_files(files), index_pictures(root / "list.txt")):
        assert index.paths == tuple(files)
        assert index.labels.tolist() == [labels[file] for file in files]
        assert index.classes == by_folder.classes
    run = by_folder.classes or ("0", "1", "2", "3")
    for file in files:
        if file.parent.name in (*run, "00", "01", "02", "mine"):  # of one file alone, its folder tells the class
            assert index_files([file], classes=run).labels.tolist() == [labels[file]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "Bread/a b.jpg 1\nRice/c.jpg 0\n"),
        ("list.txt", "Bread/a b.jpg,1\nRice/c.jpg,0\n"),
        ("list.tsv", "Bread/a b.jpg\t1\nRice/c.jpg\t0\n"),
        ("list.csv", "filename,label\nBread/a b.jpg,1\nRice/c.jpg,0\n"),
        ("list.csv", "\ufeffId,Split,Category\r\nBread/a b,train,01\r\nRice/c,train,0\r\n"),
    ],
)
def test_a_list_with_labels(tmp_path, name, text):
    make_tree(tmp_path, "Bread/a b.jpg", "Rice/c.jpg")
    (tmp_path / name).write_text(text, encoding="utf-8")
    index = index_pictures(tmp_path / name)
    assert index.labels.tolist() == [1, 0]
    assert index.classes == ()
    assert index_pictures(tmp_path / name, labelled=False).paths == index.paths


def test_a_list_with_names_of_classes(tmp_path):
    make_tree(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "list.csv").write_text("path,class\na.jpg,Rice\nb.jpg,Apple pie\nc.jpg,Rice\n")
    index = index_pictures(tmp_path / "list.csv")
    assert index.classes == ("Apple pie", "Rice")
    assert index.labels.tolist() == [1, 0, 1]
    assert index_pictures(tmp_path / "list.csv", ("Rice", "Egg", "Apple pie")).labels.tolist() == [0, 2, 0]
    with pytest.raises(UserError, match="no classes of train: Apple pie"):
        index_pictures(tmp_path / "list.csv", ("Rice", "Egg"))


def test_the_list_of_food_101(tmp_path):
    """Its meta/train.txt: CLASS/NAME without a suffix, below images/."""
    make_tree(tmp_path, "images/apple_pie/1.jpg", "images/sushi/2.jpg", "images/sushi/3.jpg")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/train.txt").write_text("sushi/3\napple_pie/1\n")
    index = index_pictures(tmp_path / "meta/train.txt")
    assert index.classes == ("apple_pie", "sushi")
    assert index.labels.tolist() == [1, 0]
    (tmp_path / "meta/test.txt").write_text("sushi/2\n")
    assert index_pictures(tmp_path / "meta/test.txt", index.classes).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg 1\nb.jpg\n", r"1 lines have a label and others none \(b\.jpg\)"),
        ("path,colour\na.jpg,red\n", r"no column of its header path, colour is one of labels"),
        ("path,label\na.jpg\n", r"line 2 has other columns"),
        ("path,label\na.jpg,1\ngone.jpg,1\n", r"names 1 files that do not exist \(gone\.jpg\)"),
    ],
)
def test_mistakes_in_a_list_are_named(tmp_path, text, expected):
    make_tree(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=expected):
        index_pictures(tmp_path / "list.csv")


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
    make_tree(tmp_path, "train/1/a.jpg", "more/b.jpg")
    (tmp_path / "train/back").symlink_to(tmp_path)
    (tmp_path / "train/here").symlink_to(tmp_path / "train")
    (tmp_path / "train/0").symlink_to(tmp_path / "more")
    index = index_pictures(tmp_path / "train")
    assert names_and_labels(index) == [("0/b.jpg", 0), ("1/a.jpg", 1)]
    assert index.passed_over == {"links to folders above": 2}


def test_links_in_a_circle_end_and_count_no_picture_twice(tmp_path):
    for name in "abcdef":
        make_tree(tmp_path, f"{name}/{name}.jpg")
        for other in "abcdef".replace(name, ""):
            (tmp_path / name / f"to_{other}").symlink_to(f"../{other}")
    index = index_pictures(tmp_path, labelled=False)
    assert sorted(path.name for path in index.paths) == [f"{name}.jpg" for name in "abcdef"]
    assert sum(index.passed_over.values()) > 6


def test_a_folder_that_two_classes_lead_to_is_no_second_class(tmp_path):
    make_tree(tmp_path, "more/a.jpg")
    (tmp_path / "train").mkdir()
    for label in "35":
        (tmp_path / "train" / label).symlink_to(tmp_path / "more")
    with pytest.raises(UserError, match=r"without pictures: 5 \(passed over: 1 links to folders that count already\)"):
        index_pictures(tmp_path / "train")


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
