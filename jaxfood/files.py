"""Paths that a user names, on this machine or in a bucket of Google Cloud Storage (gs://), and files written whole.

A bucket's path is etils' `epath.Path`, as in Orbax: pathlib's methods, by way of gcsfs. What differs there stands here:
a bucket has no folders but those of its files' names, nothing can be appended to its files, and every question is a
request over the network.
"""

import functools
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jaxfood.errors import UserError
from jaxfood.extras import require

_SECONDS_BETWEEN_WRITES = 10.0  # a bucket refuses more than one write of a file a second
_SERVICE = re.compile(r"\w{2,}:/")  # one letter is a drive of Windows; pathlib leaves a single slash


def to_path(path: str | Path) -> Path:
    """The path that a user named; that of a bucket only if the bucket is within reach.

    Raises:
        UserError: another service than gs://, gcsfs is not installed, no such bucket, or no permission to list it.
    """
    text = os.fspath(path)
    if not _SERVICE.match(text):
        return Path(path)
    if not text.startswith("gs:/"):
        raise UserError(f"{text}: of paths with :// only gs://BUCKET/... can be read and written")
    name = text.removeprefix("gs:").strip("/")
    if not name:
        raise UserError("gs:// names no bucket: write gs://BUCKET/...")
    require("gcsfs", f"gs://{name}", extra="gs")
    _check_reachable(name.partition("/")[0])
    from etils import epath

    return cast(Path, epath.Path(f"gs://{name}"))


def to_local_path(path: str | Path, name: str) -> Path:
    """The path that a user named where only one on this machine will do.

    Args:
        path: as given.
        name: what it was given as, for the message: a flag, or a setting with its `=`.

    Raises:
        UserError: it is in a bucket, or another service's.
    """
    if _SERVICE.match(os.fspath(path)):
        raise UserError(f"{name} {path}: only what is on this machine will do here; set a local folder")
    return Path(path)


def is_remote(path: str | Path) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith("gs://")


def absolute(path: Path) -> Path:
    """The path from the root on; a bucket's is so already, and etils would put the current directory before it."""
    return path if is_remote(path) else path.absolute()


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns a failure to read what a user named (gone, no permission, a failing disk or network) into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): mend that, or remove it") from error


def read_bytes(path: str | Path) -> bytes:
    """A file's content; of a bucket's in one request, where etils makes three.

    Raises:
        OSError: it cannot be read; FileNotFoundError where it is not there.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    with _plain_errors():
        return _filesystem().cat_file(os.fspath(path))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) so that no reader ever sees half of it: beside its place, then moved there.

    A bucket shows a file only once it is whole. Of a link the file that it leads to is replaced. A device or a pipe
    (`/dev/null`, `/dev/stdout`) is written to: a file in its place would be no device.

    Raises:
        OSError: it cannot be written.
    """
    encoded = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        with _plain_errors():
            _filesystem().pipe_file(os.fspath(path), encoded)
        return
    if path.exists() and not path.is_file():
        path.write_bytes(encoded)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(encoded)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that it holds, if it is there."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif is_remote(path):
        cast(Any, path).rmtree()
    else:
        shutil.rmtree(path)


def list_bucket(folder: Path) -> dict[str, str]:
    """Every file of a bucket below a folder, and its version, which changes when it is written.

    One request tells a thousand files. Names are relative to `folder`; a file named as `folder` itself has the name "".

    Raises:
        UserError: it cannot be listed.
    """
    top = os.fspath(folder).removeprefix("gs://")
    with reading(folder), _plain_errors():
        found = _filesystem().find(top, detail=True)
    return {name.removeprefix(top).lstrip("/"): f"{info['size']} {info['generation']}" for name, info in found.items()}


class Lines:
    """A text file to go on with, new or not, that grows by lines.

    A bucket's cannot grow: its text is kept, and written anew now and then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = read_bytes(path).decode() if is_remote(path) and path.exists() else ""
        self._written = self._text
        self._last_write = -_SECONDS_BETWEEN_WRITES

    def add(self, line: str) -> None:
        """Add a line at the end."""
        if not is_remote(self._path):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        self._text += line + "\n"
        if time.monotonic() - self._last_write >= _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """See that all lines are written."""
        if self._text != self._written:
            write_whole(self._path, self._text)
            self._written, self._last_write = self._text, time.monotonic()


@functools.cache
def _check_reachable(bucket: str) -> None:
    try:
        _filesystem().find(bucket, prefix="a name that nothing has")
    except FileNotFoundError:
        make = f"gcloud storage buckets create gs://{bucket}"
        raise UserError(f"there is no bucket gs://{bucket}: check its name, or make it ({make})") from None
    except Exception as error:  # gcsfs, google-auth and aiohttp have each their own
        raise UserError(
            f"gs://{bucket} cannot be reached ({_reason(error)}): check the network, and that you are logged in "
            "(gcloud auth application-default login) as somebody who may read and write there"
        ) from error


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Makes of gcsfs' own errors, some of them no OSError, an OSError of one line."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What an error says, in one line."""
    return ": ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__


@functools.cache
def _filesystem() -> Any:
    """gcsfs, after settings that etils' and so Orbax' own use of it needs too."""
    # Where TensorFlow is installed etils would go through it, and TensorFlow takes a GPU's memory.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # Or gcsfs asks another service which kind each bucket is, and complains where that is not allowed.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # Both log, with tracebacks, what they raise too.
    for name in ("gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import fsspec

    # TensorStore, which writes Orbax' arrays, and other processes change a bucket unseen by gcsfs: no old listings.
    fsspec.config.conf.setdefault("gs", {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem("gs")
