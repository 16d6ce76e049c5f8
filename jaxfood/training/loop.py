"""The epochs of one run: updates, evaluation, what is done after an epoch, checkpoint."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood import processes
from jaxfood.config.sections import Config
from jaxfood.data.augment import changes, check_mixing, mixes
from jaxfood.data.batches import make_batches
from jaxfood.data.splits import Splits
from jaxfood.devices import Step, compile_step, on_every_device, takes_rows_by_device
from jaxfood.errors import UserError
from jaxfood.model.networks import check_image_sizes, init_variables
from jaxfood.optim.plateau import rate_factor
from jaxfood.optim.schedules import make_schedule
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.progress import Progress
from jaxfood.training.after_epoch import AfterEpoch
from jaxfood.training.calls import Calls
from jaxfood.training.distillation import Teachers
from jaxfood.training.failures import all_finite, check_there, not_finite
from jaxfood.training.interrupt import StopRequest
from jaxfood.training.logbook import Confusion, Logbook, Stopwatch
from jaxfood.training.metrics import Sums, epoch_record, finite_or_none, read_means, zero_sums
from jaxfood.training.saved import restore_state
from jaxfood.training.saver import Saver, Snapshot
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_augmented_update, add_evaluation, add_taught_update, add_update, add_updates


class Training:
    """A run in progress: its state and metric sums after `step` updates, and its progress.

    Made at step 0 of new weights; `restore`, `log_to` and `compile` come before `run`.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        mesh: Mesh,
        after_epoch: Mapping[str, AfterEpoch],
        watch: Stopwatch,
        variables: Mapping[str, Any] | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        """Put pictures and a new state on the devices.

        Args:
            config: the run's.
            splits: its pictures.
            mesh: its devices.
            after_epoch: what is done after every epoch, in this order, by the name under which its time is told.
            watch: times each kind of work.
            variables: `{"params": ..., "batch_stats": ...}` to begin with, in every process alike; None: new ones.
            teachers: whose answers are targets beside the labels.
        """
        self.config, self.mesh, self.after_epoch, self.watch = config, mesh, after_epoch, watch
        self.teachers, self.classes = teachers, splits.classes
        feed = partial(make_batches, mesh=mesh, by_device=takes_rows_by_device(config))
        self.train = feed(splits.train, parts=config.train.accumulate)
        self.unlabeled = None if splits.unlabeled is None else feed(splits.unlabeled, parts=config.train.accumulate)
        self.valid = feed(splits.valid)
        self.step = 0
        self.calls = Calls(config, mesh, self.train, self.unlabeled)
        self.progress = Progress(self.train.size, self.calls.steps_per_epoch)
        self.total_steps = config.train.total_steps(self.progress.steps_per_epoch)
        check_image_sizes(config)
        check_mixing(config.augment, min(config.train.batch_size, self.train.size))
        with watch("initialise"):
            create = jax.jit(partial(TrainState.create, config, total_steps=self.total_steps))  # eager: 30 programs
            self.state: TrainState = on_every_device(create(variables or init_variables(config)), mesh)
        self.sums = self._zero_sums(updates=True)

    def restore(self, checkpoints: Checkpoints, step: int) -> None:
        """Go on from a checkpoint; step 0 is that of weights from elsewhere, which has no progress.

        Raises:
            UserError: it was trained on another number of pictures, in batches of another size, or does not fit the
                configuration.
        """
        progress = checkpoints.read_progress(step) if step else self.progress
        if progress.num_train != self.progress.num_train:
            raise UserError(
                f"{checkpoints.workdir} was trained on {progress.num_train} pictures and there are "
                f"{self.progress.num_train} now: put them back as they were, or begin a new run"
            )
        if progress.steps_per_epoch != self.progress.steps_per_epoch:
            raise UserError(
                f"{checkpoints.workdir} was trained with {progress.steps_per_epoch} steps an epoch, and batches of "
                f"{self.config.train.batch_size} make {self.progress.steps_per_epoch}: put train.batch_size in its "
                "config.toml back as it was"
            )
        self.state, self.sums = restore_state(checkpoints, step, self.state, self.sums)
        self.step, self.progress = step, progress

    def compile(self) -> None:
        """Compile the update and the evaluation; with several processes all do, and wait for each other."""
        with self.watch("compile"):
            compile_ = partial(compile_step, config=self.config, mesh=self.mesh)
            _, call = next(self.calls.of_epoch(0))
            arguments = (self.state, self.sums, *self._taught_by, *call)
            self._updates_at = {
                size: compile_(partial(add_updates, add=self._make_update(size)), arguments=arguments, donate=(0, 1))
                for size in self.config.train.image_sizes or (self.config.data.image_size,)
            }
            evaluation = partial(add_evaluation, self.state.model, self.state.loss)
            batch = next(self.valid.batches(np.arange(self.valid.size), self.config.train.part_size))
            arguments = (self.state.evaluated, self._zero_sums(updates=False), batch)
            self._evaluation = compile_(evaluation, arguments=arguments, donate=(1,))
            processes.barrier()  # gloo gives up where another process comes to the first step 30 seconds later

    def _make_update(self, size: int) -> Step:
        """The update with training pictures of a size."""
        config = self.config
        options: dict[str, Any] = {
            "config": config.augment,
            "seed": config.train.seed,
            "steps_per_epoch": self.progress.steps_per_epoch,
            "size": size,
            "threshold": config.train.unlabeled_threshold,
        }
        if self.teachers is not None:
            answer = partial(self.teachers.answer, temperature=config.train.distill_temperature)
            return partial(add_taught_update, answer=answer, **options)
        if not (changes(config.augment) or mixes(config.augment) or config.model.dropout or config.train.image_sizes):
            return add_update
        return partial(add_augmented_update, **options)

    @property
    def _taught_by(self) -> tuple[Any, ...]:
        """What an update takes after the sums: the teachers' weights, if any teach."""
        return () if self.teachers is None else (self.teachers.variables,)

    def run(self, checkpoints: Checkpoints, logbook: Logbook, stop: StopRequest) -> None:
        """Train to the end, or to an early stop.

        Raises:
            UserError: the loss is not finite.
            KeyboardInterrupt: a stop was asked for, and the state is saved.
        """
        self.checkpoints, self.logbook, self.stop = checkpoints, logbook, stop
        self.saver = Saver(checkpoints, self.config.checkpoint, self.mesh)
        for record in self.progress.records:  # of epochs that were saved by a process that ended before it wrote these
            logbook.metrics(record)
        self.progress = self.progress.saved()
        while not self.progress.is_over(self.config.train, self.step):
            self._epoch()
        with self.watch("save"):
            checkpoints.wait()

    def losses(self) -> Iterator[float]:
        """Train without an end, evaluating and saving nothing: the mean loss of each batch before its update."""
        updates = self._updates_at[self.config.train.size_of_epoch(0, self.config.data.image_size)]
        while True:
            for count, call in self.calls.of_epoch(self.step // self.progress.steps_per_epoch, most=1):
                self.state, sums = updates(self.state, self._zero_sums(updates=True), *self._taught_by, *call)
                self.step += count
                yield read_means(sums)["loss"]

    def _zero_sums(self, *, updates: bool) -> Sums:
        unlabeled = updates and self.unlabeled is not None
        confusion = self.config.model.num_classes if self.config.logging.tracks and not updates else 0
        return on_every_device(zero_sums(updates=updates, unlabeled=unlabeled, confusion=confusion), self.mesh)

    def _epoch(self) -> None:
        """The rest of the epoch that `step` stands in, its evaluation and its checkpoint."""
        epoch, inside = divmod(self.step, self.progress.steps_per_epoch)
        started = time.perf_counter()
        with self.watch("train"):
            self._updates(epoch, inside)
            train = read_means(self.sums)
        trained = time.perf_counter()
        if not math.isfinite(train["loss"]):
            raise self._not_finite(f"the training loss is {train['loss']}")
        with self.watch("validate"):
            valid, confusion = self._evaluate()
        if not math.isfinite(valid["loss"]):
            raise self._not_finite(f"the validation loss is {valid['loss']}")
        pictures = self.progress.num_train - inside * self.config.train.batch_size
        record = epoch_record(
            epoch + 1,
            self.step,
            train,
            valid,
            learning_rate=self._learning_rate(),
            seconds=time.perf_counter() - started,
            images_per_second=pictures / (trained - started),
        )
        for work, after_epoch in self.after_epoch.items():
            with self.watch(work):
                self.state, more = after_epoch(self.state, record, self.logbook.line)
            record |= more
        monitor = self.config.train.monitor
        progress = self.progress.after_epoch(epoch + 1, valid["accuracy"], valid["loss"], monitor)
        self.progress = progress.with_record(finite_or_none(record))
        self.logbook.epoch(record, self.config.train.epochs, best=progress.stale == 0)
        self.sums = self._zero_sums(updates=True)
        record_it = partial(self._record, record, confusion if progress.stale == 0 else None)
        self.saver.when_safe(self.step, record_it)
        self._end_epoch(epoch + 1, valid["accuracy"], valid["loss"] if monitor == "valid_loss" else None)

    def _end_epoch(self, epoch: int, accuracy: float, loss: float | None) -> None:
        """Save it, or hold it until epochs are saved again; `epoch` from 1 on."""
        is_over = self.progress.is_over(self.config.train, self.step)
        stop = self.stop.reached(self.step)
        is_due = is_over or stop or epoch % self.config.checkpoint.interval == 0
        self._save(accuracy=accuracy, loss=loss, hold=not is_due)
        if stop and not is_over:
            self._interrupt()

    def _record(self, record: dict[str, Any], confusion: Confusion | None) -> None:
        with self.watch("trackers") if self.config.logging.tracks else nullcontext():
            self.logbook.metrics(record, confusion)

    def _updates(self, epoch: int, start: int) -> None:
        """The epoch's updates from `start` on, saving inside it as asked for, or when the user wants to stop."""
        every, steps = self.config.checkpoint.every, self.progress.steps_per_epoch
        size = self.config.train.size_of_epoch(epoch, self.config.data.image_size)
        self.calls.begin_epoch(size)
        with self.logbook.bar(steps, f"epoch {epoch + 1}/{self.config.train.epochs}", start) as bar:
            for count, call in self.calls.of_epoch(epoch, start):
                self.state, self.sums = self._updates_at[size](self.state, self.sums, *self._taught_by, *call)
                self.step += count
                if chosen := self.calls.observe(self.sums):
                    self.logbook.line(chosen)
                inside = self.step - epoch * steps
                bar.update(inside, partial(read_means, self.sums))
                self.checkpoints.poll()
                if inside < steps:
                    stop = self.stop.reached(self.step)
                    if stop or (every and self.step % every == 0):
                        self._save()
                    if stop:
                        self._interrupt()

    def _evaluate(self) -> tuple[dict[str, float], Confusion | None]:
        """The validation pictures' means; for trackers also how they were confused."""
        sums, batch_size = self._zero_sums(updates=False), self.config.train.part_size
        batches = self.valid.batches(np.arange(self.valid.size), batch_size)
        with self.logbook.bar(math.ceil(self.valid.size / batch_size), "validation") as bar:
            for done, batch in enumerate(batches, start=1):
                sums = self._evaluation(self.state.evaluated, sums, batch)
                bar.update(done, partial(read_means, sums))
        counts = sums.pop("confusion", None)
        return read_means(sums), None if counts is None else Confusion(np.asarray(counts), self.classes)

    def _learning_rate(self) -> float:
        """That of the last update."""
        schedule = make_schedule(self.config.schedule, self.config.optimizer, self.total_steps)
        return float(schedule(self.step - 1)) * rate_factor(self.state.opt_state)

    def _not_finite(self, what: str) -> UserError:
        """The error for that, once the best epochs are safe."""
        self.saver.save_waiting()
        self.checkpoints.wait()
        return not_finite(
            what,
            self.checkpoints.workdir,
            self.config,
            step=self.step,
            rate=self._learning_rate(),
            grad_norm=read_means(self.sums)["grad_norm"],
            last=self.checkpoints.last,
        )

    def _save(self, *, hold: bool = False, **metrics: float | None) -> None:
        """Save the state as it is, or hold it."""
        with self.watch("save"):
            # What is saved may replace the last checkpoint that could be gone on from.
            if not all_finite((self.state.params, self.state.batch_stats, self.sums)):
                raise self._not_finite("a parameter, a statistic or the loss is no finite number")
            check_there(self.checkpoints.workdir)
            snapshot = Snapshot(self.step, self.state, self.sums, self.progress, **metrics)
            if hold:
                self.saver.hold(snapshot)
            else:
                self.saver.save(snapshot)
                self.progress = self.progress.saved()

    def _interrupt(self) -> NoReturn:
        self.checkpoints.wait()
        workdir: Path = self.checkpoints.workdir
        raise KeyboardInterrupt(
            f" at step {self.step}, saved; go on with: python -m jaxfood.train --workdir {workdir} --resume"
        )
