"""What Orbax and TensorStore say where a disk is full or a file damaged: one line of it, and none on the terminal."""

import errno
import functools
import logging
import os
import re
import sys
from typing import Any

_LONGEST = 200  # letters of a reason: TensorStore gives the story of every layer
_OS_ERROR = re.compile(r"([^:\[\]]+?) \[os_error_code='?(\d+)")
_STORE = re.compile(
    r'orbax|tensorstore|OCDBT|"zarr\d?" driver'
)  # in what asyncio tells of an error that nobody awaited
_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your share of the disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
# TensorStore tells Windows' own numbers there, where Python translates them.
_OF_WINDOWS = {5: errno.EACCES, 32: errno.EACCES, 39: errno.ENOSPC, 112: errno.ENOSPC, 1295: errno.EDQUOT}


def reason_of(error: BaseException) -> str:
    """What went wrong, in a few words: the system's, where it was the system's."""
    if code := _code(error):
        return os.strerror(code)
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        line = f"no {line}"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def mend_of(error: BaseException) -> str:
    """What a user can do about a write that failed."""
    return _MENDS.get(_code(error), "mend that")


def _code(error: BaseException) -> int:
    """The system's number of what happened, or 0."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = _OS_ERROR.search(str(error))
    number = int(found[2]) if found else 0
    return _OF_WINDOWS.get(number, 0) if os.name == "nt" else number


@functools.cache
def keep_quiet() -> None:
    """From now on nothing is shown of what Orbax logs: errors that it also raises, and warnings to its programmer.

    An error comes from four of its threads with a traceback each, 300 lines in all, and some only as garbage.
    """
    logging.getLogger("absl").addFilter(lambda record: record.levelno <= logging.INFO or not _is_orbax(record.pathname))
    logging.getLogger("asyncio").addFilter(lambda record: not _STORE.search(record.getMessage()))
    shown = sys.unraisablehook

    def show(unraisable: Any) -> None:
        # TensorStore cannot tell it to an event loop that Orbax closed after the first of several errors.
        closed = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
        # And what was still to be read is given up.
        code = getattr(unraisable.object, "cr_code", None)
        if not closed and not (code and _is_orbax(code.co_filename)):
            shown(unraisable)

    sys.unraisablehook = show


def _is_orbax(text: str) -> bool:
    return "orbax" in text
