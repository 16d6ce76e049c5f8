"""What stands at a path that a user named, and whether something can be written there: asked so that no answer raises.

pathlib's `exists`, `is_file` and `is_dir` raise OSError where a folder above may not be searched or a name is too long
(Python 3.11 to 3.13), or say that nothing is there (3.14).
"""

import difflib
import os
import stat
import tempfile
import unicodedata
from pathlib import Path
from typing import cast

from jaxfood.errors import UserError, shown, written_otherwise
from jaxfood.files import absolute, is_remote, reading, reason

_LONGEST_NAME = 255  # bytes, on every common disk
_MOST_COMPARED = 1000  # names of a folder, for slips of the finger
_ALIKE = 0.75  # difflib's ratio: "tset" and "test" have it, "valid" and "train" have not


def kind(path: str | Path) -> str:
    """What stands at a path: "file", "folder", "other" (a device, a pipe), or "" where there is nothing.

    Of a link: what it leads to.

    Raises:
        UserError: it cannot be told, and why.
    """
    if is_remote(path):
        with reading(path):
            remote = cast(Path, path)
            return "folder" if remote.is_dir() else "file" if remote.exists() else ""
    if "\0" in os.fspath(path):
        raise UserError(f"{shown(os.fspath(path))}: no path holds a null byte; write it anew")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise UserError(
            f"{path}: what is there cannot be seen ({reason(error)}); mend that, or name another"
        ) from error
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def is_folder(path: str | Path) -> bool:
    """Whether a folder stands there; errors as of `kind`."""
    return kind(path) == "folder"


def is_file(path: str | Path) -> bool:
    """Whether a file stands there; errors as of `kind`."""
    return kind(path) == "file"


def exists(path: str | Path) -> bool:
    """Whether anything stands there; errors as of `kind`."""
    return bool(kind(path))


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name.

    Raises:
        UserError: it may not be listed, or is none.
    """
    with reading(folder):
        return sorted(folder.iterdir())


def similar(path: Path) -> str:
    """Where a path is not there: the name in its folder that may have been meant; "" if there is none.

    One that differs by case or by the way accents are written comes before one that differs by a slip of the finger.
    """
    try:
        there = os.listdir(path.parent)
    except OSError:
        return ""
    names = [name for name in there if _folded(name) == _folded(path.name)]
    if not names and len(there) <= _MOST_COMPARED:
        names = difflib.get_close_matches(path.name, there, n=1, cutoff=_ALIKE)
    return "".join(f": did you mean {name}{written_otherwise(path.name, name)}?" for name in names[:1])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def check_writable_file(path: Path, flag: str) -> None:
    """Check, before the work, that a file can be written at the end of it.

    Args:
        path: of the file, there or not.
        flag: what it was given as, for messages: `--out`.

    Raises:
        UserError: it is a folder, its folder is not there or may not be written to, or its name is too long.
    """
    if is_remote(path):
        return
    _check_length(path, flag)
    what = kind(path)
    if what == "folder":
        raise UserError(f"{flag} {path}: this is a folder; name a file in it, such as {path / 'NAME'}")
    if what == "other":
        return
    folder = Path(os.path.realpath(path)).parent
    if not is_folder(folder):
        raise UserError(f"{flag} {path}: there is no folder {folder}{similar(folder)}; make it first")
    _check_writable(folder, flag)


def check_writable_folder(path: Path, flag: str) -> None:
    """Check, before the work, that a folder can be made if it is not there, and files in it.

    Raises:
        UserError: it or one above it is a file, or may not be written to, or a name is too long.
    """
    if is_remote(path):
        return
    _check_length(path, flag)
    nearest = next(folder for folder in (absolute(path), *absolute(path).parents) if exists(folder))
    if not is_folder(nearest):
        it = "it" if nearest == absolute(path) else str(nearest)
        raise UserError(f"cannot write to {path} ({it} is a file); choose another {flag}")
    _check_writable(nearest, flag)


def check_work_directory(path: Path) -> None:
    """As `check_writable_folder`, of a run's, whose checkpoints Orbax writes.

    Raises:
        UserError: also where its full name is not UTF-8, which Orbax and TensorStore cannot write below.
    """
    try:
        os.fspath(absolute(path)).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--workdir {path}: checkpoints cannot be written below a folder whose name is not UTF-8 "
            f"({absolute(path)}); choose another, or make a link to it (ln -s)"
        ) from None
    check_writable_folder(path, "--workdir")


def _check_length(path: Path, flag: str) -> None:
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise UserError(f"cannot write to {path} (a name is longer than {_LONGEST_NAME} bytes); choose another {flag}")


def _check_writable(folder: Path, flag: str) -> None:
    """By doing it: what permissions say is not the whole truth (a disk that can only be read, root, Windows)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({reason(error)}); choose another {flag}") from error
