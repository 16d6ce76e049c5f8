"""RUN/report.html while a run is trained: `logging.report`."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jaxfood import processes
from jaxfood.errors import UserError
from jaxfood.files import is_remote, reason
from jaxfood.training.logbook import Logbook, Stopwatch

# Writes the page of a run: with the seconds of each kind of work so far while it is trained, with None once that ended.
WriteReport = Callable[[Path, Mapping[str, float] | None], None]

SECONDS_BETWEEN_WRITES = 10.0  # in a bucket, which refuses more than one write of a file a second


def no_report(workdir: Path, seconds: Mapping[str, float] | None) -> None:
    """Writes nothing."""


def try_report(workdir: Path, write: WriteReport, seconds: Mapping[str, float] | None = None) -> str:
    """Write a page, which ends no training where it cannot be written: then a line that says why, else ""."""
    try:
        write(workdir, seconds)
    except OSError as error:
        return f"report.html not written: {reason(error)}"
    except UserError as error:
        return f"report.html not written: {error}"
    return ""


@contextmanager
def reporting(logbook: Logbook, workdir: Path, write: WriteReport, watch: Stopwatch) -> Iterator[None]:
    """Write the page at once, after each line of metrics.jsonl, and at the end, however the training ends.

    Where it cannot be written that is said, each reason once.
    """
    if write is no_report or not processes.is_first():
        yield
        return
    said = set[str]()
    written = -SECONDS_BETWEEN_WRITES

    def write_now(seconds: Mapping[str, float] | None) -> None:
        nonlocal written
        if seconds is not None and is_remote(workdir) and time.monotonic() - written < SECONDS_BETWEEN_WRITES:
            return
        with watch("report"):
            line = try_report(workdir, write, seconds)
        written = time.monotonic()
        if line and line not in said:
            logbook.line(line)
        said.add(line)

    logbook.after_record = lambda: write_now(watch.seconds)
    write_now(watch.seconds)
    try:
        yield
    finally:
        write_now(None)
