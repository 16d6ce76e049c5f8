"""Standard output, standard error and Ctrl-C of a command: nothing that happens to them ends it with a traceback.

It is loaded before everything else (see `jaxfood/__init__.py`), so it imports nothing but what Python has loaded.
"""

import atexit
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130  # exit status: what shells report after Ctrl-C

_working = False  # in a command's `main`, which a KeyboardInterrupt reaches and ends in good order
_heard = False  # a signal was
_status: int | None = None  # with which the command ends, once it has said so


def catch_interrupts() -> None:
    """From here on SIGINT and SIGTERM end a command with one line and status 130, whatever Python is doing.

    While a command works they raise KeyboardInterrupt. While modules are imported, where it would be swallowed by
    somebody's `except` or leave a module half made, before the work and after it, and at the second signal, they end
    the process at once. Signals that the parent has set to be ignored, as nohup does, stay so.
    """
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is default:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    atexit.register(_ignore)  # among the first, so that it is called among the last


def _ignore() -> None:
    """While Python takes itself apart, which takes a part of a second and takes our handler away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def working() -> Iterator[None]:
    """While a command works.

    Raises:
        KeyboardInterrupt: a signal came; also where the one that it had raised was swallowed or became another error.
    """
    global _working, _heard
    _working, _heard = True, False
    try:
        yield
    except Exception as error:  # what libraries written in C++ make of a KeyboardInterrupt
        if not _heard:
            raise
        raise KeyboardInterrupt from error
    finally:
        _working = False
    if _heard:
        raise KeyboardInterrupt


def settle(status: int) -> None:
    """How the command ends is settled: a signal from now on only ends it sooner."""
    global _status
    _status = status


def leave(status: int) -> NoReturn:
    """End the command."""
    settle(status)
    if _heard:  # libraries that were in the middle of something would not end in peace
        end_at_once(status)
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _heard
    if _heard or not _working or _imports(frame):
        _end()
    _heard = True
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(what: Any) -> None:
    """A KeyboardInterrupt that came in a destructor or the like, where Python can only print it, still ends."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        _end()
    sys.__unraisablehook__(what)


def _end() -> NoReturn:
    if _status is not None:
        end_at_once(_status)
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    end_at_once(INTERRUPTED)


def end_at_once(status: int) -> NoReturn:
    """End this process, though threads of it may wait for ever; what was printed is shown."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, RuntimeError, ValueError):  # closed, or in use by what was interrupted
            stream.flush()
    os._exit(status)


def open_streams() -> None:
    """Make standard output and error take every text, and writing to them never fail.

    What their encoding has not is written as an escape. Where nobody reads any more (`| head`) what would be shown is
    dropped, and training goes on; so too where the disk that they lead to is full, which is said once.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(
            sys, f"__{name}__"
        ):  # pythonw has none; tests and notebooks their own
            continue
        with suppress(OSError, ValueError):
            # Windows' console is no file; what leads elsewhere (a pipe, a file) is one there too.
            if (os.name == "posix" or not stream.isatty()) and stream.fileno() == number:
                stream.flush()
                raw = io.BufferedWriter(_Output(number, "wb", closefd=False))
                encoding = stream.encoding
                setattr(sys, name, io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True))
            else:
                stream.reconfigure(errors="backslashreplace")


class _Output(io.FileIO):
    """A file whose writes are dropped once one has failed."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for those too who write to it by its number
                # Windows tells a pipe that nobody reads any more as an invalid argument.
                if not isinstance(error, BrokenPipeError) and not (os.name == "nt" and error.errno == errno.EINVAL):
                    line = f"the output takes no more ({error.strerror}): going on without it\n"
                    os.write(2, line.encode())
            return len(data)
