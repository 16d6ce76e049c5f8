"""jaxfood: train an image classifier on a folder of food photographs, in JAX and Flax.

The public names; each is imported when it is first used, so that `import jaxfood` is quick and sets nothing.
"""

import sys
from itertools import pairwise

# Python is finding a command of this package, and of no other: Ctrl-C shall be one line from here on.
if sys.argv[:1] == ["-m"] and any(
    flag[:1] == "-" and flag[-1:] == "m" and module.partition(".")[0] == "jaxfood"
    for flag, module in pairwise(sys.orig_argv)
):
    from jaxfood import terminal

    terminal.catch_interrupts()

from etils import epy

from jaxfood.version import __version__ as __version__

with epy.lazy_api_imports(globals()):
    from jaxfood.config import Config as Config
    from jaxfood.config import load_config as load_config
    from jaxfood.errors import UserError as UserError
    from jaxfood.evaluate import evaluate as evaluate
    from jaxfood.inference.probabilities import predict_probabilities as predict_probabilities
    from jaxfood.model.classifier import FoodClassifier as FoodClassifier
    from jaxfood.optim.optimizers import make_optimizer as make_optimizer
    from jaxfood.pytorch.weights import from_torch as from_torch
    from jaxfood.pytorch.weights import to_torch as to_torch
    from jaxfood.runs.directory import load_run as load_run
    from jaxfood.train import train_and_evaluate as train_and_evaluate
    from jaxfood.training.state import TrainState as TrainState
    from jaxfood.training.step import train_step as train_step
