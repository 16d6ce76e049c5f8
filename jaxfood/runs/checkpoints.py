"""Best and last: a run's checkpoints, written by Orbax in the background, and checked when they are read."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from jaxfood import processes
from jaxfood.errors import UserError
from jaxfood.files import absolute, is_remote, remove
from jaxfood.runs.faults import keep_quiet, mend_of, reason_of
from jaxfood.runs.manifest import find_damage, has_manifest, write_manifest
from jaxfood.runs.progress import NOT_EVALUATED, Progress
from jaxfood.runs.steps import (
    METRICS,
    MODEL,
    PROGRESS,
    REMOVED,
    TRAIN,
    leftovers,
    metrics_of,
    missing,
    rank,
    read_metrics,
    steps_on_disk,
)

CHECKPOINTS = "checkpoints"


class Checkpoints:
    """The checkpoints of a run, by step: the `keep_best` best and the last.

    A context manager: leaving it waits for what is being written.

    A checkpoint on this machine's disks has a checksum for every file, and what is restored is what was saved, to the
    bit, or a UserError: so for all that reads here. Checkpoints of earlier versions have none and go unchecked, as do
    those in a bucket, whose service has checksums of its own. Reading changes nothing.

    Args:
        workdir: the run.
        keep_best: how many of the best are kept.
        clean_up: remove what an interrupted save or removal left, before the next one. For the process that trains the
            run alone: to another one a save in progress looks the same.
    """

    def __init__(self, workdir: Path, keep_best: int = 1, *, clean_up: bool = False) -> None:
        from jaxfood.runs.manager import make_manager

        keep_quiet()
        self.workdir = workdir
        self._folder = absolute(workdir / CHECKPOINTS)
        if clean_up and processes.is_first():
            self._remove_leftovers()
        try:
            self._manager = make_manager(self._folder, keep_best, clean_up=clean_up)
        except OSError as error:
            raise UserError(f"cannot read {self._folder} ({reason_of(error)}): mend that") from error
        self._saving: int | None = None
        self._thread = ThreadPoolExecutor(1)  # checksums of 120 MB take 0.2 s, which training need not wait for
        self._sealed: Future[None] | None = None
        self._when_safe: Callable[[], None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = None
        for work in (self.wait, self._manager.close, self._thread.shutdown):
            try:
                with self._saved(self._saving):
                    work()
            except UserError as problem:
                failed = failed or problem
        if failed and not isinstance(error, UserError):  # else that one is the first cause, or the same
            raise failed

    @property
    def last(self) -> int | None:
        """The step of the last checkpoint."""
        return max(self.steps, default=None)

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending."""
        steps = sorted(self._manager.all_steps())
        left = leftovers(self._folder, [step for step in steps if step != self._saving])
        return [step for step in steps if step not in left]

    def save(
        self,
        step: int,
        variables: Any,
        train: Any,
        progress: Progress,
        *,
        accuracy: float | None = None,
        loss: float | None = None,
        when_safe: Callable[[], None] | None = None,
    ) -> None:
        """Begin to write a checkpoint, after the one before is safe.

        Args:
            step: updates done.
            variables: the model's. Copied before this returns, so they may be donated at once.
            train: a tree of what training needs beside them; copied too.
            progress: the rest of what the run must remember.
            accuracy: validation accuracy, where it was measured.
            loss: validation loss, where that tells the best.
            when_safe: called by `poll` or `wait` once the checkpoint is whole on disk.

        Raises:
            UserError: it cannot be written, or the one before could not be; so from `poll`, `wait` and the end too.
        """
        import orbax.checkpoint as ocp

        self.wait()
        items = {
            MODEL: ocp.args.StandardSave(variables),
            TRAIN: ocp.args.StandardSave(train),
            PROGRESS: ocp.args.JsonSave(dataclasses.asdict(progress)),
        }
        with self._saved(step):
            metrics = metrics_of(step, accuracy, loss)
            saved = self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)
        self._saving, self._when_safe = step if saved else None, when_safe  # one that is there stays as it is

    def poll(self) -> None:
        """As `wait`, if the checkpoint is whole by now."""
        if self._saving is None or self._manager.is_saving_in_progress():
            return
        if self._sealed is None:
            self._sealed = self._thread.submit(self._seal, self._saving)
        elif self._sealed.done():
            self.wait()

    def wait(self) -> None:
        """Wait for what is being written, its checksums too, and run its `when_safe`."""
        with self._saved(self._saving):
            self._manager.wait_until_finished()
            if self._sealed:
                self._sealed.result()
            elif self._saving is not None:
                self._seal(self._saving)
        when_safe, self._saving, self._sealed, self._when_safe = self._when_safe, None, None, None
        if when_safe:
            when_safe()

    def _seal(self, step: int) -> None:
        """Write the checksums of a checkpoint that is whole, and delete what it has replaced."""
        if processes.is_first() and not is_remote(self._folder):
            write_manifest(self._folder / str(step))
            remove(self._folder / REMOVED)

    def find(self, which: str | int) -> int:
        """The step of the checkpoint that `which` means: "best", "last" or a step.

        Raises:
            UserError: there is no such checkpoint.
        """
        steps = self.steps
        if not steps:
            raise UserError(f"{self.workdir} has no checkpoint yet; train it first")
        if which == "last":
            return steps[-1]
        if which == "best":
            return max(steps, key=self._rank)
        if str(which).isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(
            f"{self.workdir} has no checkpoint {which}; there are: best, last, {', '.join(map(str, steps))}"
        )

    def ranks(self) -> list[tuple[float, float]]:
        """`rank` of each checkpoint that was evaluated, as far as its metrics can be read."""
        metrics = [self._manager.metrics(step) for step in self.steps]
        return [rank(known) for known in metrics if known and known["valid_accuracy"] != NOT_EVALUATED]

    def read_progress(self, step: int) -> Progress:
        """How far the run had come at a step.

        Raises:
            UserError: the checkpoint is damaged; `restore` and `restore_variables` raise it too.
        """
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()})
        with self._read(step, [PROGRESS]):
            kept = self._manager.restore(step, args=args)[PROGRESS]
            return Progress(**{**kept, "unsaved": tuple(kept.get("unsaved", ()))})  # JSON has lists

    def restore(self, step: int, variables: Any, train: Any) -> tuple[Any, Any]:
        """Both trees at a step, in the shapes and on the devices of those given."""
        restored = self._restore(step, {MODEL: variables, TRAIN: train})
        return restored[MODEL], restored[TRAIN]

    def restore_variables(self, step: int, target: Any) -> dict[str, Any]:
        """The model's variables alone, in the shapes and on the devices of `target`."""
        return self._restore(step, {MODEL: target})[MODEL]

    def _restore(self, step: int, targets: Mapping[str, Any]) -> Any:
        import orbax.checkpoint as ocp

        args = {item: ocp.args.StandardRestore(target) for item, target in targets.items()}
        with self._read(step, targets):
            for item, target in targets.items():
                self._check_shapes(step, item, target)
            return self._manager.restore(step, args=ocp.args.Composite(**args))

    def _rank(self, step: int) -> tuple[float, float]:
        with self._read(step, [METRICS]):
            return rank(read_metrics(self._folder / str(step)))

    def _check_shapes(self, step: int, item: str, target: Any) -> None:
        """Compare before Orbax does, whose error comes among tracebacks of its event loop."""
        import orbax.checkpoint as ocp

        # Not by the manager, which reads the metadata of every item, and any of them may be damaged.
        folder = self._manager.directory / str(step) / item
        saved = _shapes(ocp.StandardCheckpointHandler().metadata(folder))
        wanted = _shapes(target)
        for name in wanted.keys() | saved.keys():
            if wanted.get(name) != saved.get(name):
                raise UserError(
                    f"checkpoint {step} of {self.workdir} does not fit its config.toml: {item} {name} is "
                    f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} by the configuration; "
                    "restore the config.toml that the run was trained with"
                )

    @contextmanager
    def _saved(self, step: int | None) -> Iterator[None]:
        """Turns what Orbax raises of a save, its own or of the one before, into UserError; the save is over then."""
        try:
            yield
        except (UserError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # OSError, and ValueError of TensorStore
            self._saving, self._sealed, self._when_safe, stand = None, None, None, []
            with suppress(OSError):  # the disk may be gone
                stand = [kept for kept in steps_on_disk(self._folder) if kept != step]
            which = "" if step is None else f" {step}"
            raise UserError(
                f"cannot save checkpoint{which} in {self.workdir} ({reason_of(error)}): {mend_of(error)}, then go on "
                f"with --resume; {f'the checkpoint of step {stand[-1]} stands' if stand else 'there is none before it'}"
            ) from error

    @contextmanager
    def _read(self, step: int, items: Collection[str]) -> Iterator[None]:
        """Checks items of a checkpoint before they are read, and turns what Orbax raises of damage into UserError."""
        with processes.together():
            if processes.is_first() and (damage := self._damage(step, items)):
                raise self._refusal(step, items, f"is damaged ({damage})")
        try:
            yield
        except (UserError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # of Orbax, TensorStore and json each their own
            if self._is_checked(step) and not isinstance(error, OSError):
                raise  # the files are as they were written: no damage, but a fault of the program
            reason = f"{', '.join(items)}: {reason_of(error)}"
            raise self._refusal(step, items, f"cannot be read ({reason})") from error

    def _is_checked(self, step: int) -> bool:
        return not is_remote(self._folder) and has_manifest(self._folder / str(step))

    def _damage(self, step: int, items: Collection[str]) -> str:
        """What is damaged of a checkpoint, as far as can be told before it is read."""
        folder = self._folder / str(step)
        if not is_remote(folder) and not folder.is_dir():
            return "it was removed meanwhile"
        if self._is_checked(step):
            return find_damage(folder, items)
        return next((f"{name}: missing" for name in missing(folder, items)), "")

    def _refusal(self, step: int, items: Collection[str], damage: str) -> UserError:
        """The error for a checkpoint with the mend: a copy, or another checkpoint whose files are whole."""
        whole = [other for other in self.steps if other != step and not self._damage(other, items)]
        if not whole:
            mend = "restore it from a copy; the run has no other checkpoint that is whole"
        else:
            mend = f"restore it from a copy, or take --which {whole[-1]}"
            if step > whole[-1]:
                mend += f"; to go on from step {whole[-1]} remove {self.workdir / CHECKPOINTS / str(step)}"
        return UserError(f"checkpoint {step} of {self.workdir} {damage}: {mend}")

    def _remove_leftovers(self) -> None:
        """Remove what was to be removed when an earlier training was killed."""
        with self._saved(None):
            remove(self._folder / REMOVED)
            for step in leftovers(self._folder, steps_on_disk(self._folder)):
                remove(self._folder / str(step))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
