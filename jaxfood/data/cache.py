"""Decode once: the pictures of an index as one uint8 array on disk, mapped into memory when it is used again.

The notes' FoodDataset decodes every picture again in every epoch. Here the first run decodes all of them with threads;
later ones stat the files and map the array, which takes milliseconds. Several processes that see the same cache folder
decode a share each; where they do not, each decodes all for itself.

A cache folder holds one entry for each index root and image size. An entry holds one version, named by the fingerprint
of what it was made from and replaced when that changes. So load whole indices, and take subsets of `Pictures`: two
subsets of one root would take turns in its entry.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from tqdm import tqdm

from jaxfood import processes
from jaxfood.data import array_file
from jaxfood.data.cache_folder import (
    FORMAT_VERSION,
    cache_folder,
    entry_name,
    fingerprint,
    is_abandoned,
    temporary_name,
    writing_to,
)
from jaxfood.data.decode import UNREADABLE, decode_picture
from jaxfood.data.index import PictureIndex
from jaxfood.data.pictures import Pictures
from jaxfood.data.threads import available_cpus, map_in_threads
from jaxfood.errors import UserError
from jaxfood.files import is_remote

_BUCKET_READERS = 32  # threads that mostly wait for the network


class UnreadablePictures(UserError):
    """Pictures that cannot be read; `findings` says which, one text for each index."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("; ".join(findings) + ": mend or remove them, or set data.skip_corrupt = true")
        self.findings = tuple(findings)


def load_pictures(
    index: PictureIndex,
    image_size: int,
    *,
    cache_dir: str | Path = "",
    skip_corrupt: bool = False,
    progress: bool = True,
    description: str = "decoding",
) -> Pictures:
    """The pictures of `index`, each as uint8 [H, W, 3] with H = W = `image_size`, decoded at the first call only.

    Several processes must all call it, within `processes.together`.

    Args:
        index: what to load, one picture at least; see the module's docstring about subsets.
        image_size: side of the square every picture is resized to.
        cache_dir: where entries live; as in `cache_folder.cache_folder`.
        skip_corrupt: leave unreadable pictures out instead of refusing all; the caller reports `skipped`.
        progress: whether to show a progress bar on standard error while decoding.
        description: the bar's text.

    Raises:
        UnreadablePictures: some cannot be read; all are named.
        UserError: none can be read, or the cache folder cannot be written to.
    """
    if not len(index):
        raise ValueError("an index of at least one picture is needed")
    entry = _Entry(index, image_size, skip_corrupt, cache_folder(cache_dir))
    pictures = entry.find()
    if pictures is None:
        own = entry.own_paths()
        bar = tqdm(total=len(own), desc=description, unit="picture", disable=not progress)
        # Oddities of single files (EXIF data, very large pictures) are no news to the user if they decode.
        with bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            entry.write(own, bar)
        pictures = entry.read()
    if pictures is None:
        raise UserError(f"{entry.folder} cannot be read back: set data.cache_dir to a folder on a local disk")
    return pictures


