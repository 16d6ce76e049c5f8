"""The configuration: every setting of a run, and where it comes from."""

from jaxfood.config.optimizers import OPTIMIZERS, OptimizerConfig
from jaxfood.config.schedules import SCHEDULES, ScheduleConfig
from jaxfood.config.schema import Config, DataConfig, ModelConfig
from jaxfood.config.sources import load_config, to_toml

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "load_config",
    "to_toml",
]
