"""Names and values in messages: nothing in them is obeyed by a terminal, and none is endless."""

import unicodedata

import pytest

from jaxfood.errors import MESSAGE_LIMIT, bounded, first_few, printable, shown, written_otherwise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bread 食べ物 é", "Bread 食べ物 é"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        (b"\xca\xb3\xce\xef".decode("utf-8", "surrogateescape"), "ʳ\\xce\\xef"),  # GBK, of which one pair is UTF-8
        ("\ud800", r"\ud800"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert len(printable(text).splitlines()) == 1
    printable(text).encode()


def test_our_own_line_breaks_stay_where_asked_for() -> None:
    assert printable("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


def test_of_a_long_text_the_middle_is_left_out_and_that_is_said() -> None:
    text = "begin" + "x" * 10**6 + "the mend"
    short = bounded(text)
    assert len(short) < MESSAGE_LIMIT + 50
    assert short.startswith("begin")
    assert short.endswith("the mend")
    assert "[... 996,013 characters left out ...]" in short
    assert bounded("x" * MESSAGE_LIMIT) == "x" * MESSAGE_LIMIT


def test_of_many_names_the_first_few_and_the_count() -> None:
    assert first_few([]) == ""
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few((f"{n}.jpg" for n in range(75_750)), few=2) == "0.jpg, 1.jpg and 75,748 more"
    assert len(first_few(["x" * 10**6] * 10)) < 1200


def test_any_value_is_shown_in_a_short_line() -> None:
    for value in (10**5000, -(16**9000), ["a" * 10**6] * 1000, {"a": {"b": {"c": {"d": {}}}}}, "\x1b\n"):
        assert len(shown(value)) < 1200
        assert shown(value).isprintable()


def test_a_value_too_deep_for_repr_is_shown() -> None:
    deep: list = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "[[[[...]]]]"


def test_names_that_look_alike_are_said_to() -> None:
    composed, decomposed = "Café", unicodedata.normalize("NFD", "Café")
    assert written_otherwise(composed, decomposed) == (
        " (they look the same, but the accents of the first are NFC and of the second NFD)"
    )
    assert written_otherwise(composed, composed) == written_otherwise("Cafe", composed) == ""
