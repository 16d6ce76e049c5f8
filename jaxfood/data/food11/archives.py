"""What people have of Food-11, a ZIP or tar archive or a folder, read without trusting it: nothing is written here.

Names in an archive are texts that anybody may have written, and so are the sizes that it declares. Names that lead out
of the folder are refused, links and devices are passed over, and no more is read of a member than it declares.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from jaxfood.data.signatures import describe_foreign
from jaxfood.data.walk import walk_folder
from jaxfood.errors import UserError, shown
from jaxfood.files import reading

# Of one source. All of Food-11 are 16,643 files of 1.2 GB, the largest one of some megabytes.
MAX_FILES = 500_000
MAX_BYTES = 32 * 2**30
MAX_FILE_BYTES = 256 * 2**20

_MAX_READ = 16 * 2**20  # at once, of a tar: its headers may declare any length, which tarfile reads into memory
_DECOMPRESS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_RESERVED = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)', re.I)  # on Windows


class Member(NamedTuple):
    """A file in a source: its path there, with `/`, and its size in bytes as declared."""

    name: str
    size: int


class Source(Protocol):
    """Where pictures come from.

    Attributes:
        path: of the archive or folder.
        passed_over: how many entries of each kind are no files, in words.
    """

    path: Path
    passed_over: Counter[str]

    def members(self) -> list[Member]:
        """Every file in it."""

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[Member, bytes]]:
        """Every file of these names and what it holds, in the source's own order."""


def open_archive(path: Path) -> Source | None:
    """The archive that a file is, told by its first bytes; None where it is none of those that are read here.

    Raises:
        UserError: it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        start = file.read(512)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return ZipSource(path)
    for mark, decompress in _DECOMPRESS.items():
        if start.startswith(mark):
            return TarSource(path, decompress)
    if start[257:262] == b"ustar":
        return TarSource(path, lambda path: path.open("rb"))
    return None


def refuse_file(path: Path) -> UserError:
    """For a file that is no archive: what it is instead."""
    with reading(path), path.open("rb") as file:
        what = describe_foreign(file.read(1000)).replace("fetch the picture again", "fetch the archive again")
    mend = "unpack it with its own program, and name the folder" if "archive" in what else "name another"
    again = "" if "again" in what else f"; {mend}"
    return UserError(f"--from {path}: no .zip, .tar, .tar.gz or .parquet file, but {what}{again}")


class FolderSource:
    """A folder that was unpacked already; links in it are followed, as a training follows them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over: Counter[str] = Counter()

    def members(self) -> list[Member]:
        """Its pictures."""
        found = walk_folder(self.path)
        self.passed_over = found.passed_over.copy()
        with reading(self.path):
            return [Member(name, (self.path / name).stat().st_size) for name in found.pictures]

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[Member, bytes]]:
        """As `Source` has it."""
        for name in wanted:
            with reading(self.path / name):
                content = (self.path / name).read_bytes()
            yield Member(name, len(content)), content


