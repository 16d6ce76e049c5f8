"""Which split each picture of a source belongs to, by the names of the folders above it: one rule for every year."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxfood.data.food11.archives import Member, Source
from jaxfood.data.food11.years import SPLITS
from jaxfood.data.walk import of_bucket
from jaxfood.errors import UserError, first_few

_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val"), "valid"),
    **dict.fromkeys(("test", "testing", "evaluation"), "test"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled"),
}
_LABELED = ("labeled", "labelled")  # in 2021 a folder below training, beside unlabeled


class Place(NamedTuple):
    """Where a picture belongs.

    Attributes:
        split: one of `SPLITS`.
        folder: the folder of the split, as the source spells it: `food-11/training/labeled`.
        below: the picture's path below that.
    """

    split: str
    folder: str
    below: str


class Layout(NamedTuple):
    """What is to be made of the sources.

    Attributes:
        targets: for each source, which of its files becomes which: `train/0_0.jpg`.
        folders: of each split, as its source spells it, below the source.
        counts: pictures of each split.
        size: bytes of all, as declared.
        passed_over: how many entries of each kind are not taken, in words.
    """

    targets: list[dict[str, str]]
    folders: dict[str, tuple[Source, str]]
    counts: dict[str, int]
    size: int
    passed_over: Counter[str]


def place_of(name: str, stem: str = "") -> Place | None:
    """Where a picture belongs by its path; None where no folder of it is named as a split.

    Args:
        name: its path in the source, with `/`.
        stem: of the source's own name, which counts where no folder does: `training.zip`.
    """
    folders = name.split("/")[:-1]
    for depth in reversed(range(len(folders))):  # the innermost: what is above may have any name
        if split := _NAMES.get(folders[depth].lower()):
            if split == "train" and folders[depth + 1 : depth + 2] and folders[depth + 1].lower() in _LABELED:
                depth += 1
            return Place(split, "/".join(folders[: depth + 1]), "/".join(name.split("/")[depth + 1 :]))
    if split := _NAMES.get(stem.lower()):
        return Place(split, "", name)
    return None


def lay_out(sources: Sequence[Source]) -> Layout:
    """Find the splits in the sources.

    Raises:
        UserError: there are none, or more than one folder for one of them, or two files for one place.
    """
    layout = Layout([], {}, dict.fromkeys(SPLITS, 0), 0, Counter())
    places: list[dict[str, Place]] = []
    size = 0
    for source in sources:
        members = {member.name: member for member in _once(source, source.members())}
        found = of_bucket(members)
        layout.passed_over.update(source.passed_over)
        layout.passed_over.update(found.passed_over)
        placed = {name: place_of(name, _stem(source.path)) for name in found.pictures}
        if outside := sum(place is None for place in placed.values()):
            layout.passed_over["pictures in no folder of a split"] += outside
        places.append({name: place for name, place in placed.items() if place})
        size += sum(members[name].size for name in places[-1])
        _add_folders(layout.folders, source, places[-1])
    if not layout.folders:
        held = first_few(source.path for source in sources)
        raise UserError(
            f"--from {held}: no pictures below a folder named {', '.join(_NAMES)}: name what holds such folders"
        )
    shared = _shared_folders(places)
    layout.targets.extend(
        {name: f"{place.split}/{place.below.removeprefix(shared.get(place.split, ''))}" for name, place in each.items()}
        for each in places
    )
    _check_apart(layout.targets)
    for place in (place for each in places for place in each.values()):
        layout.counts[place.split] += 1
    return layout._replace(size=size)


def _stem(path: Path) -> str:
    """`training` of training.zip, and of train-00000-of-00002.parquet `train`."""
    return path.name.partition(".")[0].partition("-")[0]


def _once(source: Source, members: Sequence[Member]) -> Sequence[Member]:
    twice = [name for name, count in Counter(member.name for member in members).items() if count > 1]
    if twice:
        raise UserError(f"{source.path} holds {first_few(twice)} twice: unpack it yourself, and name the folder")
    return members


def _add_folders(folders: dict[str, tuple[Source, str]], source: Source, places: Mapping[str, Place]) -> None:
    """Note each split's folder in this source.

    Raises:
        UserError: a split has another one already, or the folders of splits do not stand side by side.
    """
    for split, folder in sorted({(place.split, place.folder) for place in places.values()}):
        known = folders.setdefault(split, (source, folder))
        if known[1] != folder or (known[0] is not source and source.path.suffix.lower() != ".parquet"):
            raise UserError(
                f"the pictures of {split} are in two places, {known[0].path / known[1]} and {source.path / folder}: "
                "name the one that you mean with --from (an archive that holds both: unpack it first)"
            )
    tops = defaultdict(list)
    for split, (where, folder) in folders.items():
        parents = folder.split("/")[:-1]
        if parents and _NAMES.get(parents[-1].lower()) == "train":  # training/labeled, training/unlabeled
            parents = parents[:-1]
        if where is source:
            tops["/".join(parents)].append(split)
    if len(tops) > 1:
        names = " and ".join(
            f"{'/'.join((source.path.name, top))} ({', '.join(of)})" for top, of in sorted(tops.items())
        )
        raise UserError(f"--from {source.path}: it holds more than one data folder, {names}: name one of them")


def _shared_folders(places: Sequence[Mapping[str, Place]]) -> dict[str, str]:
    """The one folder that all pictures without labels are in, which says nothing of them: `testing/00` in 2021."""
    shared = {}
    for split in ("test", "unlabeled"):
        below = [place.below for each in places for place in each.values() if place.split == split]
        if len(folders := {name.rpartition("/")[0] for name in below}) == 1 and all(folders):
            shared[split] = f"{folders.pop()}/"
    return shared


def _check_apart(targets: Sequence[Mapping[str, str]]) -> None:
    """Check that no two files would have one place, on disks too that tell no upper from lower case."""
    seen: dict[str, str] = {}
    for name, target in (item for each in targets for item in each.items()):
        if (place := target.casefold()) in seen:
            raise UserError(f"{seen[place]} and {name} would both become {target}: rename one of them")
        seen[place] = name
