"""How far a run has come, beside its arrays: the best epoch, patience, and how large an epoch is."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxfood.config.sections import TrainConfig

NOT_EVALUATED = -1.0  # the accuracy of a checkpoint from inside an epoch: below any real one


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint keeps beside the state.

    Attributes:
        num_train: training pictures.
        steps_per_epoch: updates in an epoch, the smaller last batch included.
        best_accuracy: validation accuracy of the best epoch so far.
        best_loss: its validation loss; None in runs of earlier versions.
        best_epoch: the first epoch with that, from 1 on.
        stale: epochs since then.
        record: the last epoch's metrics, should metrics.jsonl lack them; None where an earlier checkpoint has them.
        unsaved: those of the epochs before it that no earlier checkpoint has (`checkpoint.interval`).
    """

    num_train: int
    steps_per_epoch: int
    best_accuracy: float = NOT_EVALUATED
    best_loss: float | None = None
    best_epoch: int = 0
    stale: int = 0
    record: dict[str, Any] | None = None
    unsaved: tuple[dict[str, Any], ...] = ()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The metrics of the epochs since the checkpoint before."""
        return [*self.unsaved, *([self.record] if self.record else [])]

    def with_record(self, record: dict[str, Any]) -> "Progress":
        """With the metrics of a further epoch."""
        return dataclasses.replace(self, record=record, unsaved=tuple(self.records))

    def saved(self) -> "Progress":
        """As a checkpoint after one that has all metrics so far needs it."""
        return dataclasses.replace(self, record=None, unsaved=())

    def after_epoch(self, epoch: int, accuracy: float, loss: float, monitor: str) -> "Progress":
        """Best is strictly better, so the first of equals; the first epoch is always a best.

        Args:
            epoch: from 1 on.
            accuracy: of the validation.
            loss: of the validation.
            monitor: which of the two counts, `train.monitor`.
        """
        better = accuracy > self.best_accuracy
        if monitor == "valid_loss" and self.best_loss is not None:
            better = loss < self.best_loss
        if better:
            return dataclasses.replace(self, best_accuracy=accuracy, best_loss=loss, best_epoch=epoch, stale=0)
        return dataclasses.replace(self, stale=self.stale + 1)

    def is_over(self, train: TrainConfig, step: int) -> bool:
        """Whether a run that stands at a step has nothing left to do: all epochs done, or stopped early."""
        epochs, inside = divmod(step, self.steps_per_epoch)
        return not inside and (epochs >= train.epochs or self.is_stale(train))

    def is_stale(self, train: TrainConfig) -> bool:
        """The notes' early stopping: more epochs than `train.patience` in a row brought no new best."""
        return self.stale > train.patience

    def summary(self, train: TrainConfig, workdir: Path, step: int) -> dict[str, Any]:
        """What `train_and_evaluate` returns of a run that stands at a step."""
        return {
            "workdir": str(workdir),
            "epochs": step // self.steps_per_epoch,
            "step": step,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "stopped_early": self.is_stale(train),
            "seconds": {},
        }
