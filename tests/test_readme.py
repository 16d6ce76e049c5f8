"""The two READMEs are short, say the same, and every link in them leads somewhere."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
BOTH = pytest.mark.parametrize("name", [ENGLISH, CHINESE])


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def links(text: str) -> list[str]:
    """Where a text's links and pictures lead, but for the one to the other language."""
    found = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    return [link or picture for link, picture in found if link not in (ENGLISH, CHINESE)]


def in_chinese(link: str) -> str:
    """The Chinese page of an English one, where there is one."""
    page = link.removesuffix(".md") + ".zh.md"
    return page if (ROOT / page).exists() else link


def commands(text: str) -> list[str]:
    """The code blocks, each after the comment that names it for CI, without their remarks; and what stands as code."""
    blocks = re.findall(r"((?:^<!-- [^\n]* -->\n)?^```\w*\n.*?^```)$", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [re.sub(r" +#.*", "", block) for block in blocks] + sorted(re.findall(r"`[^`\n]+`", prose))


def numbers_of_tables(text: str) -> list[list[str]]:
    return [re.findall(r"\d[\d.]*(?:e-?\d+)?", row) for row in re.findall(r"^\|(.*)\|$", text, re.M)]


def test_both_have_the_same_commands_headings_figures_and_links() -> None:
    english, chinese = read(ENGLISH), read(CHINESE)
    assert commands(chinese) == commands(english)
    assert re.findall(r"^#+(?= )", chinese, re.M) == re.findall(r"^#+(?= )", english, re.M)
    assert numbers_of_tables(chinese) == numbers_of_tables(english)
    assert links(chinese) == [in_chinese(link) for link in links(english)]
    assert f"]({CHINESE})" in english
    assert f"]({ENGLISH})" in chinese


@BOTH
def test_every_link_leads_somewhere(name: str) -> None:
    relative = [link.partition("#")[0] for link in links(read(name)) if "://" not in link]
    assert len(relative) > 20
    assert [link for link in relative if not (ROOT / link).is_file()] == []


@BOTH
def test_it_is_short(name: str) -> None:
    assert len(read(name).splitlines()) <= 150


def test_what_is_measured_stands_on_the_pages_it_is_taken_from() -> None:
    table = read(ENGLISH).partition("\n## Measured\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\| (.*) \|$", table, re.M)[2:]
    figures = {figure for row in rows for figure in re.findall(r"\d+\.\d+(?:e-\d+)?|\d{3,}", row)}
    pages = ("background/measured.md", "tutorials/simple_to_boss.md", "reliability.md")
    sources = "\n".join(read(f"docs/{page}") for page in pages)
    assert len(figures) > 7
    assert {figure for figure in figures if figure not in sources} == set()
