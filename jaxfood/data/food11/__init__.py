"""Food-11 as people have it (the years' archives, folders, .parquet files) made into a data folder for training.

The folder has the notes' names whatever the archive's: `train/`, `valid/`, `test/` and, of 2021, `unlabeled/`.
"""

import glob
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from jaxfood.data.cache_folder import is_abandoned, sync_folder, temporary_name
from jaxfood.data.food11.archives import FolderSource, Source, open_archive, refuse_file
from jaxfood.data.food11.layout import Layout, lay_out
from jaxfood.data.food11.parquet import ParquetSource
from jaxfood.data.food11.years import SPLITS, compare, counted
from jaxfood.data.index import counted as counted_kinds
from jaxfood.data.walk import walk_folder
from jaxfood.errors import UserError, first_few
from jaxfood.files import absolute, move, reading, reason, write_whole
from jaxfood.places import check_writable_folder, entries, exists, is_folder, kind, similar

MARK = "food11.json"  # in the folder that is made: what it was made of, and how many pictures it has
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".parquet")
_SPARE = 64 * 2**20  # bytes that are left free on the disk
_BLOCK = 4096  # of a disk: each file takes whole ones


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """What is to be read, of archives, .parquet files, and folders of pictures or of those.

    Raises:
        UserError: nothing is there, or something that is not read here.
    """
    files = [path for given in paths for path in _files_of(given)]
    sources: list[Source] = []
    rows: dict[str, int] = {}  # of the .parquet files of a split so far
    for path in files:
        if is_folder(path):
            sources.append(FolderSource(path))
        elif path.suffix.lower() == ".parquet":
            split = path.name.partition("-")[0]
            parquet = ParquetSource(path, first=rows.get(split, 0))
            rows[split] = rows.get(split, 0) + parquet.rows()
            sources.append(parquet)
        elif archive := open_archive(path):
            sources.append(archive)
        else:
            raise refuse_file(path)
    return sources


def _files_of(path: Path) -> list[Path]:
    """The path itself, or the archives in a folder that holds no pictures, a downloaded repository for instance."""
    what = kind(path)
    if not what:
        raise UserError(
            f"--from {path}: nothing is there{similar(path)}; without --from this command says what to fetch by hand"
        )
    if what == "folder" and not walk_folder(path).pictures:
        inside = [path, *(entry for entry in entries(path) if is_folder(entry))]
        archives = [file for folder in inside for file in entries(folder) if file.name.lower().endswith(_ARCHIVES)]
        if not archives:
            raise UserError(f"--from {path}: neither pictures nor archives ({', '.join(_ARCHIVES)}) are in it")
        return archives
    return [path]


def look(sources: Sequence[Source]) -> list[str]:
    """What the sources hold, in lines, without unpacking anything; with the command to train on it where it stands."""
    layout = lay_out(sources)
    lines = _describe(layout)
    standing = {split: Path(source.path) / folder for split, (source, folder) in layout.folders.items()}
    if all(isinstance(source, FolderSource) for source in sources) and len(sources) == 1:
        return [*lines, *commands(sources[0].path, standing)]
    return [*lines, "unpack it with --out DIR"]


