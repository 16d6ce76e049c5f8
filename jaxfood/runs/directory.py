"""RUN: a run's work directory, how one begins, goes on and is read again."""

import dataclasses
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxfood.config.loading import Source, merge, read_toml, to_toml
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.files import is_remote, remove, to_path, write_whole
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.networks import init_variables, make_model
from jaxfood.runs.checkpoints import CHECKPOINTS, Checkpoints

CONFIG = "config.toml"
CLASSES = "classes.txt"
METRICS = "metrics.jsonl"
LOG = "log.txt"
TENSORBOARD = "tensorboard"
_OWN = (CONFIG, CLASSES, METRICS, LOG, TENSORBOARD, "landscape", CHECKPOINTS)


def is_run(workdir: Path) -> bool:
    """Whether a directory is a run's."""
    if is_remote(workdir):  # a bucket has no empty folders: before the first checkpoint there is no checkpoints/
        return (workdir / CONFIG).is_file() and (workdir / CLASSES).is_file()
    return (workdir / CONFIG).is_file() and (workdir / CHECKPOINTS).is_dir()


def next_workdir(name: str, parent: Path = Path("runs")) -> Path:
    """The next free `runs/NAME-N`."""
    taken = [path.name.removeprefix(f"{name}-") for path in parent.glob(f"{glob.escape(name)}-*")]
    return parent / f"{name}-{max((int(number) for number in taken if number.isdecimal()), default=0) + 1}"


def check_free(workdir: Path, *, overwrite: bool) -> None:
    """Check that a new run may begin in a directory.

    Raises:
        UserError: it is a run and `overwrite` is not given, or it holds something else.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file; choose another --workdir")
    if is_run(workdir):
        if not overwrite:
            raise UserError(
                f"{workdir} is a run already: go on with --resume, replace it with --overwrite, or take another"
            )
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and not a run; choose another --workdir")


def begin(workdir: Path, config: Config, classes: Sequence[str], *, overwrite: bool = False) -> None:
    """Make a directory a run's, replacing what an earlier run wrote there (and nothing else) with `overwrite`."""
    check_free(workdir, overwrite=overwrite)
    try:
        for name in _OWN:
            remove(workdir / name)
        if not is_remote(workdir):
            (workdir / CHECKPOINTS).mkdir(parents=True)
        write_classes(workdir, classes)
        write_config(workdir, config)
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error.strerror or error}); choose another --workdir") from error


def write_config(workdir: Path, config: Config) -> None:
    """Write a run's config.toml: what of its settings holds for its next start too."""
    lasting = dataclasses.replace(config, distributed=config.distributed.lasting())
    write_whole(workdir / CONFIG, to_toml(lasting))


def read_config(workdir: Path, *later: Source) -> Config:
    """The configuration of a run, changed by later sources.

    Raises:
        UserError: the directory is no run.
    """
    if not is_run(workdir):
        missing = "it does not exist" if not workdir.exists() else f"it has no {CONFIG} with {CHECKPOINTS}/ beside it"
        raise UserError(f"{workdir} is not a run: {missing}; name the work directory of a training")
    return merge(read_toml(workdir / CONFIG), *later)


def write_classes(workdir: Path, classes: Sequence[str]) -> None:
    """Write a run's classes.txt: the name of each class, in label order."""
    write_whole(workdir / CLASSES, "".join(f"{name}\n" for name in classes))


def read_classes(workdir: Path) -> tuple[str, ...]:
    """The name of each class of a run, in label order."""
    return tuple((workdir / CLASSES).read_text(encoding="utf-8").splitlines())


def load_run(workdir: str | Path, which: str | int = "best") -> tuple[FoodClassifier, dict[str, Any], Config]:
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


def kept_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints that a run kept, ascending."""
    read_config(workdir)  # refuses what is no run
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.steps


def on_one_device(shapes: Any) -> Any:
    """What to restore on the first device, whatever number of devices it was saved from."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
