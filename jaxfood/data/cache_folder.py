"""The cache folder: where it is, how its entries are named, and whose temporary files lie in it."""

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import PIL

from jaxfood.data.index import PictureIndex
from jaxfood.errors import UserError
from jaxfood.files import home, is_remote, move, reading, reason, to_local_path

# Part of the fingerprint: raise it when the bytes of an entry would come out differently.
FORMAT_VERSION = 2

_ABANDONED_AFTER_SECONDS = 24 * 3600


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jaxfood`, by default `~/.cache/jaxfood` (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "jaxfood"


def cache_folder(cache_dir: str | Path = "") -> Path:
    """The cache folder that the setting `data.cache_dir` means; the empty string means the default.

    Raises:
        UserError: it names no folder on this machine.
    """
    if not str(cache_dir):
        return default_cache_dir()
    path = to_local_path(cache_dir, "data.cache_dir =")
    try:
        return Path(os.path.abspath(path))
    except OSError as error:
        raise UserError(
            f"data.cache_dir = {cache_dir}: the current folder is gone ({reason(error)}); give the folder's whole path"
        ) from None


def cache_dir_of_run(cache_dir: str) -> str:
    """The `data.cache_dir` of a run where it is on this machine, else the default: a run may come from another one."""
    return cache_dir if cache_dir and os.path.isdir(cache_dir) else ""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns failures to write below the cache folder `folder` (no permission, disk full) into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {folder} ({reason(error)}): mend that, or set data.cache_dir to another "
            "folder"
        ) from error


def entry_name(root: Path, image_size: int, resize: str = "squash", *, fast: bool = False) -> str:
    """A name that people can read (`food-train-128px-1a2b3c4d`); no other root, size, `resize` and `fast` has it."""
    readable = "-".join(_cut(re.sub(r"[^\w.]+", "_", part), 24) for part in root.parts[-2:])
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    how = ("" if resize == "squash" else f"-{resize}") + "-fast" * fast
    return f"{readable}-{image_size}px{how}-{digest[:8]}"


def _cut(name: str, length: int) -> str:
    """As much of a name as has so many bytes: file systems count bytes, and of many letters each has three or four."""
    return os.fsencode(name)[:length].decode(errors="ignore")


def fingerprint(
    index: PictureIndex,
    image_size: int,
    skip_corrupt: bool,
    exif_orientation: bool = False,
    resize: str = "squash",
    *,
    fast: bool = False,
) -> str:
    """A name for the pictures of `index` as they are now: their paths, sizes and times, and how they are decoded.

    Raises:
        UserError: a file is gone or may not be looked at.
    """
    how = f"{FORMAT_VERSION} {PIL.__version__} {image_size} {skip_corrupt} {exif_orientation}"
    if resize != "squash":
        how += f" {resize}"
    if fast:
        how += " fast"
    digest = hashlib.sha256(how.encode())
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
    return f"{name}~{_host()}~{os.getpid()}~{secrets.token_hex(4)}.tmp"


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", platform.node(), flags=re.ASCII)[:64]


def publish(temporary: Path, path: Path) -> None:
    """Give what is written whole its name, in place of what had it: a power failure leaves the one or the other.

    The content must be on the disk before the name, or the name may come to stand for zeros.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        move(temporary, path)
    except PermissionError:
        # Windows does not replace what another process has mapped. The name is that of the content, so it is the same.
        if os.name != "nt" or not path.exists():
            raise
        temporary.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk, where the system has a way to say so."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some file systems of networks refuse
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_abandoned(temporary: Path) -> bool:
    """Whether whoever was writing the temporary file is gone; elsewhere than on this machine, after a day."""
    try:
        _, host, pid, _ = temporary.name.split("~")
        if host == _host() and os.name == "posix":  # on Windows os.kill would end the process
            os.kill(int(pid), 0)  # asks whether it lives
            return False
        return time.time() - temporary.stat().st_mtime > _ABANDONED_AFTER_SECONDS
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # another user's process, a file that is gone, or nobody's name
        return False
