"""Best and last: a run's checkpoints, written by Orbax in the background."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxfood.errors import UserError
from jaxfood.files import absolute
from jaxfood.runs.progress import NOT_EVALUATED, Progress

CHECKPOINTS = "checkpoints"
# The items of a checkpoint, by their folders' names: a run that was written keeps them.
_MODEL, _TRAIN, _PROGRESS = "model", "train", "memory"


class Checkpoints:
    """The checkpoints of a run, by step: the `keep_best` best and the last.

    A context manager: leaving it waits for what is being written.

    Args:
        workdir: the run.
        keep_best: how many of the best are kept.
        clean_up: remove what an interrupted save left, before the next one. For the process that trains the run alone:
            to another one a save in progress looks the same.
    """

    def __init__(self, workdir: Path, keep_best: int = 1, *, clean_up: bool = False) -> None:
        best = BestN(get_metric_fn=_rank, n=keep_best)
        options = ocp.CheckpointManagerOptions(
            best_fn=_rank,
            preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
            cleanup_tmp_directories=clean_up,
        )
        self.workdir = workdir
        handlers: dict[str, ocp.CheckpointHandler] = {
            _MODEL: ocp.StandardCheckpointHandler(),
            _TRAIN: ocp.StandardCheckpointHandler(),
            _PROGRESS: ocp.JsonCheckpointHandler(),
        }
        folder = absolute(workdir / CHECKPOINTS)
        self._manager = ocp.CheckpointManager(folder, item_handlers=handlers, options=options)
        self._when_safe: Callable[[], None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()
        self._manager.close()

    @property
    def last(self) -> int | None:
        """The step of the last checkpoint."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        variables: Any,
        train: Any,
        progress: Progress,
        *,
        accuracy: float | None = None,
        when_safe: Callable[[], None] | None = None,
    ) -> None:
        """Begin to write a checkpoint, after the one before is safe.

        Args:
            step: updates done.
            variables: the model's. Copied before this returns, so they may be donated at once.
            train: a tree of what training needs beside them; copied too.
            progress: the rest of what the run must remember.
            accuracy: validation accuracy, where it was measured.
            when_safe: called by `poll` or `wait` once the checkpoint is whole on disk.
        """
        self.wait()
        items = {
            _MODEL: ocp.args.StandardSave(variables),
            _TRAIN: ocp.args.StandardSave(train),
            _PROGRESS: ocp.args.JsonSave(dataclasses.asdict(progress)),
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(**items),
            metrics={"step": step, "valid_accuracy": NOT_EVALUATED if accuracy is None else accuracy},
        )
        self._when_safe = when_safe

    def poll(self) -> None:
        """Run the last save's `when_safe` if the checkpoint is whole by now."""
        if self._when_safe and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Wait for what is being written."""
        self._manager.wait_until_finished()
        if self._when_safe:
            self._when_safe()
        self._when_safe = None

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
            best = self._manager.best_step()
            return steps[-1] if best is None else best
        if str(which).isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(
            f"{self.workdir} has no checkpoint {which}; there are: best, last, {', '.join(map(str, steps))}"
        )

    def read_progress(self, step: int) -> Progress:
        """How far the run had come at a step."""
        args = ocp.args.Composite(**{_PROGRESS: ocp.args.JsonRestore()})
        return Progress(**self._manager.restore(step, args=args)[_PROGRESS])

    def restore(self, step: int, variables: Any, train: Any) -> tuple[Any, Any]:
        """Both trees at a step, in the shapes and on the devices of those given."""
        restored = self._restore(step, {_MODEL: variables, _TRAIN: train})
        return restored[_MODEL], restored[_TRAIN]

    def restore_variables(self, step: int, target: Any) -> dict[str, Any]:
        """The model's variables alone, in the shapes and on the devices of `target`."""
        return self._restore(step, {_MODEL: target})[_MODEL]

    def _restore(self, step: int, targets: Mapping[str, Any]) -> Any:
        for item, target in targets.items():
            self._check_shapes(step, item, target)
        args = {item: ocp.args.StandardRestore(target) for item, target in targets.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**args))

    def _check_shapes(self, step: int, item: str, target: Any) -> None:
        """Compare before Orbax does, whose error comes among tracebacks of its event loop."""
        saved = _shapes(self._manager.item_metadata(step)[item])
        wanted = _shapes(target)
        for name in wanted.keys() | saved.keys():
            if wanted.get(name) != saved.get(name):
                raise UserError(
                    f"checkpoint {step} of {self.workdir} does not fit its config.toml: {item} {name} is "
                    f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} by the configuration; "
                    "restore the config.toml that the run was trained with"
                )


def _rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Best is the highest validation accuracy, and the first of equals."""
    return metrics["valid_accuracy"], -metrics["step"]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
