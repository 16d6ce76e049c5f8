"""The landscape after an epoch of training, for metrics.jsonl: `landscape.every`."""

import jax

from jaxfood.config.sections import Config
from jaxfood.data.splits import Splits
from jaxfood.errors import UserError
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