def unpack(sources: Sequence[Source], out: Path) -> list[str]:
    """Make the data folder of the sources, whole or not at all, and say what it is, in lines.

    Written beside its place, under a name of its own, and renamed once everything is on the disk; so what an
    interrupted one leaves is never taken for whole, and the next one removes it and begins anew. A folder that is whole
    already is left as it is.

    Raises:
        UserError: the folder holds something else, the disk has no room, or a source cannot be read.
    """
    if lines := _whole_already(out):
        return lines
    check_writable_folder(out, "--out")
    layout = lay_out(sources)
    _check_room(layout, out)
    place = absolute(out)
    unfinished = place.with_name(temporary_name(place.name))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for leftover in place.parent.glob(f"{glob.escape(place.name)}~*.tmp"):
            if is_abandoned(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        _write(layout, sources, unfinished)
        if place.is_dir():
            place.rmdir()  # it is empty, and Windows renames onto no folder
        move(unfinished, place)
        sync_folder(place.parent)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({reason(error)}): mend that, or choose another --out") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [*_describe(layout), f"made {out}", *commands(out, _made(out, layout.counts))]


def commands(root: Path, folders: dict[str, Path]) -> list[str]:
    """What to type next, for split folders where they stand: a training, and its answers for the test pictures."""
    below = {
        split: folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
        for split, folder in folders.items()
    }
    if "train" not in below:
        return []
    words = ["python", "-m", "jaxfood.train", "--config", "hw3", "--data.root", str(root)]
    words += [
        part
        for split in ("train", "valid")
        if below.get(split, split) != split
        for part in (f"--data.{split}", below[split])
    ]
    if "valid" not in below:
        words += ["--data.valid_fraction", "0.2"]
    lines = [f"next: {_quoted(words)}"]
    if "unlabeled" in below:
        more = ["--data.unlabeled", below["unlabeled"], "--augment.flip", "true", "--augment.trivial", "true"]
        lines.append(f"with its pictures without labels: {_quoted([*words, *more])}")
    if "test" in below:
        lines.append(f"then: {_quoted(['python', '-m', 'jaxfood.predict', 'RUN', '--images', str(folders['test'])])}")
    return lines


def _quoted(words: Iterable[str]) -> str:
    return subprocess.list2cmdline(list(words)) if os.name == "nt" else shlex.join(words)


def _describe(layout: Layout) -> list[str]:
    lines = [f"{counted(layout.counts)} pictures, {layout.size / 1e6:,.0f} MB: {compare(layout.counts)}"]
    if layout.passed_over:
        lines.append(f"passed over: {counted_kinds(layout.passed_over)}")
    return lines


def _made(out: Path, counts: dict[str, int]) -> dict[str, Path]:
    return {split: out / split for split in SPLITS if counts.get(split)}


def _whole_already(out: Path) -> list[str]:
    """What to say of a folder that this command has made; nothing where there is none, or an empty one.

    Raises:
        UserError: it holds something else, or not all any more.
    """
    if not exists(out) or (is_folder(out) and not entries(out)):
        return []
    made = _read_mark(out)
    if made is None:
        raise UserError(f"--out {out}: something is there that this command did not make: choose another --out")
    counts = {split: len(walk_folder(out / split).pictures) for split in SPLITS if is_folder(out / split)}
    if counts != made["counts"]:
        raise UserError(
            f"--out {out}: made of {first_few(made['from'])} with {counted(made['counts'])} pictures, and now it holds "
            f"{counted(counts) or 'none'}: remove it to have it made anew, or choose another --out"
        )
    said = f"{out} is whole already, made of {first_few(made['from'])}: left as it is"
    return [said, f"{counted(counts)} pictures: {compare(counts)}", *commands(out, _made(out, counts))]


def _read_mark(out: Path) -> dict[str, Any] | None:
    if not is_folder(out) or not exists(out / MARK):
        return None
    with reading(out / MARK):
        text = (out / MARK).read_bytes()
    try:
        made = json.loads(text)
        return {"counts": dict(made["counts"]), "from": list(made["from"])}
    except (ValueError, KeyError, TypeError):
        return None


def _check_room(layout: Layout, out: Path) -> None:
    nearest = next(folder for folder in (absolute(out), *absolute(out).parents) if is_folder(folder))
    needed = layout.size + sum(layout.counts.values()) * _BLOCK + _SPARE
    if (free := shutil.disk_usage(nearest).free) < needed:
        raise UserError(
            f"--out {out}: that takes {needed / 1e9:,.1f} GB, and the disk has {free / 1e9:,.1f} GB left: make room, "
            "or choose another --out"
        )


def _write(layout: Layout, sources: Sequence[Source], folder: Path) -> None:
    """Every file, and at last the mark; all of it is on the disk when this returns."""
    with tqdm(total=layout.size, desc="unpacking", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for source, targets in zip(sources, layout.targets, strict=True):
            made = {Path(target).parent for target in targets.values()}
            for parent in made:
                (folder / parent).mkdir(parents=True, exist_ok=True)
            for member, content in source.contents(targets):
                with (folder / targets[member.name]).open("xb") as file:
                    file.write(content)
                bar.update(len(content))
    names = next(
        (names for source in sources if isinstance(source, ParquetSource) and (names := source.class_names())), []
    )
    if names:
        write_whole(folder / "classes.txt", "".join(f"{name}\n" for name in names))
    counts = {split: count for split, count in layout.counts.items() if count}
    mark = {"from": [str(source.path.name) for source in sources], "counts": counts, "year": compare(counts)}
    if hasattr(os, "sync"):
        os.sync()
    write_whole(folder / MARK, json.dumps(mark, indent=2) + "\n")
