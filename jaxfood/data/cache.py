"""Decode once: the pictures of an index as one uint8 array on disk, mapped into memory when it is used again.

The notes' FoodDataset decodes every picture again in every epoch. Here the first run decodes all of them with threads;
later ones stat the files and map the array, which takes milliseconds.

A cache folder holds one entry for each index root, image size and way to resize and to decode. An entry holds one
version, named by the fingerprint of what it was made from and replaced when that changes. So load whole indices, and
take subsets of `Pictures`: two subsets of one root would take turns in its entry.
"""

import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from tqdm.auto import tqdm

from jaxfood.data.cache_folder import (
    FORMAT_VERSION,
    cache_folder,
    entry_name,
    fingerprint,
    is_abandoned,
    publish,
    temporary_name,
    writing_to,
)
from jaxfood.data.decode import decode_file_or_reason
from jaxfood.data.index import PictureIndex
from jaxfood.data.pictures import Pictures, list_unreadable
from jaxfood.data.threads import available_cpus, map_in_threads
from jaxfood.errors import UserError
from jaxfood.files import is_remote

_BUCKET_READERS = 32  # threads that mostly wait for the network
_NAMED = 10  # unreadable pictures in a message; of more there is a list
_TRIES = 3
_MOVES_WHAT_IS_MAPPED = os.name == "posix"  # Windows does not


