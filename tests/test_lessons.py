"""The lessons' page and command: what is written, what is refused; and the lesson on schedules."""

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxfood.config import SCHEDULES
from jaxfood.errors import UserError
from jaxfood.lessons import LESSONS, run_lesson
from jaxfood.lessons.__main__ import main
from jaxfood.lessons.claims import Claim
from jaxfood.report import page


@pytest.mark.smoke
@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_has_its_two_functions(name: str) -> None:
    module = importlib.import_module(f"jaxfood.lessons.{name.replace('-', '_')}")
    assert callable(module.measure)
    assert callable(module.write)
    assert module.__doc__


def test_without_a_name_the_lessons_are_listed_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(LESSONS)
    assert all(line.endswith(lesson.summary) for line, lesson in zip(lines, LESSONS.values(), strict=True))


def test_an_unknown_name_lists_what_exists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no lesson 'momentun'; there are: critical-points, .*batch-size"):
        main(["momentun", "--out", str(tmp_path)])


def test_a_lesson_that_trains_on_nothing_takes_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--images: the lesson schedules trains on no pictures; those that do: "):
        main(["schedules", "--out", str(tmp_path), "--images", str(tmp_path)])


def test_all_and_names_together_are_refused() -> None:
    with pytest.raises(UserError, match="--all runs every lesson; leave out momentum, or --all"):
        main(["momentum", "--all"])


@pytest.mark.parametrize(
    ("relation", "measured", "holds", "worst"),
    [
        ("equal", (1.9, 2.3), True, 2.3),
        ("equal", (2.0, 2.31), False, 2.31),
        ("at least", (1.7, 9.0), True, 1.7),
        ("at least", (1.69, 9.0), False, 1.69),
        ("at most", (-9.0, 2.3), True, 2.3),
        ("at most", (-9.0, 2.31), False, 2.31),
        ("equal", (2.0, math.nan), False, math.nan),
    ],
)
def test_a_claim_holds_where_every_seed_is_within_the_tolerance(
    relation: Any, measured: tuple[float, ...], holds: bool, worst: float
) -> None:
    numbers = Claim("name", "source", 2.0, measured, 0.3 + 1e-12, relation).as_json()
    assert numbers["holds"] is holds
    np.testing.assert_equal(numbers["measured"], worst)
    assert numbers.keys() >= {"name", "source", "expected", "tolerance"}


def test_all_lessons_have_an_index_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the two here, one makes a claim that does not hold; both pages say so, and the lesson's own does."""
    claim = Claim("rate", "Someone 2021", 2.0, (3.0, 2.0), 0.5).as_json()
    for name, claims in (("schedules", []), ("momentum", [claim])):
        module = importlib.import_module(f"jaxfood.lessons.{name}")
        monkeypatch.setattr(module, "measure", lambda full, claims=claims: {"claims": claims})
        monkeypatch.setattr(module, "write", lambda numbers, page: None)
    for name in set(LESSONS) - {"schedules", "momentum"}:
        monkeypatch.delitem(LESSONS, name)
    main(["--all", "--out", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/index.md"
    for index, summary in (("index.md", LESSONS["momentum"].summary), ("index.zh.md", LESSONS["momentum"].summary_zh)):
        text = (tmp_path / index).read_text(encoding="utf-8")
        assert f"| [momentum](momentum.md) | {summary} | 0 / 1 |" in text
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (tmp_path / link).is_file()
    assert "| rate | Someone 2021 | 2 | 3, 2 | 0.5 | **no** |" in (tmp_path / "momentum.md").read_text()


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write to .*file .*; choose another --out"):
        main(["schedules", "--out", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bucket_is_no_folder_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs://bucket/out: only what is on this machine will do here"):
        main(["schedules", "--out", "gs://bucket/out"])
    assert not any(tmp_path.iterdir())


def test_without_matplotlib_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxfood\[lessons\]'"):
        run_lesson("schedules", tmp_path)


def test_the_command_writes_page_pictures_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    main(["schedules", "--out", str(out)])
    assert capsys.readouterr().out == f"{out}/schedules.md\n"
    assert sorted(path.name for path in out.iterdir()) == ["schedules-curves.png", "schedules.json", "schedules.md"]
    text = (out / "schedules.md").read_text()
    assert text.startswith("# schedules: ")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (out / link).is_file()
    with Image.open(out / "schedules-curves.png") as picture:
        assert picture.size == (1200, 720)
    rates = json.loads((out / "schedules.json").read_text())["rates"]
    assert rates.keys() == SCHEDULES.keys()
    for name, values in rates.items():
        assert len(values) == 1000, name
        assert 0 <= min(values) < max(values) + 1e-9 <= 1 + 1e-6, name
    assert rates["plateau"][0] == 1
    # Three epochs without improvement are more than the patience of two: the ninth epoch's loss halves the rate.
    assert (rates["plateau"][499], rates["plateau"][500]) == (1, 0.5)


def test_numbers_become_json_whatever_they_are_kept_in(tmp_path: Path) -> None:
    numbers = {
        "array": np.array([[1.5, np.nan], [np.inf, 2.0]]),
        "number": np.float32(0.5),
        "nested": {1: (np.int64(3), None, "text", True)},
    }
    sheet = page.Page(tmp_path, "made", "a title")
    sheet.save(numbers)
    assert json.loads((tmp_path / "made.json").read_text()) == {
        "array": [[1.5, None], [None, 2.0]],
        "number": 0.5,
        "nested": {"1": [3, None, "text", True]},
    }


def test_a_page_has_its_parts_in_order(tmp_path: Path) -> None:
    sheet = page.Page(tmp_path, "made", "a title")
    sheet.text("""Words over
        two lines.""")
    sheet.table(("name", "value"), [("`a`", 1 / 3), ("b", 12)])
    with sheet.figure("dots", "What it shows", size=(2, 1)) as figure:
        figure.subplots().plot([0, 1])
    sheet.save({})
    assert (tmp_path / "made.md").read_text() == (
        "# made: a title\n\nWords over two lines.\n\n| name | value |\n| --- | --- |\n| `a` | 0.3333 |\n| b | 12 |\n\n"
        "![What it shows](made-dots.png)\n\n*What it shows*\n\nEvery number: [made.json](made.json).\n"
    )
    with Image.open(tmp_path / "made-dots.png") as picture:
        assert picture.size == (240, 120)
