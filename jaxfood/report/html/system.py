"""The part of a report on what it all ran on: devices and versions, and the log."""

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata

from jaxfood.report.html.markup import Html, escaped, labelled, name, section, table, tag, word
from jaxfood.report.html.numbers import NOTHING
from jaxfood.report.html.records import RunRecord
from jaxfood.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "scikit-learn", "matplotlib")
_MOST_LINES = 300  # of a log: a run of a thousand epochs keeps its beginning in log.txt


def system(runs: Sequence[RunRecord]) -> Html:
    """What each run was trained on and by, what this report was written by, and the logs."""
    rows = [row for run in runs for row in _starts(run)]
    head = [word(key) for key in ("run", "data", "devices", "version")]
    own = [("jaxfood", __version__), ("Python", platform.python_version())]
    own += [(package, version) for package in _PACKAGES if (version := _version(package))]
    versions = [(name(package), name(version)) for package, version in own]
    parts: list[object] = [table("system", head, rows, class_="left")]
    parts += [word("report_by", element="h3"), tag("p", name(_machine()), class_="how")]
    parts.append(table("report_by", [word("package"), word("version")], versions, class_="left narrow"))
    parts += [_log(run, place) for place, run in enumerate(runs) if run.log.lines]
    return section("system", "system", *parts)


def _starts(run: RunRecord) -> Iterator[tuple[object, ...]]:
    """A row for each time that the training was started; of runs without a log one."""
    if not run.log.starts:
        yield _directory(run), NOTHING, NOTHING, name(f"jaxfood {run.made_by}" if run.made_by else NOTHING)
    for start in run.log.starts:
        pictures = word("data_of_run", f"{start.train:,}", f"{start.valid:,}", start.classes, start.pixels)
        yield _directory(run), pictures, name(start.devices), name(f"jaxfood {start.jaxfood}, jax {start.jax}")


def _directory(run: RunRecord) -> Html:
    return name(run.workdir, class_="path")


def _machine() -> str:
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # an extra that is not installed
        return ""


def _log(run: RunRecord, place: int) -> Html:
    lines = run.log.lines
    if len(lines) > _MOST_LINES:
        heading = word("log_cut", run.name, _MOST_LINES, f"{len(lines):,}")
    else:
        heading = word("log", run.name)
    content = Html("\n".join(map(escaped, lines[-_MOST_LINES:])))
    text = tag("pre", content, tabindex="0", role="group", **labelled("log", run.name))
    return tag("details", tag("summary", heading), text, id=f"log-{place}")
