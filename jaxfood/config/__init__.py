"""The configuration: every setting of a run, and where it comes from."""

from jaxfood.config.losses import LOSSES, LossConfig
from jaxfood.config.optimizers import OPTIMIZERS, OptimizerConfig
from jaxfood.config.schedules import SCHEDULES, ScheduleConfig
from jaxfood.config.schema import Config, DataConfig, ModelConfig
from jaxfood.config.sources import load_config, to_toml

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Config",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "load_config",
    "to_toml",
]
