"""RUN: a run's work directory, how one begins, goes on and is read again."""

import dataclasses
import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from jaxfood.config.loading import Source, merge, read_toml, to_toml
from jaxfood.config.sections import Config
from jaxfood.data.records import Records
from jaxfood.errors import UserError, first_few
from jaxfood.files import is_remote, read_bytes, reading, reason, remove, to_path, write_whole
from jaxfood.model.network import Network
from jaxfood.model.networks import init_variables, make_model
from jaxfood.places import check_work_directory, entries, exists, is_file, is_folder, kind, similar
from jaxfood.runs.checkpoints import CHECKPOINTS, Checkpoints
from jaxfood.runs.folds import FOLDS, fold_of, folders_of_folds, is_fold, read_folds, write_folds
from jaxfood.runs.lock import HOLDER, LOCK
from jaxfood.runs.pictures import PICTURES, write_pictures
from jaxfood.runs.teachers import TEACHERS
from jaxfood.version import __version__

CONFIG = "config.toml"
CLASSES = "classes.txt"
METRICS = "metrics.jsonl"
LOG = "log.txt"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
TRACKERS = "trackers.json"  # the ids under which Weights & Biases and MLflow have this run
LANDSCAPE = "landscape"
EVALUATION = "evaluation"
REPORT = "report.html"
FORMAT_FILE = "run.json"
FORMAT = 1  # of a run on disk: raise it when an older jaxfood could not read what this one writes
_PARENT = Path("runs")  # of a run that is not told where to go
_TOLD = (METRICS, LOG, TENSORBOARD, WANDB, TRACKERS, LANDSCAPE, EVALUATION, REPORT)
_OWN = (CONFIG, CLASSES, PICTURES, TEACHERS, *_TOLD, CHECKPOINTS, FORMAT_FILE)


def is_run(workdir: Path) -> bool:
    """Whether a directory is a run's."""
    if is_remote(workdir):  # a bucket has no empty folders: before the first checkpoint there is no checkpoints/
        return is_file(workdir / CONFIG) and is_file(workdir / CLASSES)
    return is_file(workdir / CONFIG) and is_folder(workdir / CHECKPOINTS)


def is_folds(workdir: Path) -> bool:
    """Whether a directory is one of folds, each of which is a run: see `jaxfood.runs.folds`."""
    return is_file(workdir / CONFIG) and is_file(workdir / FOLDS)


def whole_of(workdir: Path) -> Path:
    """The directory of folds that a run belongs to; of any other run itself."""
    return workdir.parent if is_fold(workdir) and is_folds(workdir.parent) else workdir


def is_half_made(workdir: Path) -> bool:
    """Whether a directory was to become a run's, and whoever made it was ended before it was one."""
    return is_file(workdir / FORMAT_FILE) and not is_file(workdir / CONFIG)


def make_workdir(name: str, parent: Path = _PARENT) -> Path:
    """The next free `runs/NAME-N`, made by this process and no other."""
    for _ in range(100):
        taken = [path.name.removeprefix(f"{name}-") for path in parent.glob(f"{glob.escape(name)}-*")]
        workdir = parent / f"{name}-{max((int(number) for number in taken if number.isdecimal()), default=0) + 1}"
        try:
            workdir.mkdir(parents=True)
        except FileExistsError:  # another process was faster
            continue
        except OSError as error:
            raise UserError(f"cannot make {workdir} ({reason(error)}); choose a --workdir") from error
        return workdir
    raise UserError(f"cannot make a folder {parent / name}-N: others take each number first; choose a --workdir")


def check_free(workdir: Path, *, overwrite: bool) -> None:
    """Check that a new run may begin in a directory.

    Raises:
        UserError: it is a run and `overwrite` is not given, or it holds something else.
    """
    what = kind(workdir)
    if what and what != "folder":
        raise UserError(f"{workdir} is a file; choose another --workdir")
    if is_run(workdir) or is_folds(workdir):
        if not overwrite:
            raise UserError(
                f"{workdir} is a run already: go on with --resume, replace it with --overwrite, or take another"
            )
    elif what and not is_half_made(workdir) and not _holds_nothing(workdir):
        raise UserError(f"{workdir} is not empty and not a run; choose another --workdir")
    check_work_directory(workdir)


def _holds_nothing(workdir: Path) -> bool:
    """Whether there are but locks, left by a process that was killed before its run began; or its first fold's."""
    others = [path for path in entries(workdir) if path.name not in (LOCK, HOLDER)]
    return all(is_fold(path) and is_folder(path) and _holds_nothing(path) for path in others)


def begin(workdir: Path, classes: Sequence[str], records: Records = (), *, overwrite: bool = False) -> None:
    """Make a directory ready to be a run's, which `write_config` then makes it.

    Args:
        workdir: free, as `check_free` has it.
        classes: their names in label order.
        records: the pictures that it is to be trained on; none where they are not known yet.
        overwrite: replace what an earlier run wrote there, and nothing else.
    """
    check_free(workdir, overwrite=overwrite)
    with writing(workdir):
        _make_room(workdir)
        if not is_remote(workdir):
            (workdir / CHECKPOINTS).mkdir()
        write_classes(workdir, classes)
        if records:
            write_pictures(workdir, records)


def begin_folds(workdir: Path, config: Config) -> None:
    """Make a directory one of folds, in place of what is there, as its first fold, which this process holds, begins.

    Args:
        workdir: free, as `check_free` has it.
        config: that of all folds.
    """
    with writing(workdir):
        _make_room(workdir, held=fold_of(workdir, 1))
        write_folds(workdir, {"folds": config.train.folds, "accuracies": []})
        write_config(workdir, config)


