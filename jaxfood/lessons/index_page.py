"""The page that links every lesson in a folder, in English and in Chinese."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxfood.files import write_whole
from jaxfood.lessons import LESSONS

WORDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "index.md": ("The notes' lessons", ("lesson", "shows", "claims that hold")),
    "index.zh.md": ("讲义里的例题", ("例题", "内容", "成立的论断")),
}


def write_index(folder: Path) -> Path:
    """Write `index.md` and `index.zh.md` of the lessons whose pages are there; returns the English one."""
    files = {name: folder / f"{name}.json" for name in LESSONS}
    held = {name: _held(json.loads(file.read_text(encoding="utf-8"))) for name, file in files.items() if file.is_file()}
    for file, (title, header) in WORDS.items():
        chinese = file.endswith(".zh.md")
        summaries = {name: lesson.summary_zh if chinese else lesson.summary for name, lesson in LESSONS.items()}
        lines = [
            f"# {title}",
            "",
            "[English](index.md)" if chinese else "[中文](index.zh.md)",
            "",
            f"| {' | '.join(header)} |",
            "| --- | --- | --- |",
            *(f"| [{name}]({name}.md) | {summaries[name]} | {claims} |" for name, claims in held.items()),
        ]
        write_whole(folder / file, "\n".join(lines) + "\n")
    return folder / "index.md"


def _held(numbers: Mapping[str, Any]) -> str:
    claims = numbers["claims"]
    return f"{sum(claim['holds'] for claim in claims)} / {len(claims)}" if claims else ""
