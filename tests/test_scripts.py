"""The documents name scripts that are there, and scripts/README.md lists every one that is run."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("configs/*.toml"),
    ROOT / "scripts" / "README.md",
]


def named(text: str) -> set[str]:
    return set(re.findall(r"(?:scripts|tests)/[\w/]*\.(?:py|sh)", text))


def test_scripts_that_are_named_are_there() -> None:
    names = {name for document in DOCUMENTS for name in named(document.read_text("utf-8"))}
    assert {name for name in names if not (ROOT / name).exists()} == set()


def test_the_list_has_every_command_and_each_says_itself_how_it_is_run() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in ROOT.glob("scripts/*/*.py")}
    commands = {name for name, text in texts.items() if "__main__" in text}
    assert len(commands) > 9
    assert commands <= named((ROOT / "scripts" / "README.md").read_text("utf-8"))
    for name in commands:
        assert f"    python {name}" in texts[name]
