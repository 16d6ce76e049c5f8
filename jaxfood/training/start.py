"""The door to training: what must hold before it begins, anew or again, in one process or several."""

from pathlib import Path
from typing import Any

from jaxfood import processes
from jaxfood.config.schema import Config
from jaxfood.config.sources import all_settings
from jaxfood.data.splits import Splits, load_splits
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError
from jaxfood.files import to_path
from jaxfood.optim.losses import make_loss
from jaxfood.runs import directory as run
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.training.interrupt import StopRequest
from jaxfood.training.logbook import Stopwatch, check_tensorboard
from jaxfood.training.loop import Training, is_over, summary_of


def train_and_evaluate(
    config: Config, workdir: str | Path, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train a classifier in a work directory and keep its best and its last checkpoint there.

    Args:
        config: every setting. With `resume` only how long, where and what is shown may differ from the run's own.
        workdir: becomes a RUN: config.toml, metrics.jsonl, log.txt, classes.txt, checkpoints/.
        resume: go on from the last checkpoint as if nothing had happened.
        overwrite: replace the run that is there.

    Returns:
        `workdir`, `epochs` and `step` done, `best_epoch`, `best_accuracy` (validation), `stopped_early`, and `seconds`
        of each kind of work.

    Raises:
        UserError: a mistake in the settings or the pictures; no earlier run is lost by it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    workdir = to_path(workdir)
    watch = Stopwatch()
    with processes.together():
        check_tensorboard(config.logging)
        make_loss(config.loss, config.model.num_classes)  # refuses class weights that do not fit before any work
        mesh = make_mesh(config.device)
        if resume:
            run.check_resumable(run.read_config(workdir), config)
        else:
            run.check_free(workdir, overwrite=overwrite)
    if resume and (finished := _finished(config, workdir)):
        return finished
    with watch("decode"), processes.together():
        progress = config.logging.progress and processes.is_first()
        splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=progress)
    _check_alike(config, workdir, splits)
    if not resume:
        processes.by_first(lambda: run.begin(workdir, config, splits.classes, overwrite=overwrite))
    with Checkpoints(workdir, config.checkpoint.keep_best, clean_up=True) as checkpoints, StopRequest() as stop:
        training = Training(config, workdir, splits, mesh, checkpoints, stop, watch)
        if resume and processes.is_first():  # only now: a run that cannot go on stays as it was
            run.write_config(workdir, config)
        return training.run()


def _check_alike(config: Config, workdir: Path, splits: Splits) -> None:
    """Check that all processes train the same, and write to the same place."""
    if processes.count() == 1:
        return
    own = ("data.root", "data.cache_dir", "distributed.process_id")  # a disk may be mounted elsewhere
    settings = {name: value for name, value in all_settings(config) if name not in own}
    pictures = {"training pictures": len(splits.train), "validation pictures": len(splits.valid)}
    processes.check_same({"--workdir": str(workdir), **settings, **pictures})
    if not processes.share_folder(workdir):
        raise UserError(f"the processes do not all see {workdir}: take a --workdir on a shared disk or in a bucket")


def _finished(config: Config, workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do."""
    with Checkpoints(workdir) as checkpoints:
        if not checkpoints.last:  # none yet, or step 0 of weights that came from elsewhere
            return None
        step, memory = checkpoints.last, checkpoints.read_memory(checkpoints.last)
    if not is_over(config, step, memory):
        return None
    summary = summary_of(config, workdir, step, memory)
    reason = "stopped early" if summary["stopped_early"] else "is finished"
    if processes.is_first():
        print(
            f"{workdir} {reason} after {summary['epochs']} of {config.train.epochs} epochs, best accuracy "
            f"{memory.best_accuracy:.4f} in epoch {memory.best_epoch}; raise train.epochs or train.patience to go on"
        )
    return summary