class UnreadableError(UserError):
    """Pictures that cannot be decoded; `findings` says which and why, one text for each index."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("; ".join(findings) + ": mend or remove them, or set data.skip_corrupt = true")
        self.findings = tuple(findings)


def load_pictures(
    index: PictureIndex,
    image_size: int,
    *,
    cache_dir: str | Path = "",
    skip_corrupt: bool = False,
    exif_orientation: bool = False,
    resize: str = "squash",
    fast: bool = False,
    progress: bool = True,
    description: str = "decoding",
) -> Pictures:
    """The pictures of `index`, each as uint8 [H, W, 3] with H = W = `image_size`, decoded at the first call only.

    Several processes may load, change and remove the same entry at the same time: each gets the pictures as they were
    when it called.

    Args:
        index: what to load, one picture at least; see the module's docstring about subsets.
        image_size: side of the square every picture is resized to.
        cache_dir: where entries live; as in `cache_folder.cache_folder`.
        skip_corrupt: leave out pictures that cannot be decoded instead of refusing all; the caller reports `skipped`.
        exif_orientation: turn pictures as their EXIF data say; the caller reports `oriented`.
        resize: as `data.resize` has it.
        fast: as `data.decode = "fast"` has it.
        progress: whether to show a progress bar on standard error while decoding.
        description: the bar's text.

    Raises:
        UnreadableError: some cannot be decoded; the first are named with their reasons, and a file has all.
        UserError: none can be decoded, a file cannot be read, or the cache folder cannot be written to.
    """
    if not len(index):
        raise ValueError("an index of at least one picture is needed")
    entry = _Entry(index, image_size, skip_corrupt, exif_orientation, resize, fast, cache_folder(cache_dir))
    for _ in range(_TRIES):
        if (pictures := entry.read()) is not None:
            return pictures
        bar = tqdm(total=len(index), desc=description, unit="picture", disable=not progress)
        # Oddities of single files (EXIF data, very large pictures) are no news to the user if they decode.
        with bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            pictures = entry.write(bar)
        if pictures is not None:
            return pictures
    if (pictures := entry.read()) is not None:
        return pictures
    raise UserError(
        f"{entry.folder}: decoded {_TRIES} times and never there to be read back: another process may be removing it; "
        "set data.cache_dir to a folder of this run's own, on a local disk"
    )


@dataclass
class _Found:
    """What decoding found, besides pixels: reasons of the unreadable, digests of the others, how many are turned."""

    skipped: dict[Path, str] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    oriented: int = 0


class _Entry:
    """The place of an index in the cache, and the version of it that the files make now.

    `FINGERPRINT.npy`, then `FINGERPRINT.json` get their names when they are whole and on the disk.
    """

    def __init__(
        self,
        index: PictureIndex,
        image_size: int,
        skip_corrupt: bool,
        exif_orientation: bool,
        resize: str,
        fast: bool,
        cache: Path,
    ) -> None:
        self.index, self.image_size = index, image_size
        self.skip_corrupt, self.exif_orientation, self.resize = skip_corrupt, exif_orientation, resize
        self.fast = fast
        self.folder = cache / entry_name(index.root, image_size, resize, fast=fast)
        self.fingerprint = fingerprint(index, image_size, skip_corrupt, exif_orientation, resize, fast=fast)
        self.array = self.folder / f"{self.fingerprint}.npy"
        self.description = self.folder / f"{self.fingerprint}.json"

    def read(self) -> Pictures | None:
        """The pictures, or None where they are not cached as they are now, or damaged."""
        try:
            described = json.loads(self.description.read_bytes())
            reasons = {str(name): str(reason) for name, reason in described["skipped"].items()}
            skipped = {path: reasons[str(path)] for path in self.index.paths if reasons and str(path) in reasons}
            found = _Found(skipped, [str(digest) for digest in described["digests"]], int(described["oriented"]))
            with self.array.open("rb") as file:
                return self._map(file, found)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, bar: tqdm) -> Pictures | None:
        """Decodes the pictures into this entry, whole or not at all, and removes what it held before.

        Returns them, whatever other processes do to the entry meanwhile; None where the system needs them read back.
        """
        array, description = (self.folder / temporary_name(path.name) for path in (self.array, self.description))
        try:
            with writing_to(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with array.open("w+b") as file:
                    found = self._decode_into(file, bar)
                    self._check(found.skipped)
                    description.write_text(json.dumps(self._describe(found), indent=2), encoding="ascii")
                    file.flush()
                    # Mapped as long as it is ours alone: another version may take its place as soon as it has its name.
                    pictures = self._map(file, found) if _MOVES_WHAT_IS_MAPPED else None
                publish(array, self.array)
                publish(description, self.description)
                with suppress(OSError):  # leftovers are no reason to stop
                    self._remove_older()
        except BaseException:
            self._undo(array, description)
            raise
        return pictures

    def _decode_into(self, file: BinaryIO, bar: tqdm) -> _Found:
        """Writes the pictures to `file` in the order of the index, as np.save would.

        Writing in order by plain writes, not into a memory map, leaves no gaps for unreadable pictures and makes a full
        disk an OSError, where a memory map dies of SIGBUS.
        """
        paths, found = self.index.paths, _Found()
        file.write(_header(len(paths), self.image_size))
        threads = max(_BUCKET_READERS, available_cpus()) if is_remote(paths[0]) else 0
        decode = partial(
            decode_file_or_reason,
            image_size=self.image_size,
            exif_orientation=self.exif_orientation,
            resize=self.resize,
            fast=self.fast,
        )
        with closing(map_in_threads(decode, paths, threads=threads)) as decoded:
            for path, picture in zip(paths, decoded, strict=True):
                if isinstance(picture, str):
                    found.skipped[path] = picture
                else:
                    file.write(picture.pixels.data)
                    found.digests.append(picture.digest)
                    found.oriented += picture.orientation != 1
                bar.update()
        file.seek(0)
        file.write(_header(len(found.digests), self.image_size))
        return found

    def _map(self, file: BinaryIO, found: _Found) -> Pictures | None:
        """The pictures in an open file, or None where it is not what is described."""
        kept = self.index
        if found.skipped:
            kept = kept.subset(np.array([path not in found.skipped for path in kept.paths]))
        header = _header(len(kept), self.image_size)
        shape = (len(kept), self.image_size, self.image_size, 3)
        file.seek(0)
        if file.read(len(header)) != header or len(kept) != len(found.digests):
            return None
        if os.fstat(file.fileno()).st_size != len(header) + int(np.prod(shape, dtype=np.int64)):
            return None
        images = np.memmap(file, np.uint8, "r", len(header), shape)
        images.filename = str(self.array)
        return Pictures(images, kept.labels, kept.paths, found.skipped, tuple(found.digests), found.oriented)

    def _check(self, unreadable: Mapping[Path, str]) -> None:
        named = {self.index.name(path): reason for path, reason in unreadable.items()}
        if unreadable and (len(unreadable) == len(self.index) or not self.skip_corrupt):
            listed = list_unreadable(named, _NAMED) + self._write_list(named)
            if len(unreadable) == len(self.index):
                raise UserError(f"none of the pictures in {self.index.root} can be read: {listed}: check the files")
            counted = f"{len(unreadable)} of the {len(self.index)} pictures"
            raise UnreadableError([f"{counted} in {self.index.root} cannot be read: {listed}"])

    def _write_list(self, named: Mapping[str, str]) -> str:
        """Writes the names and reasons, where a message would not hold them, into this entry; says where."""
        path = self.folder / "unreadable.txt"
        if len(named) <= _NAMED:
            return ""
        lines = (f"{name}: {reason}".replace("\n", "\\n") for name, reason in named.items())
        try:
            path.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
        except OSError:  # a full disk: what is wrong with the pictures is told all the same
            return ""
        return f", all listed in {path}"

    def _describe(self, found: _Found) -> dict[str, object]:
        return {
            "root": str(self.index.root),
            "pictures": len(self.index),
            "image_size": self.image_size,
            "skip_corrupt": self.skip_corrupt,
            "exif_orientation": self.exif_orientation,
            "resize": self.resize,
            "fast": self.fast,
            "skipped": {str(path): reason for path, reason in found.skipped.items()},
            "oriented": found.oriented,
            "format_version": FORMAT_VERSION,
            "pillow": PIL.__version__,
            "digests": found.digests,
        }

    def _undo(self, *temporaries: Path) -> None:
        with suppress(OSError):
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)
            if not self.description.exists():
                self.array.unlink(missing_ok=True)
            self.folder.rmdir()  # fails, as it should, where an older version remains

    def _remove_older(self) -> None:
        for path in self.folder.iterdir():
            in_use = not is_abandoned(path) if path.suffix == ".tmp" else path in (self.array, self.description)
            if not in_use:
                # Windows refuses to remove an array that another process has mapped.
                with suppress(OSError):
                    path.unlink()


def _header(count: int, image_size: int) -> bytes:
    """What np.save writes before so many pictures. NumPy pads it so that the first dimension can change in place."""
    file = io.BytesIO()
    shape = (count, image_size, image_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()
