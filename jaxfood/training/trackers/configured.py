"""The trackers that a configuration asks for. By default it asks for none, and then there is none to call."""

from collections.abc import Callable

from jaxfood.config.sections import LoggingConfig
from jaxfood.training.trackers.mlflow_runs import MLflow, check_mlflow
from jaxfood.training.trackers.tensorboard import TensorBoard, check_tensorboard
from jaxfood.training.trackers.weights_and_biases import Wandb, check_wandb
from jaxfood.training.trackers.writer import Tracked, Writer


def check_trackers(logging: LoggingConfig) -> None:
    """Check, before any work, that what is asked for is installed and answers.

    Raises:
        UserError: it is not, or does not.
    """
    checks = {check_tensorboard: logging.tensorboard, check_wandb: logging.wandb, check_mlflow: logging.mlflow}
    for check, is_wanted in checks.items():
        if is_wanted:
            check()


def open_trackers(logging: LoggingConfig, run: Tracked) -> list[Writer]:
    """Those for one run.

    Raises:
        UserError: one cannot begin.
    """
    wanted: dict[Callable[[Tracked], Writer], bool] = {
        TensorBoard: logging.tensorboard,
        Wandb: logging.wandb,
        MLflow: logging.mlflow,
    }
    opened: list[Writer] = []
    try:
        for make in (make for make, is_wanted in wanted.items() if is_wanted):
            opened.append(make(run))
    except BaseException:
        for writer in opened:
            writer.close("failed")
        raise
    return opened
