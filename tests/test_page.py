"""Pages of Markdown: names in them are no markup, and their numbers are JSON."""

import json
from pathlib import Path

import pytest

from jaxfood.errors import UserError
from jaxfood.report.page import Page, escaped


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Bread 食べ物", "Bread 食べ物"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](https://a.org)", r"\[x\](https&#58;//a.org)"),
        ("a|b *c* _d_ `e` #f $g$", r"a\|b \*c\* \_d\_ \`e\` \#f \$g\$"),
        ("a\n\n# b\x1b", r"a\\x0a\\x0a\# b\\x1b"),
        ("AT&T &lt;", "AT&amp;T &amp;lt;"),
        ("a\udce4", r"a\\xe4"),
    ],
)
def test_a_name_is_shown_as_it_is(name: str, expected: str) -> None:
    assert escaped(name) == expected


def test_a_page_of_hostile_names(tmp_path: Path) -> None:
    page = Page(tmp_path / "食\udce4", "landscape", "where <b>x</b>|y stands")
    page.table(("class", "value"), [("a|b\n| c", 1.0), (escaped("a|b"), float("nan"))])
    page.save({"run\udce4": float("nan")})
    assert page.file.read_text(encoding="utf-8").splitlines() == [
        r"# landscape: where &lt;b&gt;x&lt;/b&gt;\|y stands",
        "",
        "| class | value |",
        "| --- | --- |",
        r"| a\|b\x0a\| c | 1 |",
        r"| a\|b | nan |",
        "",
        "Every number: [landscape.json](landscape.json).",
    ]
    assert json.loads(page.file.with_suffix(".json").read_text()) == {"run\udce4": None}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write to .*; choose another --out$"):
        Page(tmp_path / ("a" * 300), "landscape", "x")
