"""The configuration: every setting of a run, and where it comes from.

`optimizer`, `schedule`, `loss`, `landscape` and `distributed` hold the settings of the sections of those names,
`sections` the others; `fields` says what a setting is, `loading` reads files and flags.
"""

from jaxfood.config.loading import load_config, to_toml
from jaxfood.config.loss import LOSSES, LossConfig
from jaxfood.config.optimizer import OPTIMIZERS, OptimizerConfig
from jaxfood.config.schedule import SCHEDULES, ScheduleConfig
from jaxfood.config.sections import Config, DataConfig, ModelConfig

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
