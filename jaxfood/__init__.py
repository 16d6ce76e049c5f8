"""jaxfood: train an image classifier on a folder of food photographs, in JAX and Flax."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxfood.version import __version__

if TYPE_CHECKING:
    from jaxfood.config import Config, load_config
    from jaxfood.errors import UserError
    from jaxfood.model.classifier import FoodClassifier
    from jaxfood.model.torch_weights import from_torch, to_torch
    from jaxfood.optim.optimizers import make_optimizer
    from jaxfood.training.loop import train_and_evaluate
    from jaxfood.training.run import load_run
    from jaxfood.training.state import TrainState
    from jaxfood.training.step import train_step

_HOMES = {
    "Config": "config",
    "FoodClassifier": "model.classifier",
    "TrainState": "training.state",
    "UserError": "errors",
    "from_torch": "model.torch_weights",
    "load_config": "config",
    "load_run": "training.run",
    "make_optimizer": "optim.optimizers",
    "to_torch": "model.torch_weights",
    "train_and_evaluate": "training.loop",
    "train_step": "training.step",
}

__all__ = [
    "Config",
    "FoodClassifier",
    "TrainState",
    "UserError",
    "__version__",
    "from_torch",
    "load_config",
    "load_run",
    "make_optimizer",
    "to_torch",
    "train_and_evaluate",
    "train_step",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import jaxfood` is quick and sets nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxfood' has no attribute {name!r}")
    return getattr(import_module(f"jaxfood.{_HOMES[name]}"), name)
