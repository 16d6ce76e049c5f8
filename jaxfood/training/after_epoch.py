"""What is done after an epoch, once it is evaluated and before it is saved."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxfood.config.schedule import Plateau
from jaxfood.config.sections import Config
from jaxfood.data.splits import Splits
from jaxfood.optim import plateau
from jaxfood.training.state import TrainState

Record = Mapping[str, Any]  # an epoch's line of metrics.jsonl so far: epoch (from 1 on), step, losses, accuracies, ...
Log = Callable[[str], None]  # takes a line for the user

# Of the state after an epoch's last update, and its record: the state to go on with, and what is added to the record.
AfterEpoch = Callable[[TrainState, Record, Log], tuple[TrainState, dict[str, float]]]

# Made when a run begins; None where the configuration asks for nothing.
MakeAfterEpoch = Callable[[Config, Splits], AfterEpoch | None]


def lower_rate_on_plateau(config: Config, splits: Splits) -> AfterEpoch | None:
    """The step of the schedule `plateau`."""
    if not isinstance(config.schedule, Plateau):
        return None

    def after_epoch(state: TrainState, record: Record, log: Log) -> tuple[TrainState, dict[str, float]]:
        return state.replace(opt_state=plateau.after_epoch(config, state.opt_state, record)), {}

    return after_epoch
