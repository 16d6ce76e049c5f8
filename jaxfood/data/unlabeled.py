"""Which pictures are trained on without labels: none that the run is measured by, whatever folder it stands in."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxfood.config.sections import DataConfig
from jaxfood.data.index import PictureIndex
from jaxfood.data.pictures import Pictures
from jaxfood.data.records import Records
from jaxfood.data.threads import map_in_threads
from jaxfood.data.walk import of_bucket, walk_folder
from jaxfood.errors import UserError
from jaxfood.files import is_remote, list_bucket, read_bytes, reading
from jaxfood.places import is_folder

TEST_FOLDERS = ("test", "testing", "evaluation")  # as the homework's years and the data set itself name it


class Unlabeled(NamedTuple):
    """Positions among the unlabelled pictures of all folders, ascending, and what there is to say, a line each."""

    positions: np.ndarray
    remarks: tuple[str, ...]


def choose_unlabeled(
    root: Path,
    data: DataConfig,
    indexes: Sequence[PictureIndex],
    parts: Sequence[Pictures],
    records: Records,
    held_out: Collection[str] = (),
) -> Unlabeled:
    """Leave out what has the content of a validation picture, or of a picture in a test folder that is not named.

    Args:
        root: of the split folders.
        data: `unlabeled` is read.
        indexes: of the unlabelled pictures, a folder or list each.
        parts: the same decoded.
        records: of the training and validation pictures.
        held_out: digests of more pictures that are validated on.

    Raises:
        UserError: none are left.
    """
    of_split = {split: {each.digest for each in records if each.split == split} for split in ("train", "valid")}
    digests = np.array([digest for part in parts for digest in part.digests])
    remarks = [
        f"data.unlabeled = {data.unlabeled}: {len(digests)} pictures; labels that their names may tell are not read"
    ]
    kept = np.ones(len(digests), bool)

    def leave_out(chosen: np.ndarray, what: str) -> None:
        if count := int(np.sum(kept & chosen)):
            remarks.append(f"left out of the unlabelled pictures: {count} that by the same bytes {what}")
        kept[chosen] = False

    leave_out(_among(digests, of_split["valid"] | set(held_out)), "are validation pictures")
    for folder in _test_folders(root, indexes):
        leave_out(_among(digests, _digests(folder)), f"stand in {folder} (name that folder to train on them)")
    if not kept.any():
        raise UserError(
            f"data.unlabeled = {data.unlabeled}: none is left to train on ({'; '.join(remarks[1:])}): name other "
            "pictures"
        )
    if count := int(np.sum(kept & _among(digests, of_split["train"]))):
        remarks.append(f"of the unlabelled pictures {count} are training pictures too, and count as both")
    return Unlabeled(np.flatnonzero(kept), tuple(remarks))


def _among(digests: np.ndarray, known: Collection[str]) -> np.ndarray:
    """bool [N]"""
    return np.array([digest in known for digest in digests], bool)


def _test_folders(root: Path, indexes: Sequence[PictureIndex]) -> Iterator[Path]:
    """The folders beside the splits that are for testing, but those which the user names, or names a part of."""
    for folder in (root / name for name in TEST_FOLDERS):
        if is_folder(folder) and not any(folder in (index.root, *index.root.parents) for index in indexes):
            yield folder


def _digests(folder: Path) -> set[str]:
    """Those of all pictures in a folder, as `decode.DecodedFile` has them, without decoding any."""
    found = of_bucket(list_bucket(folder)) if is_remote(folder) else walk_folder(folder)
    with closing(map_in_threads(_digest, [folder / name for name in found.pictures])) as digests:
        return set(digests)


def _digest(path: Path) -> str:
    with reading(path):
        return hashlib.blake2b(read_bytes(path), digest_size=16).hexdigest()
