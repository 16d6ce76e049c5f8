"""The table that predict prints for a few pictures."""

import numpy as np

from jaxfood.errors import columns, within_columns
from jaxfood.inference.answer_table import answer_table

CLASSES = ("Bread", "Dairy product", "麵條", "Egg")


def test_the_likeliest_classes_in_aligned_columns() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7, 0.0], [0.25, 0.25, 0.25, 0.25]], np.float32)
    table = answer_table(["a.jpg", "我的晚餐.jpg"], probabilities, CLASSES, {})
    assert table == [
        "picture       1st           2nd                   3rd",
        "a.jpg          70.0% 麵條    20.0% Dairy product   10.0% Bread",
        "我的晚餐.jpg   25.0% Bread   25.0% Dairy product   25.0% 麵條",  # of equal ones the first
    ]
    assert len({columns(line[: line.index("%")]) for line in table[1:]}) == 1


def test_a_picture_that_cannot_be_read_and_fewer_classes_than_columns() -> None:
    probabilities = np.array([[np.nan, np.nan], [0.4, 0.6]], np.float32)
    table = answer_table(["broken\x1b.jpg", "b.jpg"], probabilities, ("no", "yes"), {0: "an empty file"})
    assert table == [
        "picture         1st         2nd",
        r"broken\x1b.jpg  cannot be read",
        "b.jpg            60.0% yes   40.0% no",
    ]


def test_long_names_are_cut_where_they_tell_least() -> None:
    probabilities = np.array([[1.0]], np.float32)
    (_, line) = answer_table([f"{'folder/' * 20}last.jpg"], probabilities, ("class " * 20,), {})
    assert "…" in line
    assert "last.jpg  100.0% class" in line
    assert columns(line) < 72


def test_columns_of_a_terminal() -> None:
    assert columns("寿司") == 4
    assert columns("é") == 1
    assert within_columns("寿司と蕎麦", 7) == "寿司と…"
    assert within_columns("sushi", 5) == "sushi"
