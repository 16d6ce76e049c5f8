"""The commands of a tutorial, as its page has them, made small enough to be run by a test.

What is changed of a command, and nothing else: pictures of 32 px, batches of 8, a network of 4 channels, one device, no
progress bar, at most 2 epochs, and one where the page names none. Each runs in this process, one after another.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^(?P<mark><!-- no-run -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$", re.M | re.S)

SMALL = {
    "data.image_size": "32",
    "train.image_sizes": "32",
    "train.batch_size": "8",
    "device.count": "1",
    "logging.progress": "false",
}
NARROW = {"model.width": "4"}
MOST_EPOCHS = 2


class Block(NamedTuple):
    """A block of a page that is to be run."""

    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Those of shell commands and of Python, in their order, without the ones that are marked <!-- no-run -->."""
    for found in _BLOCK.finditer(page.read_text("utf-8")):
        if not found["mark"]:
            yield Block(found["language"], found["text"])


def run_page(page: Path) -> str:
    """Run a page's blocks in the current directory; what they printed.

    Raises:
        AssertionError: a command failed; the message names it.
    """
    printed = io.StringIO()
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, f"{page.name}, Python", "exec"), names)
            continue
        for command in block.text.replace("\\\n", " ").splitlines():
            with contextlib.redirect_stdout(printed):
                _run(command, page)
    return printed.getvalue()


def _run(command: str, page: Path) -> None:
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # of XLA, which has started here
        words.pop(0)
    if words[:2] == ["python", "-m"]:
        arguments = [os.path.expanduser(word) for word in words[3:]]
        try:
            _main(words[2])(smaller(words[2], arguments))
        except BaseException as error:
            raise AssertionError(f"{page.name}: {command}: {error!r}") from error
    elif words:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}: {command}: {done.stderr}"
        print(done.stdout)


def _main(module: str) -> Callable[[list[str]], None]:
    package = module.replace(".", "/")
    root = Path(__file__).parents[1]
    return import_module(f"{module}.__main__" if (root / package).is_dir() else module).main


def smaller(module: str, arguments: list[str]) -> list[str]:
    """A command's arguments, with the settings that make it small."""
    if module not in ("jaxfood.train", "jaxfood.preview"):
        return arguments
    resumed = "--resume" in arguments
    arguments = [_capped(before, word) for before, word in zip(["", *arguments], arguments, strict=False)]
    if not resumed and not any(word == "--config" or word.startswith("--data.") for word in arguments):
        arguments = ["--config", "demo", *arguments]  # what is taken then, were the size of pictures not added
    settings = dict(SMALL)
    if not resumed:
        settings |= NARROW if not any(word.startswith("resnet1") for word in arguments) else {}
        settings |= {"train.epochs": "1"} if "--train.epochs" not in arguments else {}
    return arguments + [word for name, value in settings.items() for word in (f"--{name}", value)]


def _capped(before: str, word: str) -> str:
    return str(min(int(word), MOST_EPOCHS)) if before == "--train.epochs" else word
