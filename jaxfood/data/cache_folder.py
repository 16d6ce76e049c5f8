"""The cache folder: where it is, how its entries are named, and whose temporary files lie in it."""

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL

from jaxfood.data.index import PictureIndex
from jaxfood.errors import UserError
from jaxfood.files import home, is_remote, reading, to_local_path

# Part of the fingerprint: raise it when the bytes of an entry would come out differently.
FORMAT_VERSION = 1

_ABANDONED_AFTER_SECONDS = 24 * 3600


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jaxfood`, by default `~/.cache/jaxfood` (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "jaxfood"


def cache_folder(cache_dir: str | Path = "") -> Path:
    """The cache folder that the setting `data.cache_dir` means; the empty string means the default."""
    if not str(cache_dir):
        return default_cache_dir()
    return Path(os.path.abspath(to_local_path(cache_dir, "data.cache_dir =").expanduser()))


def cache_dir_of_run(cache_dir: str) -> str:
    """The `data.cache_dir` of a run where it is on this machine, else the default: a run may come from another one."""
    return cache_dir if cache_dir and os.path.isdir(cache_dir) else ""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns failures to write below the cache folder `folder` (no permission, disk full) into UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write to the cache folder {folder} ({reason}): mend that, or set data.cache_dir to another folder"
        ) from error


def entry_name(root: Path, image_size: int) -> str:
    """A name that people can read (`food-train-128px-1a2b3c4d`), and that no other root and size has."""
    readable = "-".join(re.sub(r"[^\w.]+", "_", part)[:24] for part in root.parts[-2:])
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    return f"{readable}-{image_size}px-{digest[:8]}"


def fingerprint(index: PictureIndex, image_size: int, skip_corrupt: bool) -> str:
    """A name for the pictures of `index` as they are now: their paths, sizes and times, and how they are decoded.

    Raises:
        UserError: a file is gone or may not be looked at.
    """
    digest = hashlib.sha256(f"{FORMAT_VERSION} {PIL.__version__} {image_size} {skip_corrupt}".encode())
    for path in index.paths:
        if is_remote(path):
            version = index.versions[path]
        else:
            with reading(path):
                status = os.stat(path)
            version = f"{status.st_size} {status.st_mtime_ns}"
        digest.update(b"\0" + os.fsencode(path) + b"\0" + version.encode())
    return digest.hexdigest()[:32]


def temporary_name(name: str) -> str:
    """A name for what this process writes until it is whole and has the name `name`; see `is_abandoned`."""
    return f"{name}~{platform.node()}~{os.getpid()}~{secrets.token_hex(4)}.tmp"


def is_abandoned(temporary: Path) -> bool:
    """Whether whoever was writing the temporary file is gone; elsewhere than on this machine, after a day."""
    try:
        _, host, pid, _ = temporary.name.split("~")
        if host == platform.node() and os.name == "posix":  # on Windows os.kill would end the process
            os.kill(int(pid), 0)  # asks whether it lives
            return False
        return time.time() - temporary.stat().st_mtime > _ABANDONED_AFTER_SECONDS
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # another user's process, a file that is gone by now, or nobody's name
        return False