class _Entry:
    """The place of an index in the cache, and the version of it that the files make now.

    `FINGERPRINT.json` is written before `FINGERPRINT.npy` is renamed into place, so a present array is a whole one.
    """

    def __init__(self, index: PictureIndex, image_size: int, skip_corrupt: bool, cache: Path) -> None:
        self.index, self.image_size, self.skip_corrupt = index, image_size, skip_corrupt
        self.folder = cache / entry_name(index.root, image_size)
        self.fingerprint = fingerprint(index, image_size, skip_corrupt)
        self.array = self.folder / f"{self.fingerprint}.npy"
        self.description = self.folder / f"{self.fingerprint}.json"
        self.shared = self._is_shared()
        self.publishes = not self.shared or processes.is_first()

    def _is_shared(self) -> bool:
        """Whether this is the entry of other processes too."""
        if processes.count() == 1 or not processes.share_folder(self.folder.parent):
            return False
        arrays = set(processes.share(str(self.array)))
        if len({os.path.dirname(array) for array in arrays}) < len(arrays):
            raise UserError(
                f"the processes see other pictures, or other times of their files, in {self.index.root}: give them one "
                "data.root on a shared disk, or each a data.cache_dir on a disk of its own"
            )
        return len(arrays) == 1

    def find(self) -> Pictures | None:
        """The pictures, or None where they must be decoded; of a shared entry in all processes or in none."""
        # The first alone looks: a network disk remembers for a while that a file was not there.
        pictures = self.read() if self.publishes else None
        if not self.shared:
            return pictures
        found, *_ = processes.share("" if pictures is None else "found")
        return self.read() if found else None

    def own_paths(self) -> Sequence[Path]:
        """What this process decodes: all, or one of as many runs of the index as there are processes."""
        if not self.shared:
            return self.index.paths
        first, last = (len(self.index) * end // processes.count() for end in (processes.index(), processes.index() + 1))
        return self.index.paths[first:last]

    def read(self) -> Pictures | None:
        """The pictures, or None where they are not cached as they are now, or damaged."""
        try:
            skipped = frozenset(json.loads(self.description.read_text())["skipped"])
            images = np.lib.format.open_memmap(self.array, mode="r")
        except (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError):
            return None
        paths = self.index.paths
        kept = np.array([str(path) not in skipped for path in paths])
        if images.dtype != np.uint8 or images.shape != (kept.sum(), self.image_size, self.image_size, 3):
            return None
        return Pictures(
            images,
            self.index.labels[kept],
            tuple(path for path, keep in zip(paths, kept, strict=True) if keep),
            tuple(path for path, keep in zip(paths, kept, strict=True) if not keep),
        )

    def write(self, own: Sequence[Path], bar: tqdm) -> None:
        """Decodes the pictures into this entry, whole or not at all, and removes what it held before.

        Each process decodes `own` into a file; of a shared entry the first then appends the others' to its.
        """
        temporary = self.folder / temporary_name(self.fingerprint)
        try:
            with writing_to(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    unreadable = _decode_into(file, own, self.image_size, bar)
            parts = [temporary]
            if self.shared:
                parts, unreadable = self._all_parts(temporary, unreadable)
            self._check(unreadable)
            with processes.together() if self.shared else nullcontext(), writing_to(self.folder):
                if self.publishes:
                    array_file.append(temporary, parts[1:])
                    self.description.write_text(json.dumps(self._describe(unreadable), indent=2))
                    os.replace(temporary, self.array)
                    self._remove_older()
        except BaseException:
            self._undo(temporary)
            raise
        temporary.unlink(missing_ok=True)  # a part that was appended

    def _all_parts(self, own: Path, unreadable: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """The files of all processes and the unreadable pictures of all, in the order of the index."""
        said = [json.loads(text) for text in processes.share(json.dumps([own.name, *map(str, unreadable)]))]
        names = {name for _, *names in said for name in names}
        return [self.folder / name for name, *_ in said], [path for path in self.index.paths if str(path) in names]

    def _check(self, unreadable: Sequence[Path]) -> None:
        names = ", ".join(self.index.name(path) for path in unreadable)
        if len(unreadable) == len(self.index):
            raise UserError(f"none of the pictures in {self.index.root} can be read ({names}): check the files")
        if unreadable and not self.skip_corrupt:
            raise UnreadablePictures(
                [f"{len(unreadable)} of the {len(self.index)} pictures in {self.index.root} cannot be read: {names}"]
            )

    def _describe(self, unreadable: Sequence[Path]) -> dict[str, object]:
        return {
            "root": str(self.index.root),
            "pictures": len(self.index),
            "image_size": self.image_size,
            "skip_corrupt": self.skip_corrupt,
            "skipped": [str(path) for path in unreadable],
            "format_version": FORMAT_VERSION,
            "pillow": PIL.__version__,
        }

    def _undo(self, temporary: Path) -> None:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            if not self.array.exists():
                self.description.unlink(missing_ok=True)
            self.folder.rmdir()  # fails, as it should, where an older version remains

    def _remove_older(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix == ".tmp" and not is_abandoned(path):
                continue
            if path not in (self.array, self.description):
                # Windows refuses to remove an array that another process has mapped.
                with suppress(OSError):
                    path.unlink()


def _decode_into(file: BinaryIO, paths: Sequence[Path], image_size: int, bar: tqdm) -> list[Path]:
    """Writes the pictures to `file` in the order of `paths`, as np.save would; returns the unreadable ones.

    Writing in order by plain writes, not into a memory map, leaves no gaps for unreadable pictures and makes a full
    disk an OSError, where a memory map dies of SIGBUS.
    """
    array_file.write_header(file, len(paths), image_size)
    unreadable = []
    threads = max(_BUCKET_READERS, available_cpus()) if paths and is_remote(paths[0]) else 0
    with closing(map_in_threads(lambda path: _decode_or_none(path, image_size), paths, threads)) as decoded:
        for path, picture in zip(paths, decoded, strict=True):
            if picture is None:
                unreadable.append(path)
            else:
                file.write(picture.data)
            bar.update()
    file.seek(0)
    array_file.write_header(file, len(paths) - len(unreadable), image_size)
    return unreadable


def _decode_or_none(path: Path, image_size: int) -> np.ndarray | None:
    try:
        return decode_picture(path, image_size)
    except UNREADABLE:
        return None
