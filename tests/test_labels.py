"""Names as labels of pictures: shortened to the room there is, in fonts that have their characters."""

import pytest
from matplotlib.figure import Figure

from jaxfood.errors import within_columns
from jaxfood.report import labels
from jaxfood.report.labels import fit_labels


def test_names_are_shortened_to_the_room_there_is() -> None:
    found = fit_labels(["Soup", "Vegetable/Fruit and more", "x" * 21, "x" * 22, "a\nb", ""], 21)
    assert found.texts == ("Soup", "Vegetable/Fruit and…", "x" * 21, "x" * 20 + "…", r"a\x0ab", "")


def test_a_wide_character_takes_two_columns_and_an_accent_none() -> None:
    assert within_columns("食べ物食べ物", 8) == "食べ物…"
    assert within_columns("cafe\u0301", 4) == "cafe\u0301"


def test_latin_names_open_no_other_font(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    drawn_by = labels._drawn_by
    monkeypatch.setattr(labels, "_drawn_by", lambda path, names: opened.append(path) or drawn_by(path, names))
    fit_labels(["Crème brûlée", "борщ", "food…"], 30)
    assert len(opened) == 1


def test_another_font_of_the_machine_draws_what_the_first_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.font_manager import fontManager

    chosen = next(font for font in fontManager.ttflist if font.name == "STIXGeneral")

    def has(path: str, characters: set[str]) -> set[str]:
        return characters - {"湯", "麵"} | ({"湯"} if path == chosen.fname else set())

    monkeypatch.setattr(labels, "_drawn_by", has)
    found = fit_labels(["6 湯麵"], 20)
    assert found.texts == ("6 湯□",)
    assert found.boxed == ("麵",)
    assert found.families[-1] == "STIXGeneral"


def test_what_no_font_has_is_a_box_and_draws_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit_labels(["6 \U0010fffd$x_1$"], 20)
    assert found.texts == ("6 □$x_1$",)
    figure = Figure()
    figure.text(0, 0, found.texts[0], fontfamily=found.families, parse_math=False)
    figure.canvas.draw()


def test_a_font_that_is_gone_is_not_there() -> None:
    assert labels._drawn_by("/nowhere/font.ttf", {"a"}) == set()
