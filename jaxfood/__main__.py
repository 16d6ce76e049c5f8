"""`python -m jaxfood`: lists the commands."""

import importlib
import re
import sys
from collections.abc import Sequence

from jaxfood import cli
from jaxfood.errors import UserError
from jaxfood.version import __version__

COMMANDS = {  # the module of each
    "train": "jaxfood.train",
    "predict": "jaxfood.predict",
    "evaluate": "jaxfood.evaluate",
    "serve": "jaxfood.serve",
    "preview": "jaxfood.preview",
    "landscape": "jaxfood.landscape.__main__",
    "convert": "jaxfood.convert",
    "export": "jaxfood.export",
    "lessons": "jaxfood.lessons.__main__",
    "doctor": "jaxfood.doctor",
    "food11": "jaxfood.food11",
    "data.tfds": "jaxfood.data.tfds.__main__",
}


def main(argv: Sequence[str] | None = None) -> None:
    """List them."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        raise UserError(f"a command follows a dot: python -m jaxfood.{words[0]}")
    cli.Parser("", "List the commands of jaxfood.").parse_args(argv)
    cli.say(f"jaxfood {__version__}: python -m jaxfood.COMMAND, and --help for its arguments")
    width = max(map(len, COMMANDS))
    for name in COMMANDS:
        cli.say(f"  {name:{width}}  {summary(name)}")


def summary(command: str) -> str:
    """The first sentence of what a command says of itself in its --help."""
    description = importlib.import_module(COMMANDS[command]).DESCRIPTION
    return re.split(r"(?<=[.:])\s", " ".join(description.split()))[0].rstrip(".:")


if __name__ == "__main__":
    cli.run(main)