class ZipSource:
    """A ZIP archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over: Counter[str] = Counter()

    def members(self) -> list[Member]:
        """As `Source` has it."""
        self.passed_over.clear()
        with _undamaged(self.path), zipfile.ZipFile(self.path) as archive:
            return list(self._files(archive))

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[Member, bytes]]:
        """As `Source` has it; zipfile compares each file with its checksum."""
        names = set(wanted)
        with _undamaged(self.path), zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                member = Member(plain_name(self.path, info.filename), info.file_size)
                if member.name in names and not info.is_dir():
                    with archive.open(info) as file:
                        yield member, _read(self.path, member, file)

    def _files(self, archive: zipfile.ZipFile) -> Iterator[Member]:
        limits = _Limits(self.path)
        for info in archive.infolist():
            name = plain_name(self.path, info.filename)
            mode = info.external_attr >> 16  # as Unix has it, where the archive was made there
            if info.is_dir() or info.filename.endswith("\\"):
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                self.passed_over["links or devices"] += 1
                continue
            if info.flag_bits & 1:
                raise UserError(f"{self.path} is protected by a password: unpack it yourself, and name the folder")
            yield limits.counted(Member(name, info.file_size))


class TarSource:
    """A tar archive, compressed or not. A compressed one is read from its start twice: to list it, and to unpack."""

    def __init__(self, path: Path, decompress: Callable[[Path], Any]) -> None:
        self.path = path
        self.passed_over: Counter[str] = Counter()
        self._decompress = decompress

    def members(self) -> list[Member]:
        """As `Source` has it."""
        self.passed_over.clear()
        return [member for member, _ in self._files(lambda member: False)]

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[Member, bytes]]:
        """As `Source` has it."""
        names = set(wanted)
        for member, content in self._files(lambda member: member.name in names):
            if content is not None:
                yield member, content

    def _files(self, is_wanted: Callable[[Member], bool]) -> Iterator[tuple[Member, bytes | None]]:
        """Every file, and the content of those that are wanted."""
        limits = _Limits(self.path)
        with _undamaged(self.path), self._decompress(self.path) as stream:
            bounded = _Bounded(self.path, stream)
            archive = tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:")  # noqa: SIM115  # holds nothing itself
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps them all
                name = plain_name(self.path, info.name)
                member = limits.counted(Member(name, info.size))  # before tarfile reads on to what follows it
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    self.passed_over["links or devices"] += 1
                    continue
                file = archive.extractfile(info) if is_wanted(member) else None
                yield member, None if file is None else _read(self.path, member, file)
            if bounded.last != bytes(512):  # tarfile takes an archive that is cut between two files for whole
                raise _cut_short(self.path)
            bounded.read_on()


class _Bounded:
    """What tarfile needs of a file, and no more at once than a file may have.

    Attributes:
        last: what was read last.
    """

    def __init__(self, path: Path, stream: Any) -> None:
        self._path, self._stream = path, stream
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise UserError(f"{self._path}: a header of it declares {size:,} bytes: this is no archive of pictures")
        self.last = self._stream.read(size)
        return self.last

    def read_on(self) -> None:
        """Read what is behind the last file, some padding, where decompressors compare their checksums."""
        if self._stream.read(_MAX_READ) and self._stream.read(1):
            raise UserError(f"{self._path} goes on for more than {_MAX_READ:,} bytes behind its end: not unpacked")


class _Limits:
    """What the members of a source come to so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = self._bytes = 0

    def counted(self, member: Member) -> Member:
        """Count a member, and hand it on.

        Raises:
            UserError: it, or all together, are more than a data set of photographs has.
        """
        self._files += 1
        self._bytes += member.size
        if self._files > MAX_FILES:
            raise UserError(f"{self._path} holds more than {MAX_FILES:,} files: not unpacked; unpack it yourself")
        if self._bytes > MAX_BYTES:
            raise UserError(
                f"{self._path} would take more than {MAX_BYTES // 2**30} GiB (at {shown(member.name)}): not unpacked; "
                "if that is right, unpack it yourself and name the folder"
            )
        return member


def _read(path: Path, member: Member, file: IO[bytes]) -> bytes:
    if member.size > MAX_FILE_BYTES:
        raise UserError(
            f"{path}: {shown(member.name)} has {member.size / 2**20:,.0f} MiB, where {MAX_FILE_BYTES // 2**20} are the "
            "most of a picture; unpack it yourself and name the folder"
        )
    parts, left = [], member.size
    while left and (part := file.read(min(left, _MAX_READ))):
        parts.append(part)
        left -= len(part)
    if left:
        raise _cut_short(path)
    return b"".join(parts)


def plain_name(path: Path, name: str) -> str:
    """A member's path with `/`, without `./`.

    Raises:
        UserError: it leads out of the folder that the archive is unpacked in, or no file can be called so here.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts or "\0" in plain or re.match(r"[A-Za-z]:", plain):
        raise UserError(
            f"{path}: {shown(name)} leads out of the folder, as no honest archive does: nothing is unpacked"
        )
    if os.name == "nt" and (bad := next(filter(_RESERVED.search, parts), "")):
        raise UserError(f"{path}: Windows takes no file called {shown(bad)}: unpack it yourself, under another name")
    return "/".join(parts)


def _cut_short(path: Path) -> UserError:
    return UserError(f"{path} is damaged or cut short, as an interrupted download leaves: fetch it again")


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turns what the readers raise of a damaged archive into UserError; a disk that fails is said as such."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except NotImplementedError as error:
        raise UserError(f"{path}: {error}: unpack it with its own program, and name the folder") from error
    except OSError as error:
        if error.errno:
            with reading(path):
                raise
        raise _cut_short(path) from error
    except Exception as error:  # on damaged bytes zipfile, tarfile and the decompressors raise whatever Python knows
        raise _cut_short(path) from error
