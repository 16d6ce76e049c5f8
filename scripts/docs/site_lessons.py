# ruff: noqa: RUF001 (Chinese has its own comma and semicolon)
"""Writes docs/lessons/: each lesson's page and pictures as the site shows them.

    python scripts/docs/site_lessons.py                 # those whose code has changed since
    python scripts/docs/site_lessons.py momentum        # this one
    python scripts/docs/site_lessons.py momentum --from lessons    # of what `python -m jaxfood.lessons` wrote there

A lesson takes up to minutes, so the pages are kept in the source and the site computes none. `made.json` keeps them
from drifting: it has a digest of the code that made each page, which tests/test_site.py compares. Pictures are what the
lessons draw, in 256 colours, a third of the size.

A Chinese page (NAME.zh.md) is written by hand. Its tables get the new rows under their own headers; the numbers of its
text are checked by the test, which names those that the English page no longer has.
"""

import argparse
import ast
import datetime
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxfood import lessons
from jaxfood.lessons import LESSONS, run_lesson
from jaxfood.report.page import COLOURS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "lessons"
MADE = PAGES / "made.json"
# The last line of a page: of the lesson's own, which leads to its numbers; and of the site's, in both languages.
NUMBERS = r"Every number: \[.*\n\Z"
COMMAND = "`python -m jaxfood.lessons {name}`"
ENGLISH_END = f"Made by {COMMAND}, which also writes every number as JSON ({{date}}, {{made_with}}).\n"
CHINESE_END = f"由 {COMMAND} 生成；它还会把所有数字写成 JSON 文件。{{date}}，{{made_with}}。\n"
# Lessons whose page is still to be made: its numbers and pictures on a machine that is free.
PENDING: tuple[str, ...] = ()
PALETTE = 256
NEARLY_WHITE = 248


def code_digest(name: str) -> str:
    """Of the lesson's module and of those of `jaxfood.lessons` that it imports, without comments and docstrings."""
    texts = [path.read_text("utf-8") for path in sorted(_modules(name))]
    return hashlib.sha256("\n".join(_code(ast.parse(text)) for text in texts).encode()).hexdigest()[:16]


def outdated() -> list[str]:
    """The lessons that have no page yet, or one that other code has made."""
    made = json.loads(MADE.read_text("utf-8")) if MADE.exists() else {}
    return [name for name in LESSONS if name not in PENDING and made.get(name, {}).get("code") != code_digest(name)]


def take(name: str, folder: Path) -> None:
    """Put what a lesson has written into `folder` on the site, in place of what the site had of it."""
    for old in PAGES.glob(f"{name}-*.png"):
        old.unlink()
    text = (folder / f"{name}.md").read_text("utf-8")
    for picture in re.findall(r"\]\(([^)]+\.png)\)", text):
        with Image.open(folder / picture) as image:
            with_palette(image.convert("RGB")).save(PAGES / picture, optimize=True)
    made = _made_with(name)
    (PAGES / f"{name}.md").write_text(re.sub(NUMBERS, ENGLISH_END.format(name=name, **made), text), "utf-8")
    chinese = PAGES / f"{name}.zh.md"
    if chinese.exists():
        own = with_rows_of(chinese.read_text("utf-8"), text)
        own = own.rpartition("\n\n")[0] + "\n\n" + CHINESE_END.format(name=name, **made)
        chinese.write_text(own, "utf-8")
    kept = json.loads(MADE.read_text("utf-8")) if MADE.exists() else {}
    kept[name] = made
    MADE.write_text(json.dumps({name: kept[name] for name in LESSONS if name in kept}, indent=1) + "\n", "utf-8")


def with_palette(image: Image.Image) -> Image.Image:
    """The picture in 256 colours, those of lines among them: by itself a palette leaves out what covers little."""
    lines = bytes.fromhex("".join(colour[1:] for colour in COLOURS))
    palette = Image.new("P", (1, 1))
    palette.putpalette(lines + bytes(image.quantize(PALETTE - len(COLOURS)).getpalette() or ()))
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    entries = np.reshape(small.getpalette() or (), (-1, 3))
    entries[entries.min(axis=1) >= NEARLY_WHITE] = 255  # or the ground is seen beside the page's
    small.putpalette(entries.astype(np.uint8).tobytes())
    return small


def tables(text: str) -> list[str]:
    """The tables of a page, without their headers: each `---` line and the rows below it."""
    return re.findall(r"^\| ---.*\n(?:\|.*\n)+", text, re.M)


def with_rows_of(translation: str, text: str) -> str:
    """A translated page whose tables have the rows of `text` under their own headers."""
    found, wanted = tables(translation), tables(text)
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} tables in the translation, {len(wanted)} in the page")
    for old, new in zip(found, wanted, strict=True):
        translation = translation.replace(old, new, 1)
    return translation


def _made_with(name: str) -> dict[str, str]:
    versions = f"jax {metadata.version('jax')}, Python {platform.python_version()}"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"code": code_digest(name), "date": date, "made_with": f"{os.cpu_count()} x {_processor()}, {versions}"}


def _processor() -> str:
    """The processor's name, of /proc/cpuinfo where there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.M)
    return names[0] if names else platform.processor() or platform.machine()


def _modules(name: str) -> set[Path]:
    folder = Path(lessons.__file__).parent
    found: set[Path] = set()
    waiting = [folder / f"{name.replace('-', '_')}.py"]
    while waiting:
        path = waiting.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        imports = re.findall(r"^from jaxfood\.lessons\.(\w+) import", path.read_text("utf-8"), re.M)
        waiting += [folder / f"{module}.py" for module in imports]
    return found


def _code(node: Any) -> str:
    """A tree of code in words that are the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(_code(inner) for inner in node if not _is_docstring(inner))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({','.join(f'{name}={_code(value)}' for name, value in fields)})"


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _run(names: list[str]) -> Iterator[tuple[str, Path]]:
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            run_lesson(name, folder)
            yield name, Path(folder)


def main() -> None:
    """Write the pages named, or those that are outdated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", nargs="*", help="lessons (default: those whose code has changed)")
    parser.add_argument("--from", dest="source", metavar="DIR", type=Path, help="do not run them: they are there")
    arguments = parser.parse_args()
    names = arguments.name or outdated()
    if unknown := set(names) - set(LESSONS):
        sys.exit(f"no lessons {', '.join(sorted(unknown))}; there are: {', '.join(LESSONS)}")
    for name, folder in ((name, arguments.source) for name in names) if arguments.source else _run(names):
        take(name, folder)
        print(f"{name}: {PAGES / name}.md")


if __name__ == "__main__":
    main()
