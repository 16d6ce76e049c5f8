"""The landscape after an epoch of training, for metrics.jsonl: `landscape.every`, `logging.critical_learning_rate`."""

import jax

from jaxfood.config.sections import Config
from jaxfood.data.splits import Splits
from jaxfood.errors import UserError
from jaxfood.optim.stability import scales_parameters
from jaxfood.run_landscape.critical_rate import critical_rate_metrics
from jaxfood.run_landscape.measure import landscape_metrics
from jaxfood.run_landscape.objective import choose_positions
from jaxfood.training.after_epoch import AfterEpoch, Log, Record
from jaxfood.training.state import TrainState


def measure_landscape(config: Config, splits: Splits) -> AfterEpoch | None:
    """Gradient and both ends of the spectrum after every so many epochs, always on the same training pictures."""
    settings = config.landscape
    if not settings.every:
        return None
    pictures = splits.train.subset(choose_positions(len(splits.train), settings.samples, settings.seed))

    def after_epoch(state: TrainState, record: Record, log: Log) -> tuple[TrainState, dict[str, float]]:
        if record["epoch"] % settings.every:
            return state, {}
        variables = jax.tree.map(lambda leaf: leaf.addressable_data(0), state.variables)
        try:
            return state, landscape_metrics(config, variables, pictures)
        except UserError as error:  # a loss that is not finite there: no reason to end a training
            log(f"landscape not measured: {error}")
            return state, {}

    return after_epoch


def measure_critical_rate(config: Config, splits: Splits) -> AfterEpoch | None:
    """The smallest learning rate that would raise the loss, after every so many epochs, on the same pictures.

    Raises:
        UserError: it is asked for, and the optimizer has no scale for each parameter.
    """
    interval, settings = config.logging.critical_learning_rate, config.landscape
    if not interval:
        return None
    if not scales_parameters(config.optimizer):
        raise UserError(
            f"logging.critical_learning_rate = {interval}: {config.optimizer.name} has no scale for each parameter; "
            "set it to 0, or take another optimizer"
        )
    pictures = splits.train.subset(choose_positions(len(splits.train), settings.samples, settings.seed))

    def after_epoch(state: TrainState, record: Record, log: Log) -> tuple[TrainState, dict[str, float]]:
        if record["epoch"] % interval:
            return state, {}
        variables, opt_state = jax.tree.map(lambda leaf: leaf.addressable_data(0), (state.variables, state.opt_state))
        rate = record["learning_rate"] or config.optimizer.learning_rate
        try:
            return state, critical_rate_metrics(config, variables, opt_state, pictures, rate)
        except UserError as error:  # a loss that is not finite there: no reason to end a training
            log(f"critical learning rate not measured: {error}")
            return state, {}

    return after_epoch
