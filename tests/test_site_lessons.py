"""The lessons' pages on the site: each is there, made by the code as it is, and its translation says the same."""

import ast
import re
from pathlib import Path

import pytest
import site_lessons

from jaxfood.lessons import LESSONS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "lessons"
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?"
WITH_PAGE = [name for name in LESSONS if name not in site_lessons.PENDING]
TRANSLATED = sorted(PAGES.glob("*.zh.md"))


def pictures_of(text: str) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", text)


def prose(text: str) -> str:
    """A page without its tables, its captions' links and the line on how it was made."""
    return re.sub(r"^\|.*$|\]\([^)]+\)", "", text.rstrip().rpartition("\n")[0], flags=re.M)


def test_every_page_was_made_by_the_lesson_as_it_is() -> None:
    assert site_lessons.outdated() == []  # otherwise: python scripts/docs/site_lessons.py, and look at the pages


def test_the_pages_are_those_of_the_lessons_with_their_pictures() -> None:
    assert {path.name for path in PAGES.glob("*.md")} - {path.name for path in TRANSLATED} == {
        f"{name}.md" for name in WITH_PAGE
    }
    shown = [picture for name in WITH_PAGE for picture in pictures_of((PAGES / f"{name}.md").read_text("utf-8"))]
    assert sorted(shown) == sorted(path.name for path in PAGES.glob("*.png"))
    assert max(path.stat().st_size for path in PAGES.glob("*.png")) < 150_000


def test_the_navigation_has_each_lesson_in_its_order() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert re.findall(r"^ +- ([\w-]+): lessons/\1\.md$", navigation, re.M) == WITH_PAGE


def test_the_index_shows_a_picture_of_each_that_leads_to_its_page() -> None:
    index = (ROOT / "docs" / "lessons.md").read_text("utf-8")
    shown = re.findall(r"^\[!\[[^\]]+\]\(lessons/([\w-]+)\.png\)\]\(lessons/([\w-]+)\.md\)$", index, re.M)
    assert [page for _, page in shown] == WITH_PAGE
    assert all((PAGES / f"{picture}.png").is_file() and picture.startswith(page) for picture, page in shown)


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translated_lesson_has_the_rows_pictures_and_numbers_of_its_page(page: Path) -> None:
    own, text = page.read_text("utf-8"), Path(str(page).replace(".zh.md", ".md")).read_text("utf-8")
    assert site_lessons.tables(own) == site_lessons.tables(text)
    assert pictures_of(own) == pictures_of(text)
    assert set(re.findall(NUMBER, prose(own))) - set(re.findall(NUMBER, prose(text))) == set()


def test_comments_docstrings_and_layout_leave_the_digest_and_code_changes_it() -> None:
    texts = ('"""A."""\nx = [1, 2]\n', "# B\nx = [\n    1,\n    2,\n]\n", "x = [1, 3]\n")
    first, same, other = (site_lessons._code(ast.parse(text)) for text in texts)
    assert first == same != other


def test_a_translation_keeps_its_headers_and_gets_the_rows() -> None:
    text = "| at | is |\n| --- | --- |\n| 3 | 4 |\n| 5 | 6 |\n"
    own = "a\n\n| 点 | 值 |\n| --- | --- |\n| 1 | 2 |\n\nb\n"
    wanted = "a\n\n| 点 | 值 |\n| --- | --- |\n| 3 | 4 |\n| 5 | 6 |\n\nb\n"
    assert site_lessons.with_rows_of(own, text) == wanted
    with pytest.raises(ValueError, match="1 tables in the translation, 2 in the page"):
        site_lessons.with_rows_of(own, f"{text}\n{text}")
