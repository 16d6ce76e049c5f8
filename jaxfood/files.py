"""Paths that a user names, on this machine or in a bucket of Google Cloud Storage (gs://), and files written whole.

A bucket's path is etils' `epath.Path`, as in Orbax: pathlib's methods, by way of gcsfs. What differs there stands here:
a bucket has no folders but those of its files' names, nothing can be appended to its files, and every question is a
request over the network.
"""

import errno
import functools
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from jaxfood.errors import UserError, shown
from jaxfood.extras import require

_IN_USE = (32, 33)  # Windows' sharing and lock violations, which Python tells as "no permission"
_TRIES = 10  # at a rename, over a second, where virus scanners and indexers hold new files open for a moment
_SECONDS_BETWEEN_WRITES = 10.0  # a bucket refuses more than one write of a file a second
_SERVICE = re.compile(r"\w{2,}:/")  # one letter is a drive of Windows; pathlib leaves a single slash


def to_path(path: str | Path) -> Path:
    """The path that a user named, `~` and `~USER` replaced; that of a bucket only if the bucket is within reach.

    Raises:
        UserError: another service than gs://, gcsfs is not installed, no such bucket, or no permission to list it; a
            home folder that is not known; a null byte.
    """
    text = os.fspath(path)
    if not _SERVICE.match(text):
        return _expanded(text)
    if not text.startswith("gs:/"):
        refuse_service(text)
    name = text.removeprefix("gs:").strip("/")
    if not name:
        raise UserError("gs:// names no bucket: write gs://BUCKET/...")
    require("gcsfs", f"gs://{name}", extra="gs")
    _check_reachable(name.partition("/")[0])
    from etils import epath

    return cast(Path, epath.Path(f"gs://{name}"))


def to_local_path(path: str | Path, name: str) -> Path:
    """The path that a user named where only one on this machine will do, `~` and `~USER` replaced.

    Args:
        path: as given.
        name: what it was given as, for the message: a flag, or a setting with its `=`.

    Raises:
        UserError: it is in a bucket, or another service's; a home folder that is not known; a null byte.
    """
    if _SERVICE.match(os.fspath(path)):
        raise UserError(f"{name} {path}: only what is on this machine will do here; set a local folder")
    return _expanded(os.fspath(path))


def refuse_service(text: str, name: str = "") -> None:
    """Refuse a URL of another service than gs://, behind the `name` of what it was given as.

    Raises:
        UserError: it is one.
    """
    if not _SERVICE.match(text) or text.startswith("gs:/"):
        return
    mend = "; download it first (curl -LO, wget), unpack it, and name the folder" if text.startswith("http") else ""
    raise UserError(f"{name}{shown(text)[1:-1]}: of paths with :// only gs://BUCKET/... can be read and written{mend}")


def home() -> Path:
    """The user's home folder.

    Raises:
        UserError: it is not known, as in a container that runs under a number without a name.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise UserError("no home folder is known here: set HOME (and XDG_CACHE_HOME, for caches elsewhere)") from None


def _expanded(text: str) -> Path:
    if "\0" in text:
        raise UserError(f"{shown(text)}: no path holds a null byte; write it anew")
    first = text.partition("/")[0]
    if text.startswith("./~"):  # pathlib drops the ./ that says: a folder of this name, here
        return Path.cwd() / text
    if not text.startswith("~"):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        if first == "~":
            raise UserError(f"{text}: no home folder is known here; set HOME, or write the path without ~") from None
        raise UserError(
            f"{text}: there is no such user {first[1:]}; write the path without ~, or ./{first} for a name"
        ) from None


def is_remote(path: str | Path) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith("gs://")


def absolute(path: Path) -> Path:
    """The path from the root on; a bucket's is so already, and etils would put the current directory before it."""
    return path if is_remote(path) else path.absolute()


def reason(error: OSError) -> str:
    """Why a file or folder could not be had, in plain words."""
    plain = {
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.ENAMETOOLONG: "the name is too long",
        errno.ELOOP: "links that lead in a circle",
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota of the disk is used up",
        errno.EROFS: "the disk can only be read",
    }
    if getattr(error, "winerror", None) in _IN_USE:
        return "another program has it open"
    return plain.get(error.errno or 0) or error.strerror or str(error)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns a failure to read what a user named (gone, no permission, a failing disk or network) into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path} ({reason(error)}): mend that, or remove it") from error


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
    """Write a file so that no reader, nor a power failure, ever sees half of it: beside its place, then moved there.

    Text becomes UTF-8; in it a name that is not UTF-8 keeps its bytes. A bucket shows a file only once it is whole. Of
    a link the file that it leads to is replaced. A device or a pipe (`/dev/null`, `/dev/stdout`) is written to: a file
    in its place would be no device.

    Raises:
        OSError: it cannot be written.
    """
    encoded = _encoded(content) if isinstance(content, str) else content
    if is_remote(path):
        with _plain_errors():
            _filesystem().pipe_file(os.fspath(path), encoded)
        return
    path = Path(os.path.realpath(path))
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            path.write_bytes(encoded)
            return
    except FileNotFoundError:
        pass
    # A name of its own, which may be longer than the file's: that may have all the 255 bytes that a name can have.
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(encoded)
        _sync(temporary, os.O_RDWR)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # Windows and some network disks have no such thing
        _sync(path.parent, os.O_RDONLY)


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name on the same disk, in place of a file that has it.

    Windows refuses while any program has one of the two open, as virus scanners have each new file for a moment: there
    it is tried for a second.

    Raises:
        OSError: it cannot be done.
    """
    for left in reversed(range(_TRIES if os.name == "nt" else 1)):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(1 / _TRIES)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character of UTF-16, as a name of Windows may hold
        return text.encode("utf-8", "backslashreplace")


def _sync(path: Path, how: int) -> None:
    """See that a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that it holds, if it is there."""
    if not path.is_dir() or (not is_remote(path) and path.is_symlink()):
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
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
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
            f"gs://{bucket} cannot be reached ({_in_one_line(error)}): check the network, and that you are logged in "
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
        raise OSError(_in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
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
