"""A checkpoint's manifest: the size and checksum of each of its files, to know it again from."""

import hashlib
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxfood.errors import UserError
from jaxfood.files import write_whole

MANIFEST = "manifest.json"
# Orbax' marks that a save came to its end, which say nothing that is restored.
_MARK = "commit_success.txt"
_DIGEST_BYTES = 16
_BLOCK = 1 << 20  # bytes read at a time


def write_manifest(step: Path) -> None:
    """Write the manifest of a checkpoint that is whole.

    Args:
        step: the checkpoint's folder, on this machine.

    Raises:
        OSError: a file cannot be read, or the manifest not be written.
    """
    names = sorted(path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())
    names = [name for name in names if name != MANIFEST and not name.endswith(_MARK)]
    with ThreadPoolExecutor() as threads:  # hashlib lets other threads run: 0.1 s for 100 MB in place of 0.15
        marks = list(threads.map(lambda name: _mark(step / name), names))
    files = dict(zip(names, marks, strict=True))
    write_whole(step / MANIFEST, json.dumps({"files": files, "digest": _digest(files)}, indent=1))


def has_manifest(step: Path) -> bool:
    """Whether a checkpoint can be checked: not that of an earlier version, nor one killed before it was written."""
    return is_there(step / MANIFEST)


def is_there(path: Path) -> bool:
    """Whether there is a file or folder; pathlib says no where the disk only fails to answer.

    Raises:
        UserError: that cannot be told.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def find_damage(step: Path, items: Collection[str]) -> str:
    """What is not as it was when a checkpoint was written: "FILE: what is wrong", of the first such file, or "".

    Args:
        step: the checkpoint's folder, which has a manifest.
        items: whose files are looked at; those that belong to the whole checkpoint always are.

    Raises:
        UserError: a file is there and cannot be read.
    """
    try:
        files = _read(step / MANIFEST)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST}: other content; without this file the checkpoint is read unchecked"
    names = [name for name in files if "/" not in name or name.partition("/")[0] in items]
    with ThreadPoolExecutor() as threads:
        problems = threads.map(lambda name: _compare(step / name, *files[name]), names)
        return next((f"{name}: {problem}" for name, problem in zip(names, problems, strict=True) if problem), "")


def _read(path: Path) -> dict[str, tuple[int, str]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    files: dict[str, tuple[int, str]] = content["files"]
    if content["digest"] != _digest(files):
        raise ValueError("the manifest is damaged itself")
    return files


def _compare(path: Path, size: int, digest: str) -> str:
    """How a file differs from what it was, or ""."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} of {size} bytes" if found < size else f"{found} bytes, not {size}"
        return "" if _mark(path) == (size, digest) else "other content"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except IsADirectoryError:
        return "a folder in its place"
    except OSError as error:
        raise _unreadable(path, error) from error


def _mark(path: Path) -> tuple[int, str]:
    """Size in bytes and checksum."""
    size, digest = 0, hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


def _digest(files: dict[str, tuple[int, str]]) -> str:
    return hashlib.blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path} ({error.strerror or error}): mend that, as it belongs to a checkpoint")
