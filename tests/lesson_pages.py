"""What the tests of lessons share: are the files of a lesson all there, and what do they hold."""

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image


def read_lesson(folder: Path, name: str, sizes: dict[str, tuple[int, int]]) -> tuple[str, dict[str, Any]]:
    """The page and the stored numbers of a lesson that lies alone in a folder.

    Checks that every link leads to a file, and that the pictures are those of `sizes`, in the page's order, so many
    pixels wide and high and not empty.
    """
    page = (folder / f"{name}.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (folder / link).is_file()
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert pictures == [f"{name}-{picture}.png" for picture in sizes]
    assert {path.name for path in folder.glob("*.png")} == set(pictures)
    for picture, size in zip(pictures, sizes.values(), strict=True):
        with Image.open(folder / picture) as image:
            assert image.size == size
            assert len(image.getcolors(1 << 24)) > 50
            assert len(set(image.convert("L").resize((96, 54)).tobytes())) > 20
    return page, json.loads((folder / f"{name}.json").read_text())
