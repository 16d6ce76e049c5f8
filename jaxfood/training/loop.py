"""The epochs of one run: updates, evaluation, checkpoint, and where the run stands between them."""

import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood import processes
from jaxfood.config.schema import Config
from jaxfood.data.augment import changes
from jaxfood.data.batches import epoch_order, steps_per_epoch
from jaxfood.data.splits import Splits
from jaxfood.data.streaming import make_batches
from jaxfood.devices import Step, compile_step, on_every_device, takes_rows_by_device
from jaxfood.errors import UserError
from jaxfood.optim import plateau
from jaxfood.optim.schedules import make_schedule
from jaxfood.run_landscape.measure import landscape_metrics
from jaxfood.run_landscape.objective import choose_positions
from jaxfood.runs.checkpoints import Checkpoints, Memory
from jaxfood.training.interrupt import StopRequest
from jaxfood.training.logbook import Logbook, NoLogbook, Stopwatch
from jaxfood.training.state import TrainState, init_variables
from jaxfood.training.step import Sums, add_augmented_update, add_evaluation, add_update, means, zero_sums
from jaxfood.version import __version__


def is_over(config: Config, step: int, memory: Memory) -> bool:
    """Whether a run that stands at a step has nothing left to do: all epochs done, or stopped early."""
    epochs, inside = divmod(step, memory.steps_per_epoch)
    return not inside and (epochs >= config.train.epochs or memory.stale > config.train.patience)


def summary_of(config: Config, workdir: Path, step: int, memory: Memory) -> dict[str, Any]:
    """What `train_and_evaluate` returns of a run that stands at a step."""
    return {
        "workdir": str(workdir),
        "epochs": step // memory.steps_per_epoch,
        "step": step,
        "best_epoch": memory.best_epoch,
        "best_accuracy": memory.best_accuracy,
        "stopped_early": memory.stale > config.train.patience,
        "seconds": {},
    }


