"""Decode once: the pictures of an index as one uint8 array on disk, mapped into memory when it is used again.

The notes' FoodDataset decodes every picture again in every epoch. Here the first run decodes all of them with threads;
later ones stat the files and map the array, which takes milliseconds.

A cache folder holds one entry for each index root and image size. An entry holds one version, named by the fingerprint
of what it was made from and replaced when that changes. So load whole indices, and take subsets of `Pictures`: two
subsets of one root would take turns in its entry.
"""

import io
import json
import os
import threading
import warnings
import weakref
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from tqdm import tqdm

from jaxfood.data.cache_folder import (
    FORMAT_VERSION,
    cache_folder,
    entry_name,
    fingerprint,
    is_abandoned,
    temporary_name,
    writing_to,
)
from jaxfood.data.decode import DecodingError, decode_picture
from jaxfood.data.index import PictureIndex, Positions
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.data.threads import available_cpus, map_in_threads
from jaxfood.errors import UserError
from jaxfood.files import is_remote, reading

_BUCKET_READERS = 32  # threads that mostly wait for the network


class UnreadableError(UserError):
    """Pictures that cannot be decoded; `findings` says which, one text for each index."""

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

    Args:
        index: what to load, one picture at least; see the module's docstring about subsets.
        image_size: side of the square every picture is resized to.
        cache_dir: where entries live; as in `cache_folder.cache_folder`.
        skip_corrupt: leave out pictures that cannot be decoded instead of refusing all; the caller reports `skipped`.
        progress: whether to show a progress bar on standard error while decoding.
        description: the bar's text.

    Raises:
        UnreadableError: some cannot be decoded; all are named.
        UserError: none can be decoded, a file cannot be read, or the cache folder cannot be written to.
    """
    if not len(index):
        raise ValueError("an index of at least one picture is needed")
    entry = _Entry(index, image_size, skip_corrupt, cache_folder(cache_dir))
    if (pictures := entry.read()) is None:
        bar = tqdm(total=len(index), desc=description, unit="picture", disable=not progress)
        # Oddities of single files (EXIF data, very large pictures) are no news to the user if they decode.
        with bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            entry.write(bar)
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

    def read(self) -> Pictures | None:
        """The pictures, or None where they are not cached as they are now, or damaged."""
        try:
            skipped = frozenset(json.loads(self.description.read_text())["skipped"])
            images = np.lib.format.open_memmap(self.array, mode="r")
        except (OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError):
            return None
        is_kept = np.array([str(path) not in skipped for path in self.index.paths])
        kept, left_out = self.index.subset(is_kept), self.index.subset(~is_kept)
        if images.dtype != np.uint8 or images.shape != (len(kept), self.image_size, self.image_size, 3):
            return None
        return Pictures(images, kept.labels, kept.paths, left_out.paths)

    def write(self, bar: tqdm) -> None:
        """Decodes the pictures into this entry, whole or not at all, and removes what it held before."""
        temporary = self.folder / temporary_name(self.fingerprint)
        try:
            with writing_to(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    unreadable = _decode_into(file, self.index.paths, self.image_size, bar)
                self._check(unreadable)
                self.description.write_text(json.dumps(self._describe(unreadable), indent=2))
                os.replace(temporary, self.array)
                self._remove_older()
        except BaseException:
            self._undo(temporary)
            raise

    def _check(self, unreadable: Sequence[Path]) -> None:
        names = ", ".join(self.index.name(path) for path in unreadable)
        if len(unreadable) == len(self.index):
            raise UserError(f"none of the pictures in {self.index.root} can be read ({names}): check the files")
        if unreadable and not self.skip_corrupt:
            raise UnreadableError(
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
            in_use = not is_abandoned(path) if path.suffix == ".tmp" else path in (self.array, self.description)
            if not in_use:
                # Windows refuses to remove an array that another process has mapped.
                with suppress(OSError):
                    path.unlink()


def _decode_into(file: BinaryIO, paths: Sequence[Path], image_size: int, bar: tqdm) -> list[Path]:
    """Writes the pictures to `file` in the order of `paths`, as np.save would; returns those that do not decode.

    Writing in order by plain writes, not into a memory map, leaves no gaps for unreadable pictures and makes a full
    disk an OSError, where a memory map dies of SIGBUS.
    """
    _write_header(file, len(paths), image_size)
    unreadable = []
    threads = max(_BUCKET_READERS, available_cpus()) if is_remote(paths[0]) else 0
    with closing(map_in_threads(lambda path: decode_or_none(path, image_size), paths, threads=threads)) as decoded:
        for path, picture in zip(paths, decoded, strict=True):
            if picture is None:
                unreadable.append(path)
            else:
                file.write(picture.data)
            bar.update()
    file.seek(0)
    _write_header(file, len(paths) - len(unreadable), image_size)
    return unreadable


def _write_header(file: BinaryIO, count: int, image_size: int) -> None:
    # NumPy pads it so that the first dimension can change in place.
    shape = (count, image_size, image_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def decode_or_none(path: Path, image_size: int) -> np.ndarray | None:
    """As `decode_picture`, but None for a file that is no picture."""
    try:
        return decode_picture(path, image_size)
    except DecodingError:
        return None


class CachedPictures(StoredPictures):
    """Pictures in the cache, read from their files.

    Not through the memory map that `load_pictures` gives: all its pages that were once read count as this process's
    memory (until the kernel wants them back), after an epoch the whole data set.
    """

    def __init__(self, parts: Sequence[Pictures], positions: Positions = slice(None)) -> None:
        """Open the files of the cache.

        Args:
            parts: as `load_pictures` gives them; all of one image size.
            positions: which of their pictures, counted through all parts.
        """
        arrays = [part.images for part in parts if isinstance(part.images, np.memmap)]
        if len(arrays) < len(parts):
            raise TypeError("pictures in memory cannot be read from the cache: give them as load_pictures does")
        self._shape = arrays[0].shape[1:]
        # Open as long as somebody may read: a later run may replace a file in the cache, not its content.
        self._files = [io.FileIO(str(array.filename)) for array in arrays]
        for file in self._files:
            weakref.finalize(self, file.close)
        self._cache = Path(str(arrays[0].filename)).parents[1]
        self._lock = threading.Lock()
        offsets = [array.offset + np.arange(len(array)) * array[:1].nbytes for array in arrays]
        self._file_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[positions]
        self._offsets = np.concatenate(offsets)[positions]
        self._labels = np.concatenate([part.labels for part in parts])[positions]
        self.skipped = tuple(path for part in parts for path in part.skipped)

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(positions), *self._shape), np.uint8)
        rows = zip(images, self._file_of[positions], self._offsets[positions], strict=True)
        # A file has one place to read at, for all threads. Locked once for all rows: for each it costs a third more.
        with self._lock, reading(self._cache):
            for image, which, offset in rows:
                self._files[which].seek(offset)
                if self._files[which].readinto(image.data) != image.nbytes:
                    raise UserError(
                        "a file of decoded pictures has been cut short: remove the cache folder and start again"
                    )
        return images, self._labels[positions]
