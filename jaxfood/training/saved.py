"""The state of a run on disk: read at a checkpoint, or made of given variables as the run's beginning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from jaxfood.config.sections import Config
from jaxfood.model.networks import init_variables
from jaxfood.optim.losses import check_class_weights
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import begin, check_free, on_one_device, read_config, write_config, writing
from jaxfood.runs.lock import hold
from jaxfood.runs.progress import Progress
from jaxfood.training.metrics import Sums, zero_sums
from jaxfood.training.state import TrainState


def save_state(checkpoints: Checkpoints, state: TrainState, sums: Sums, progress: Progress, **options: Any) -> None:
    """Begin to save a state with the metric sums of its epoch; options and the rest as `Checkpoints.save`."""
    checkpoints.save(int(state.step), state.evaluated, _beside(state, sums), progress, **options)


def restore_state(checkpoints: Checkpoints, step: int, state: TrainState, sums: Sums) -> tuple[TrainState, Sums]:
    """The state and metric sums at a step, in the shapes and on the devices of those given."""
    model, train = checkpoints.restore(step, state.evaluated, _beside(state, sums))
    average = None if state.average is None else model
    restored = state.replace(
        step=train["step"], opt_state=train["opt_state"], average=average, **train.get("variables", model)
    )
    return restored, train["sums"]


def _beside(state: TrainState, sums: Sums) -> dict[str, Any]:
    """What training needs beside the variables that predict."""
    beside = {"step": state.step, "opt_state": state.opt_state, "sums": sums}
    return beside if state.average is None else {**beside, "variables": state.variables}


def begin_from(
    workdir: Path,
    config: Config,
    variables: Mapping[str, Any],
    opt_state: optax.OptState | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Make a directory the run of given variables: step 0, nothing trained yet, which `--resume` goes on from.

    Args:
        workdir: free, as `check_free` has it.
        config: the run's.
        variables: `{"params": ..., "batch_stats": ...}`.
        opt_state: the optimizer's, if it goes on from elsewhere too; None begins anew.
        classes: their names; by default their numbers.
    """
    check_class_weights(config.loss, config.model.num_classes)
    check_free(workdir, overwrite=False)
    with hold(workdir):
        begin(workdir, classes or [str(label) for label in range(config.model.num_classes)])
        with Checkpoints(workdir) as checkpoints:
            state = TrainState.create(config, variables, total_steps=config.train.epochs)
            if opt_state is not None:
                state = state.replace(opt_state=opt_state)
            sums = zero_sums(updates=True, unlabeled=bool(config.data.unlabeled))
            save_state(checkpoints, state, sums, Progress(num_train=0, steps_per_epoch=0))
        with writing(workdir):
            write_config(workdir, config)  # last: without its checkpoint it would be a run of new weights


def load_state(workdir: Path, which: str | int) -> tuple[TrainState, int]:
    """The whole state at a checkpoint of a run, and the epochs done by then; arguments and errors as `load_run`."""
    config = read_config(workdir)
    with Checkpoints(workdir) as checkpoints:
        step = checkpoints.find(which)
        steps_per_epoch = max(1, checkpoints.read_progress(step).steps_per_epoch)  # 0 before the first epoch
        total_steps = config.train.epochs * steps_per_epoch
        target = jax.eval_shape(lambda: TrainState.create(config, init_variables(config), total_steps))
        sums = zero_sums(updates=True, unlabeled=bool(config.data.unlabeled))
        state, _ = restore_state(checkpoints, step, *on_one_device((target, sums)))
    return state, step // steps_per_epoch
