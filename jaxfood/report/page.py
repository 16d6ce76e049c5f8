"""A page of a lesson or of a run's landscape: Markdown, its pictures, and its numbers as JSON."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxfood.errors import UserError, printable
from jaxfood.extras import require
from jaxfood.files import reason, to_local_path, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes, and a line style each, told apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

_MARKUP = re.compile(r"[\\`*_{}\[\]#!|~$]")


class Page:
    """Gathers text and pictures in a local folder: NAME.md, NAME.json, and NAME-FIGURE.png unless `prefix` is another.

    Raises:
        UserError: the folder is in a bucket or cannot be written to, or matplotlib is missing.
    """

    def __init__(self, folder: str | Path, name: str, title: str, *, prefix: str | None = None) -> None:
        require("matplotlib", f"the page {name}", extra="lessons")
        folder = to_local_path(folder, "--out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({reason(error)}); choose another --out") from error
        self._folder, self._name = folder, name
        self._prefix = f"{name}-" if prefix is None else prefix
        self._parts = [f"# {name}: {escaped(title)}"]
        self.file = folder / f"{name}.md"
        self.pictures: set[str] = set()  # names of the figures drawn

    def text(self, markdown: str) -> None:
        """A paragraph of Markdown; a name that a user gave stands in it by `escaped`."""
        self._parts.append(" ".join(markdown.split()))

    def lines(self, lines: Sequence[str]) -> None:
        """Lines as a terminal shows them; nothing in them is markup."""
        self._parts.append("\n".join(f"    {printable(line)}" for line in lines))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; numbers are shown with four significant digits, texts as Markdown."""
        lines = [header, ["---"] * len(header), *([_shown(cell) for cell in row] for row in rows)]
        self._parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))

    @contextmanager
    def figure(self, name: str, caption: str, size: tuple[float, float] = (8, 4.5)) -> Iterator["Figure"]:
        """A picture to draw on, `size` in inches, saved when the block ends."""
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(plot_style()):
            figure = Figure(figsize=size, layout="constrained")
            yield figure
            file = f"{self._prefix}{name}.png"
            figure.savefig(self._folder / file, dpi=120)
        self.pictures.add(name)
        self._parts.append(f"![{caption}]({file})\n\n*{caption}*")

    def save(self, numbers: dict[str, Any]) -> None:
        """Write the page and its numbers."""
        self._parts.append(f"Every number: [{self._name}.json]({self._name}.json).")
        write_whole(self.file, "\n\n".join(self._parts) + "\n")
        lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in _plain(numbers).items())
        write_whole(self._folder / f"{self._name}.json", "{\n" + ",\n".join(lines) + "\n}\n")


def plot_style() -> Any:
    """How pictures of a page look, for `matplotlib.rc_context`."""
    from cycler import cycler

    return {
        "axes.prop_cycle": cycler(color=COLOURS, linestyle=LINES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
    }


def escaped(name: object) -> str:
    """A name (of a class, a file, a run) as text of Markdown and its HTML: nothing in it is markup or a link."""
    text = printable(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\g<0>", text).replace("://", "&#58;//")


def _shown(cell: Any) -> str:
    """A cell, in which nothing ends the cell or the row."""
    return f"{cell:.4g}" if isinstance(cell, float | np.floating) else re.sub(r"(?<!\\)\|", r"\|", printable(cell))


def _plain(value: Any) -> Any:
    """The value as JSON has it: arrays as lists, and null where a number is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # NumPy's and JAX's arrays and numbers
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
