"""The configuration: every setting of a run, and where it comes from.

`model`, `optimizer`, `schedule`, `loss`, `landscape` and `distributed` hold the settings of the sections so named,
`sections` the others; `fields` says what a setting is, `loading` reads files and flags.
"""

from jaxfood.config.loading import load_config as load_config
from jaxfood.config.loading import to_toml as to_toml
from jaxfood.config.loss import LOSSES as LOSSES
from jaxfood.config.loss import LossConfig as LossConfig
from jaxfood.config.model import MODELS as MODELS
from jaxfood.config.model import ModelConfig as ModelConfig
from jaxfood.config.optimizer import OPTIMIZERS as OPTIMIZERS
from jaxfood.config.optimizer import OptimizerConfig as OptimizerConfig
from jaxfood.config.schedule import SCHEDULES as SCHEDULES
from jaxfood.config.schedule import ScheduleConfig as ScheduleConfig
from jaxfood.config.sections import Config as Config
from jaxfood.config.sections import DataConfig as DataConfig
