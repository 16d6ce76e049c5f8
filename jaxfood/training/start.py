"""A training from start to end: what must hold before it begins, anew or again, in one process or several."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from tqdm.auto import tqdm

from jaxfood import processes
from jaxfood.config.loading import all_settings
from jaxfood.config.loss import BALANCED, LossConfig
from jaxfood.config.sections import Config
from jaxfood.data.records import class_table
from jaxfood.data.splits import Splits, load_splits
from jaxfood.devices import make_mesh, padded_rows
from jaxfood.errors import UserError, first_few, printable
from jaxfood.model.fused import onednn
from jaxfood.optim.losses import check_class_weights, is_balanced
from jaxfood.runs import directory as run
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.lock import hold
from jaxfood.runs.pictures import are_numbers, check_pictures, write_pictures
from jaxfood.runs.resume import check_resumable, schedule_changes
from jaxfood.runs.teachers import check_teachers, write_teachers
from jaxfood.training.after_epoch import MakeAfterEpoch
from jaxfood.training.distillation import Teachers, find_teachers, load_teachers
from jaxfood.training.failures import enough_memory
from jaxfood.training.initial import check_settings, initial
from jaxfood.training.interrupt import StopRequest
from jaxfood.training.logbook import Logbook, Stopwatch, open_logbook, read_metrics
from jaxfood.training.loop import Training
from jaxfood.training.pseudo_labels import check_unlabeled
from jaxfood.training.reporting import WriteReport, no_report, reporting
from jaxfood.training.trackers.configured import check_trackers
from jaxfood.version import __version__

_UNKNOWN_PICTURES = (
    "this run does not tell which pictures it was trained on, so only their number can be compared (earlier versions "
    "and weights from elsewhere); from now on it does"
)


def train_in(
    workdir: Path,
    config: Config,
    after_epoch: Mapping[str, MakeAfterEpoch],
    *,
    resume: bool,
    overwrite: bool,
    when_ready: Callable[[], None] = lambda: None,
    write_report: WriteReport = no_report,
) -> dict[str, Any]:
    """Train a classifier in a work directory; all but `after_epoch` as `jaxfood.train_and_evaluate` has it.

    Args:
        workdir: becomes a run.
        config: every setting.
        after_epoch: what may be done after every epoch, by the name under which its time is told.
        resume: go on with the run that is there.
        overwrite: replace it.
        when_ready: called by the first process when nothing is left that could fail before the run begins or goes on.
        write_report: writes the run's page, with `logging.report`.
    """
    watch = Stopwatch()
    with processes.together():
        mesh = _check_settings(workdir, config, resume=resume, overwrite=overwrite)
    if resume and (finished := _finished(config, workdir)):
        return finished
    with hold(workdir) as unlocked, enough_memory(config):
        config, splits, variables, teachers, lines = _prepare(workdir, config, mesh, watch, resume=resume)
        lines += [unlocked] * bool(unlocked)
        if processes.is_first():
            for line in lines:  # now, as compiling takes its time; in log.txt once the run has begun
                tqdm.write(printable(line))
        made = {work: make(config, splits) for work, make in after_epoch.items()}
        after = {work: do for work, do in made.items() if do is not None}
        training = Training(config, splits, mesh, after, watch, variables, teachers)
        with _importing("jaxfood.runs.manager"):
            training.compile()
        if not resume:  # only now: nothing of what is replaced is lost by what fails before
            processes.by_first(when_ready)
            processes.by_first(lambda: _begin(workdir, config, splits, teachers, overwrite=overwrite))
        with Checkpoints(workdir, config.checkpoint.keep_best, clean_up=True) as checkpoints, StopRequest() as stop:
            if checkpoints.last is not None:
                training.restore(checkpoints, checkpoints.last)
            stored = run.read_config(workdir)
            if resume:  # only now: a run that cannot go on stays as it was
                processes.by_first(when_ready)
                processes.by_first(lambda: _go_on(workdir, config, splits))
            settings = dict(all_settings(config))
            report = write_report if config.logging.report else no_report
            with (
                open_logbook(workdir, config.logging, training.step, lines, settings) as logbook,
                reporting(logbook, workdir, report, watch),
            ):
                if training.step:
                    logbook.line(f"going on after step {training.step} of {training.total_steps}")
                if training.calls.remark:
                    logbook.line(training.calls.remark)
                for line in schedule_changes(stored, config, training.step, training.total_steps):
                    logbook.line(line)
                training.run(checkpoints, logbook, stop)
                _conclude(logbook, config, training)
    return training.progress.summary(config.train, workdir, training.step) | {"seconds": watch.seconds}


def _check_settings(workdir: Path, config: Config, *, resume: bool, overwrite: bool) -> Mesh:
    """What can be checked before any picture is read; the devices."""
    if processes.is_first():
        check_trackers(config.logging)
    if config.model.num_classes:
        check_class_weights(config.loss, config.model.num_classes)
    mesh = make_mesh(config.device)
    if resume:
        check_resumable(run.read_config(workdir), config)
    else:
        run.check_free(workdir, overwrite=overwrite)
        check_settings(config, workdir)
    check_unlabeled(config)
    find_teachers(config, workdir)
    return mesh


@contextmanager
def _importing(module: str) -> Iterator[None]:
    """Imports a module in a thread, while the body leaves Python to it: what comes next needs it."""
    thread = Thread(target=import_module, args=(module,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


class _Prepared(NamedTuple):
    """What a training is made of, and what is to be said of it, a line each."""

    config: Config  # with what the pictures tell
    splits: Splits
    variables: Mapping[str, Any] | None  # to begin with
    teachers: Teachers | None
    lines: list[str]


def _prepare(workdir: Path, config: Config, mesh: Mesh, watch: Stopwatch, *, resume: bool) -> _Prepared:
    """Read the pictures and what else a training needs, and check that they are those of the run that goes on."""
    with watch("decode"), processes.together():
        splits = load_splits(
            config.data,
            config.model.num_classes,
            seed=config.train.seed,
            folds=config.train.folds,
            fold=config.train.fold,
            progress=config.logging.progress and processes.is_first(),
        )
        balanced, config = is_balanced(config.loss), splits.completed(config)
        check_class_weights(config.loss, config.model.num_classes)
        known = resume and check_pictures(workdir, run.read_classes(workdir), splits.records, splits.classes)
        if resume and balanced and not is_balanced((stored := run.read_config(workdir)).loss):
            check_resumable(stored, config)  # the run's weights are numbers already
    _check_alike(config, workdir, splits)
    begun = initial(config, splits.classes, mesh, resumed=workdir if resume else None)
    teachers = load_teachers(config, splits.classes, mesh, workdir)
    if resume and teachers is not None:
        check_teachers(workdir, teachers.digests)
    lines = [*_introduction(workdir, config, splits, mesh), *filter(None, [padded_rows(config, mesh)]), *begun.lines]
    lines += teachers.lines if teachers is not None else ()
    if config.model.dtype == "bfloat16" and (said := onednn.describe()):
        lines.append(said)
    lines += [_describe_class_weights(config.loss)] * balanced + [_UNKNOWN_PICTURES] * (resume and not known)
    return _Prepared(config, splits, begun.variables, teachers, lines)


def _begin(workdir: Path, config: Config, splits: Splits, teachers: Teachers | None, *, overwrite: bool) -> None:
    run.begin(workdir, splits.classes, splits.records, overwrite=overwrite)
    with run.writing(workdir):
        if teachers is not None:
            write_teachers(workdir, teachers.digests)
        run.write_config(workdir, config)


def _go_on(workdir: Path, config: Config, splits: Splits) -> None:
    with run.writing(workdir):
        if not are_numbers(splits.classes):  # names that the run has already stay
            run.write_classes(workdir, splits.classes)
        write_pictures(workdir, splits.records)
        run.write_config(workdir, config)


def _check_alike(config: Config, workdir: Path, splits: Splits) -> None:
    """Check that all processes train the same, and write to the same place."""
    if processes.count() == 1:
        return
    own = ("data.root", "data.cache_dir", "distributed.process_id")  # a disk may be mounted elsewhere
    settings = {name: value for name, value in all_settings(config) if name not in own}
    pictures = {"training pictures": len(splits.train), "validation pictures": len(splits.valid)}
    content = hashlib.blake2b(repr(splits.records).encode(errors="surrogatepass"), digest_size=16).hexdigest()
    processes.check_same({"--workdir": str(workdir), **settings, **pictures, "the pictures' content": content})
    if not processes.share_folder(workdir):
        raise UserError(f"the processes do not all see {workdir}: take a --workdir on a shared disk or in a bucket")


def _finished(config: Config, workdir: Path) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do."""
    with Checkpoints(workdir) as checkpoints:
        if not checkpoints.last:  # none yet, or step 0 of weights that came from elsewhere
            return None
        step, progress = checkpoints.last, checkpoints.read_progress(checkpoints.last)
    if not progress.is_over(config.train, step):
        return None
    _complete_metrics(workdir, config, step, progress.records)
    summary = progress.summary(config.train, workdir, step)
    reason = "stopped early" if summary["stopped_early"] else "is finished"
    if processes.is_first():
        tqdm.write(
            f"{printable(workdir)} {reason} after {summary['epochs']} of {config.train.epochs} epochs, best accuracy "
            f"{progress.best_accuracy:.4f} in epoch {progress.best_epoch}; raise train.epochs or train.patience to "
            "go on"
        )
    return summary