class Training:
    """One run in progress: what it is made of, and where it stands (`state`, `sums`, `step`, `memory`)."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        splits: Splits,
        mesh: Mesh,
        checkpoints: Checkpoints,
        stop: StopRequest,
        watch: Stopwatch,
    ) -> None:
        self.config, self.workdir, self.mesh = config, workdir, mesh
        self.checkpoints, self.stop, self.watch = checkpoints, stop, watch
        by_device = takes_rows_by_device(config)
        self.train = make_batches(splits.train, mesh, parts=config.train.accumulate, by_device=by_device)
        self.valid = make_batches(splits.valid, mesh, by_device=by_device)
        settings = config.landscape
        self.sample = splits.train.subset(choose_positions(len(splits.train), settings.samples, settings.seed))
        self.memory = Memory(len(splits.train), steps_per_epoch(len(splits.train), config.train.batch_size))
        self.total_steps = config.train.epochs * self.memory.steps_per_epoch
        with watch("initialise"):
            create = jax.jit(partial(TrainState.create, config, total_steps=self.total_steps))  # eager: 30 programs
            self.state: TrainState = on_every_device(create(init_variables(config)), mesh)
        self.sums = self._zero_sums(updates=True)
        self.step = 0
        if checkpoints.last is not None:
            self._restore(checkpoints.last)
        self.logbook = Logbook(workdir, config.logging, self.step) if processes.is_first() else NoLogbook()
        if self.memory.record:
            self.logbook.metrics(self.memory.record)
        self._introduce(splits)
        with watch("compile"):
            self._compile()
            processes.barrier()  # gloo gives up where another process comes to the first step 30 seconds later

    def run(self) -> dict[str, Any]:
        try:
            while not is_over(self.config, self.step, self.memory):
                self._epoch()
            with self.watch("save"):
                self.checkpoints.wait()
            self._conclude()
        finally:
            self.logbook.close()
        return summary_of(self.config, self.workdir, self.step, self.memory) | {"seconds": self.watch.seconds}

    def _restore(self, step: int) -> None:
        memory = self.checkpoints.read_memory(step) if step else self.memory
        if memory.num_train != self.memory.num_train:
            raise UserError(
                f"{self.workdir} was trained on {memory.num_train} pictures and there are {self.memory.num_train} now: "
                "put them back as they were, or begin a new run"
            )
        self.state, self.sums = self.checkpoints.restore_state(step, self.state, self.sums)
        self.step, self.memory = step, memory

    def _compile(self) -> None:
        compile_ = partial(compile_step, config=self.config, mesh=self.mesh)
        batch = next(self.train.batches(np.arange(self.train.size), self.config.train.batch_size))
        update: Step = add_update
        if changes(self.config.augment):
            update = partial(
                add_augmented_update,
                config=self.config.augment,
                seed=self.config.train.seed,
                steps_per_epoch=self.memory.steps_per_epoch,
            )
        self.update = compile_(update, arguments=(self.state, self.sums, batch), donate=(0, 1))
        evaluation = partial(add_evaluation, self.state.model, self.state.loss)
        batch = next(self.valid.batches(np.arange(self.valid.size), self.valid_batch_size))
        sums = self._zero_sums(updates=False)
        self.evaluate = compile_(evaluation, arguments=(self.state.variables, sums, batch), donate=(1,))

    @property
    def valid_batch_size(self) -> int:
        """Any would do; a whole batch may be too large for the memory where updates are made of parts."""
        return steps_per_epoch(self.config.train.batch_size, self.config.train.accumulate)

    def _zero_sums(self, *, updates: bool) -> Sums:
        return on_every_device(zero_sums(updates=updates), self.mesh)

    def _epoch(self) -> None:
        """The rest of the epoch that `step` stands in, its evaluation and its checkpoint."""
        epoch, inside = divmod(self.step, self.memory.steps_per_epoch)
        started = time.perf_counter()
        with self.watch("train"):
            self._updates(epoch, inside)
            train = _read_means(self.sums)
        trained = time.perf_counter()
        if not math.isfinite(train["loss"]):
            raise UserError(
                f"the training loss is {train['loss']} in epoch {epoch + 1}: set a lower optimizer.learning_rate or "
                f"optimizer.clip_norm; {self.workdir} keeps its earlier checkpoints"
            )
        with self.watch("validate"):
            valid = self._evaluate()
        pictures = self.memory.num_train - inside * self.config.train.batch_size
        schedule = make_schedule(self.config.schedule, self.config.optimizer, self.total_steps)
        record = {
            "epoch": epoch + 1,
            "step": self.step,
            "train_loss": train["loss"],
            "train_accuracy": train["accuracy"],
            "valid_loss": valid["loss"],
            "valid_accuracy": valid["accuracy"],
            "learning_rate": float(schedule(self.step - 1)) * plateau.rate_factor(self.state.opt_state),
            "grad_norm": train["grad_norm"],
            "seconds": time.perf_counter() - started,
            "images_per_second": pictures / (trained - started),
        }
        self.state = self.state.replace(opt_state=plateau.after_epoch(self.config, self.state.opt_state, record))
        if self.config.landscape.every and (epoch + 1) % self.config.landscape.every == 0:
            record |= self._standing()
        self.memory = dataclasses.replace(self.memory.after_epoch(epoch + 1, valid["accuracy"]), record=record)
        self.logbook.line(_epoch_line(record, self.config.train.epochs, best=self.memory.stale == 0))
        self.sums = self._zero_sums(updates=True)
        self._save(accuracy=valid["accuracy"])
        if self.stop.reached(self.step) and not is_over(self.config, self.step, self.memory):
            self._interrupt()

    def _updates(self, epoch: int, start: int) -> None:
        """The epoch's updates from `start` on, saving inside it as asked for, or when the user wants to stop."""
        every, steps = self.config.checkpoint.every, self.memory.steps_per_epoch
        order = epoch_order(self.config.train.seed, epoch, self.train.size)
        with self.logbook.bar(steps, f"epoch {epoch + 1}/{self.config.train.epochs}", start) as bar:
            for batch in self.train.batches(order, self.config.train.batch_size, start):
                self.state, self.sums = self.update(self.state, self.sums, batch)
                self.step += 1
                inside = self.step - epoch * steps
                bar.update(inside, partial(_read_means, self.sums))
                self.checkpoints.poll()
                if inside < steps:
                    stop = self.stop.reached(self.step)
                    if stop or (every and self.step % every == 0):
                        self._save()
                    if stop:
                        self._interrupt()

    def _evaluate(self) -> dict[str, float]:
        sums = self._zero_sums(updates=False)
        steps = steps_per_epoch(self.valid.size, self.valid_batch_size)
        batches = self.valid.batches(np.arange(self.valid.size), self.valid_batch_size)
        with self.logbook.bar(steps, "validation") as bar:
            for done, batch in enumerate(batches, start=1):
                sums = self.evaluate(self.state.variables, sums, batch)
                bar.update(done, partial(_read_means, sums))
        return _read_means(sums)

    def _standing(self) -> dict[str, float]:
        """The metrics of where the run stands, always on the same pictures; none where the loss is not finite."""
        with self.watch("landscape"):
            variables = jax.tree.map(lambda leaf: leaf.addressable_data(0), self.state.variables)
            try:
                return landscape_metrics(self.config, variables, self.sample)
            except UserError as error:  # no reason to end a training
                self.logbook.line(f"landscape not measured: {error}")
                return {}

    def _save(self, accuracy: float | None = None) -> None:
        """Begin to save; once an evaluated epoch is safe, its metrics are written."""
        record = self.memory.record
        when_safe = partial(self.logbook.metrics, record) if record and accuracy is not None else None
        with self.watch("save"):
            self.checkpoints.save(self.state, self.sums, self.memory, accuracy=accuracy, when_safe=when_safe)

    def _interrupt(self) -> NoReturn:
        self.checkpoints.wait()
        raise KeyboardInterrupt(
            f" at step {self.step}, saved; go on with: python -m jaxfood.train --workdir {self.workdir} --resume"
        )

    def _introduce(self, splits: Splits) -> None:
        devices = f"{self.mesh.size} {self.mesh.devices.flat[0].platform} device{'s' if self.mesh.size > 1 else ''}"
        if processes.count() > 1:
            devices += f" in {processes.count()} processes"
        self.logbook.line(
            f"{self.workdir}: {len(splits.train)} training and {len(splits.valid)} validation pictures of "
            f"{len(splits.classes)} classes, {self.config.data.image_size} px; jaxfood {__version__}, jax "
            f"{jax.__version__} on {devices}"
        )
        for name, pictures in (("training", splits.train), ("validation", splits.valid)):
            if pictures.skipped:
                self.logbook.line(f"left out {len(pictures.skipped)} {name} pictures that cannot be read")
        if self.step:
            self.logbook.line(f"going on after step {self.step} of {self.total_steps}")

    def _conclude(self) -> None:
        patience = self.config.train.patience
        if self.memory.stale > patience:
            self.logbook.line(
                f"stopped early: {self.memory.stale} epochs in a row brought no new best (patience {patience})"
            )
        self.logbook.line(f"best: accuracy {self.memory.best_accuracy:.4f} in epoch {self.memory.best_epoch}")
        self.logbook.line(f"time: {self.watch.split()}")


def _read_means(sums: Sums) -> dict[str, float]:
    """Plain numbers, divided on the host in float64 (348 of 750 is 0.464); waits for the device."""
    host = {name: np.float64(value) for name, value in jax.device_get(sums).items()}
    return {name: float(value) for name, value in means(host).items()}


def _epoch_line(record: Mapping[str, Any], epochs: int, *, best: bool) -> str:
    return (
        f"epoch {record['epoch']}/{epochs}: "
        f"train loss {record['train_loss']:.4f} accuracy {record['train_accuracy']:.4f}, "
        f"valid loss {record['valid_loss']:.4f} accuracy {record['valid_accuracy']:.4f}, "
        f"{record['seconds']:.1f} s, {record['images_per_second']:.0f} images/s{', new best' if best else ''}"
    )