def _make_room(workdir: Path, held: Path | None = None) -> None:
    """Remove what an earlier run, or its folds, wrote in a directory, which is half made until its config.toml is.

    Args:
        workdir: the directory.
        held: a fold whose lock this process holds.
    """
    remove(workdir / CONFIG)
    if is_file(workdir / FOLDS):
        for fold in folders_of_folds(workdir):
            for name in _OWN:
                remove(fold / name)
            if fold != held and not is_remote(fold):
                with suppress(OSError):  # something of the user's is there
                    for name in (LOCK, HOLDER):
                        (fold / name).unlink(missing_ok=True)
                    fold.rmdir()
        remove(workdir / FOLDS)
    for name in _OWN:
        remove(workdir / name)
    if not is_remote(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    write_whole(workdir / FORMAT_FILE, json.dumps({"format": FORMAT, "jaxfood": __version__}) + "\n")


@contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Turns failures to write in a run's directory (no permission, disk full) into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {workdir} ({reason(error)}): mend that, or choose another --workdir"
        ) from error


def write_config(workdir: Path, config: Config) -> None:
    """Write a run's config.toml, which makes a directory a run's: what of its settings holds for its next start too."""
    lasting = dataclasses.replace(config, distributed=config.distributed.lasting())
    write_whole(workdir / CONFIG, to_toml(lasting))


def read_config(workdir: Path, *later: Source) -> Config:
    """The configuration of a run, changed by later sources.

    Raises:
        UserError: the directory is no run.
    """
    if is_folds(workdir):
        count, _ = read_folds(workdir)
        raise UserError(
            f"{workdir} is not a run but holds {count}, its folds: name one of them, {fold_of(workdir, 1)} to "
            f"{fold_of(workdir, count).name}"
        )
    return read_stored(workdir, *later)


def read_stored(workdir: Path, *later: Source) -> Config:
    """The configuration of a run or of a directory of folds, changed by later sources.

    Raises:
        UserError: the directory is neither.
    """
    if not is_run(workdir) and not is_folds(workdir):
        raise UserError(f"{workdir} is not a run: {_missing(workdir)}; name the work directory of a training")
    _check_format(workdir)
    return merge(read_toml(workdir / CONFIG), *later)


def _missing(workdir: Path) -> str:
    """Why a directory is no run, and which may have been meant."""
    if not exists(workdir):
        begun = _PARENT / workdir.name  # where a training puts its run
        return f"it does not exist{f': did you mean {begun}?' if is_run(begun) else similar(workdir)}"
    if is_half_made(workdir):
        return "whoever made it was ended before it was one: begin it again there"
    if is_run(workdir.parent):
        return f"it is a part of one: did you mean {workdir.parent}?"
    below = entries(workdir) if is_folder(workdir) and not is_remote(workdir) else []
    if runs := [path.name for path in below if is_run(path)]:
        return f"it holds some, {first_few(runs, 12)}"
    return f"it has no {CONFIG} with {CHECKPOINTS}/ beside it"


def _check_format(workdir: Path) -> None:
    """Check that this version can read a run; the first ones did not tell their format."""
    try:
        told = json.loads(read_bytes(workdir / FORMAT_FILE))
        found, made_by = int(told["format"]), str(told.get("jaxfood", "?"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{workdir / FORMAT_FILE} is damaged: restore it, or remove it if you know the run") from None
    if found > FORMAT:
        raise UserError(f"{workdir} was made by jaxfood {made_by}, and this is {__version__}: upgrade jaxfood")


def write_classes(workdir: Path, classes: Sequence[str]) -> None:
    """Write a run's classes.txt: the name of each class, in label order."""
    write_whole(workdir / CLASSES, "".join(f"{name}\n" for name in classes))


def read_classes(workdir: Path) -> tuple[str, ...]:
    """The name of each class of a run, in label order.

    Raises:
        UserError: classes.txt cannot be read.
    """
    with reading(workdir / CLASSES):
        text = read_bytes(workdir / CLASSES).decode("utf-8", "surrogateescape")
    return tuple(text.removesuffix("\n").split("\n"))


def load_run(workdir: str | Path, which: str | int = "best") -> tuple[Network, dict[str, Any], Config]:
    """A trained classifier: the model, its variables and the run's configuration.

    The number of devices it was trained on does not matter.

    Args:
        workdir: the run's work directory.
        which: "best" (highest validation accuracy), "last", or the step of a checkpoint that the run kept.

    Raises:
        UserError: no run, no such checkpoint, or a checkpoint that does not fit the configuration.
    """
    workdir = to_path(workdir)
    config = read_config(workdir)
    target = on_one_device(jax.eval_shape(lambda: init_variables(config)))
    with Checkpoints(workdir) as checkpoints:
        variables = checkpoints.restore_variables(checkpoints.find(which), target)
    return make_model(config.model), variables, config


def each_run(runs: Iterable[str | Path]) -> list[Path]:
    """The runs that are named, a directory of folds standing for all its folds.

    Raises:
        UserError: one of its folds is not finished.
    """
    found: list[Path] = []
    for workdir in map(to_path, runs):
        if not is_folds(workdir):
            found.append(workdir)
            continue
        count, finished = read_folds(workdir)
        if finished < count:
            raise UserError(
                f"{workdir}: {finished} of its {count} folds are finished: go on with python -m jaxfood.train "
                f"--workdir {workdir} --resume, or name the folds, such as {fold_of(workdir, 1)}"
            )
        found += [fold_of(workdir, fold) for fold in range(1, count + 1)]
    return found


def kept_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints that a run kept, ascending."""
    read_config(workdir)  # refuses what is no run
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.steps


def on_one_device(shapes: Any) -> Any:
    """What to restore on the first device, whatever number of devices it was saved from."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