def _complete_metrics(workdir: Path, config: Config, step: int, records: Sequence[Mapping[str, Any]]) -> None:
    """The last epochs' lines, should the process have ended between their checkpoint and their lines."""
    there = {record["step"] for record in read_metrics(workdir / run.METRICS)} if records else set()
    missing = any(record["step"] not in there for record in records)
    if not records or not any(processes.share("missing" if missing else "")):
        return
    with hold(workdir), open_logbook(workdir, config.logging, step, settings=dict(all_settings(config))) as logbook:
        for record in records:
            logbook.metrics(record)


def _introduction(workdir: Path, config: Config, splits: Splits, mesh: Mesh) -> list[str]:
    devices = f"{mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}"
    if processes.count() > 1:
        devices += f" in {processes.count()} processes"
    unlabeled = "" if splits.unlabeled is None else f", {len(splits.unlabeled)} unlabelled"
    return [
        f"{workdir}: {len(splits.train)} training{unlabeled} and {len(splits.valid)} validation pictures of "
        f"{len(splits.classes)} classes, {config.data.image_size} px; jaxfood {__version__}, jax "
        f"{jax.__version__} on {devices}",
        *class_table(splits.records, splits.classes),
        *splits.remarks,
    ]


def _describe_class_weights(loss: LossConfig) -> str:
    weights = getattr(loss, "class_weights", ())
    without = ", 0 for classes without training pictures" * (0 in weights)
    return f"loss.class_weights = {BALANCED}: {first_few([f'{weight:.4g}' for weight in weights], 30)}{without}"


def _conclude(logbook: Logbook, config: Config, training: Training) -> None:
    progress, patience = training.progress, config.train.patience
    if progress.is_stale(config.train):
        logbook.line(f"stopped early: {progress.stale} epochs in a row brought no new best (patience {patience})")
    loss = f", by the lowest validation loss, {progress.best_loss:.4f}," if config.train.monitor == "valid_loss" else ""
    logbook.line(f"best: accuracy {progress.best_accuracy:.4f}{loss} in epoch {progress.best_epoch}")
    logbook.line(f"time: {training.watch.split()}")
