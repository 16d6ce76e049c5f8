"""Orbax's manager of a run's checkpoints, in a module of its own: importing Orbax takes a quarter of a second."""

from pathlib import Path

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxfood.errors import UserError
from jaxfood.files import is_remote
from jaxfood.runs.manifest import find_damage, has_manifest
from jaxfood.runs.steps import METRICS, MODEL, PROGRESS, REMOVED, TRAIN, rank, read_metrics


def make_manager(folder: Path, keep_best: int, *, clean_up: bool) -> ocp.CheckpointManager:
    """A manager that keeps the last checkpoint and the `keep_best` best; arguments as those of `Checkpoints`."""
    options = ocp.CheckpointManagerOptions(
        best_fn=rank,
        preservation_policy=AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=rank, n=keep_best)]),
        cleanup_tmp_directories=clean_up,
        todelete_subdir=None if is_remote(folder) else REMOVED,
    )
    handlers: dict[str, ocp.CheckpointHandler] = {
        MODEL: ocp.StandardCheckpointHandler(),
        TRAIN: ocp.StandardCheckpointHandler(),
        PROGRESS: ocp.JsonCheckpointHandler(),
    }
    return _Manager(folder, item_handlers=handlers, options=options)


class _Manager(ocp.CheckpointManager):
    """Orbax' own, for which a checkpoint with damaged metrics is one without: kept, and no hindrance to the others."""

    def metrics(self, step: int) -> dict[str, float] | None:
        remote = is_remote(self.directory)
        folder = self.directory / str(step) if remote else Path(self.directory, str(step))
        try:
            if not remote and has_manifest(folder) and find_damage(folder, [METRICS]):
                return None
            metrics = read_metrics(folder)
            rank(metrics)
        except (OSError, UserError, ValueError, TypeError, KeyError):  # whoever asks for the best is told
            return None
        return metrics
