"""The answer sheet: Ids, their order, and a file that is whole or not there."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from jaxfood.errors import UserError
from jaxfood.files import write_whole
from jaxfood.inference.submission import describe_ids, make_ids, write_probabilities, write_submission


def paths(*names: str) -> list[Path]:
    return [Path("/food/test") / name for name in names]


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_an_id_by_stem_is_the_files_own_number_padded_to_four() -> None:
    names = paths(
        "7.jpg", "0012.png", "12345.jpg", "000123456.jpg", "burger.jpg", "a.b.jpg", "-3.jpg", "1_2.jpg", "٣.jpg"
    )
    assert make_ids(names, "stem") == ["0007", "0012", "12345", "123456", "burger", "a.b", "-3", "1_2", "٣"]
    assert make_ids(names, "stem_unpadded") == ["7", "12", "12345", "123456", "burger", "a.b", "-3", "1_2", "٣"]


def test_an_id_by_index_is_the_position_as_in_the_notes_code() -> None:
    names = paths("0001.jpg", "0002.jpg", "x.jpg")
    assert make_ids(names, "index") == ["0000", "0001", "0002"]
    assert make_ids(names, "index_unpadded") == ["0", "1", "2"]
    assert make_ids(names, "index_from_1") == ["0001", "0002", "0003"]
    assert make_ids(paths(*map(str, range(10_001))), "index")[-1] == "10000"


@pytest.mark.parametrize("first", [0, 1])
def test_no_other_form_is_advised_where_it_would_shift_every_row(first: int) -> None:
    names = paths(*(f"{number:04}.jpg" for number in range(first, first + 12)))
    text = describe_ids(names, make_ids(names, "stem"), "stem")
    assert text == f"Ids are 000{first} to 00{first + 11} by --ids stem"


def test_files_that_sort_otherwise_than_they_count_are_said() -> None:
    names = paths("1.jpg", "10.jpg", "2.jpg")
    text = describe_ids(names, make_ids(names, "stem"), "stem")
    assert text.startswith("Ids are 0001 to 0002 by --ids stem; mind the order: 10.jpg sorts before 2.jpg")


def test_two_pictures_of_one_id_are_refused_by_name() -> None:
    names = paths("a/7.jpg", "b/8.jpg", "c/0007.png")
    with pytest.raises(UserError) as error:
        make_ids(names, "stem")
    for word in ("0007", "a/7.jpg", "c/0007.png", "2 pictures", "--ids index"):
        assert word in str(error.value)
    assert "8.jpg" not in str(error.value)
    assert make_ids(names, "index") == ["0000", "0001", "0002"]


def test_rows_are_in_numerical_order_and_other_ids_after_them(tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    write_submission(out, ["12345", "b", "0002", "0010", "-a", "9999"], [1, 2, 3, 4, 5, 6])
    assert out.read_text(encoding="utf-8") == "Id,Category\n0002,3\n0010,4\n9999,6\n12345,1\n-a,5\nb,2\n"


def test_odd_names_are_quoted(tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    write_submission(out, ['say "hi", twice', "豆腐"], [0, 10])
    assert read(out) == [["Id", "Category"], ['say "hi", twice', "0"], ["豆腐", "10"]]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    out.write_text("something longer than what comes now\n" * 9, encoding="utf-8")
    write_submission(out, ["0001"], [5])
    assert read(out) == [["Id", "Category"], ["0001", "5"]]
    assert list(tmp_path.iterdir()) == [out]


def test_as_many_categories_as_ids(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_submission(tmp_path / "submission.csv", ["0001", "0002"], [5])
    assert list(tmp_path.iterdir()) == []


# Whole or not at all.


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_failure_leaves_the_older_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "submission.csv"
    out.write_text("old", encoding="utf-8")

    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", write_half)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"cannot write .*submission\.csv: the disk is full; give another --out"):
        write_submission(out, ["0001"], [5])
    monkeypatch.undo()
    assert out.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["missing/submission.csv", "folder", "file/submission.csv"])
def test_a_place_that_cannot_be_written_to(out: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write .*{out}"):
        write_submission(tmp_path / out, ["0001"], [5])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_probabilities_stand_in_the_rows_of_the_submission_to_the_last_digit(tmp_path: Path) -> None:
    names = ('a "b", c', "Soup\nhot", "Egg 蛋", "raw\udce4")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 3).astype(np.float32)
    probabilities[1] = np.nan  # could not be read
    ids = ["10", "soup", "9"]
    write_probabilities(tmp_path / "p.csv", ids, names, probabilities)
    write_submission(tmp_path / "s.csv", ids, [0, 1, 2])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["Id", *names]
    assert [row[0] for row in rows] == [row[0] for row in read(tmp_path / "s.csv")[1:]] == ["9", "10", "soup"]
    assert rows[2][1:] == [""] * 4
    np.testing.assert_array_equal(np.float32([row[1:] for row in rows[:2]]), probabilities[[2, 0]])


def test_probabilities_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    path.write_text("earlier")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"^cannot write .*p\.csv: the disk is full; give another --probabilities$"):
        write_probabilities(path, ["1"], ["a", "b"], np.zeros((1, 2), np.float32))
    assert path.read_text() == "earlier"
