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
from jaxfood.training.state import TrainState

CHECKPOINTS = "checkpoints"
_NOT_EVALUATED = -1.0  # the accuracy of a checkpoint from inside an epoch: below any real one


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a run must remember beside its arrays: the best epoch so far, and how large an epoch is."""

    num_train: int
    steps_per_epoch: int
    best_accuracy: float = _NOT_EVALUATED
    best_epoch: int = 0
    stale: int = 0  # epochs since the best
    record: dict[str, Any] | None = None  # the last epoch's metrics, should metrics.jsonl lack them

    def after_epoch(self, epoch: int, accuracy: float) -> "Memory":
        """Best is strictly better, so the first of equals; the first epoch is always a best."""
        if accuracy > self.best_accuracy:
            return dataclasses.replace(self, best_accuracy=accuracy, best_epoch=epoch, stale=0)
        return dataclasses.replace(self, stale=self.stale + 1)


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
        self._workdir = workdir
        handlers: dict[str, ocp.CheckpointHandler] = {
            "model": ocp.StandardCheckpointHandler(),
            "train": ocp.StandardCheckpointHandler(),
            "memory": ocp.JsonCheckpointHandler(),
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
        state: TrainState,
        sums: Mapping[str, jax.Array],
        memory: Memory,
        *,
        accuracy: float | None = None,
        when_safe: Callable[[], None] | None = None,
    ) -> None:
        """Begin to write a checkpoint, after the one before is safe.

        Args:
            state: copied before this returns, so it may be donated at once.
            sums: the metric sums of the epoch that `state` stands in.
            memory: the rest of what the run must remember.
            accuracy: validation accuracy, where it was measured.
            when_safe: called by `poll` or `wait` once the checkpoint is whole on disk.
        """
        self.wait()
        step = int(state.step)
        train = {"step": state.step, "opt_state": state.opt_state, "sums": dict(sums)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(state.variables),
                train=ocp.args.StandardSave(train),
                memory=ocp.args.JsonSave(dataclasses.asdict(memory)),
            ),
            metrics={"step": step, "valid_accuracy": _NOT_EVALUATED if accuracy is None else accuracy},
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
            raise UserError(f"{self._workdir} has no checkpoint yet; train it first")
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self._manager.best_step()
            return steps[-1] if best is None else best
        if str(which).isdecimal() and int(which) in steps:
            return int(which)
        raise UserError(
            f"{self._workdir} has no checkpoint {which}; there are: best, last, {', '.join(map(str, steps))}"
        )

    def read_memory(self, step: int) -> Memory:
        """What the run remembered at a step."""
        return Memory(**self._manager.restore(step, args=ocp.args.Composite(memory=ocp.args.JsonRestore()))["memory"])

    def restore_state(
        self, step: int, state: TrainState, sums: Mapping[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The state and metric sums at a step, in the shapes and on the devices of those given."""
        targets = {
            "model": state.variables,
            "train": {"step": state.step, "opt_state": state.opt_state, "sums": dict(sums)},
        }
        restored = self._restore(step, targets)
        model, train = restored["model"], restored["train"]
        new_state = state.replace(
            step=train["step"],
            params=model["params"],
            batch_stats=model["batch_stats"],
            opt_state=train["opt_state"],
        )
        return new_state, train["sums"]

    def restore_variables(self, step: int, target: Any) -> dict[str, Any]:
        """The model's variables alone, in the shapes and on the devices of `target`."""
        return self._restore(step, {"model": target})["model"]

    def _restore(self, step: int, targets: Mapping[str, Any]) -> Any:
        for item, target in targets.items():
            self._check_shapes(step, item, target)
        return self._manager.restore(
            step,
            args=ocp.args.Composite(**{item: ocp.args.StandardRestore(target) for item, target in targets.items()}),
        )

    def _check_shapes(self, step: int, item: str, target: Any) -> None:
        """Compare before Orbax does, whose error comes among tracebacks of its event loop."""
        saved = _shapes(self._manager.item_metadata(step)[item])
        wanted = _shapes(target)
        for name in wanted.keys() | saved.keys():
            if wanted.get(name) != saved.get(name):
                raise UserError(
                    f"checkpoint {step} of {self._workdir} does not fit its config.toml: {item} {name} is "
                    f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} by the configuration; "
                    "restore the config.toml that the run was trained with"
                )


def _rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Best is the highest validation accuracy, and the first of equals."""
    return metrics["valid_accuracy"], -metrics["step"]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
