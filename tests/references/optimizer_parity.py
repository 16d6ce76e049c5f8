"""What the optimizers are compared on, with PyTorch's and with formulas, and jaxfood's side; needs no PyTorch.

`torch_parity.py` has PyTorch's side.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfood import Config, load_config, make_optimizer

Tree = dict[str, np.ndarray]
Gradient = Callable[[int, Tree], Tree]  # of step 0, 1, ... and the parameters

NUMBERS = Path(__file__).with_name("optimizer_numbers.json")  # where PyTorch's optimizers arrive
STEPS = 50
TORCH_CLASSES = {  # the optimizers that PyTorch has too, and their names in `torch.optim`
    "sgd": "SGD",
    "momentum": "SGD",
    "nesterov": "SGD",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
    "adadelta": "Adadelta",
    "adam": "Adam",
    "amsgrad": "Adam",
    "nadam": "NAdam",
    "adamw": "AdamW",
}
DECAYED = "learning_rate=0.02 weight_decay=0.3 clip_norm=1"
# An optimizer's name, then other settings than its defaults. An adaptive one at rest under a strong L2 makes whole
# steps of what rounding leaves of its gradient: a larger eps keeps such a case comparable.
CASES = [
    "sgd",
    "sgd learning_rate=0.05 weight_decay=0.1 clip_norm=0.5",
    "sgd learning_rate=0.01 clip_norm=inf",
    "sgd learning_rate=0.05 clip_value=0.3 clip_norm=inf",
    "sgd learning_rate=0.05 clip_value=0.3 clip_norm=0.5",
    f"sgd {DECAYED} decay_biases_and_norms=false",
    "momentum",
    "momentum learning_rate=0.01 momentum=0.5 weight_decay=0.1",
    f"momentum {DECAYED} decay_biases_and_norms=false",
    "momentum learning_rate=0.01 momentum=0",
    "nesterov",
    "nesterov learning_rate=0.01 momentum=0.5 weight_decay=0.1",
    f"nesterov {DECAYED} clip_value=0.5",
    "adagrad",
    "adagrad learning_rate=0.1 lr_decay=0.3 eps=1e-3",
    f"adagrad {DECAYED} initial_accumulator_value=0.1 lr_decay=0.01",
    "rmsprop",
    "rmsprop clip_norm=inf eps=1e-3 alpha=0.9",
    f"rmsprop {DECAYED} momentum=0.9 alpha=0.5 eps=0.01",
    "rmsprop centered=true eps=0.1",
    f"rmsprop {DECAYED} centered=true momentum=0.5 alpha=0.8 eps=0.01",
    "adadelta",
    "adadelta clip_norm=inf rho=0.5 eps=1e-3",
    f"adadelta {DECAYED} rho=0.99",
    "adam",
    "adam learning_rate=0.01 clip_norm=inf eps=1e-3 weight_decay=0",
    "adam learning_rate=0.01 beta1=0 beta2=0.9 weight_decay=0",
    "adam learning_rate=0.01 beta1=0.5 beta2=0 eps=0.01 weight_decay=0",
    f"adam {DECAYED} decay_biases_and_norms=false",
    "amsgrad",
    "amsgrad learning_rate=0.01 clip_norm=inf eps=1e-3",
    f"amsgrad {DECAYED} beta1=0.5 beta2=0.5",
    "nadam",
    "nadam learning_rate=0.01 clip_norm=inf eps=1e-3 momentum_decay=0.5",
    f"nadam {DECAYED} beta1=0.5 momentum_decay=0 eps=0.1",
    "adamw",
    "adamw learning_rate=0.01 clip_norm=inf eps=1e-3 weight_decay=0",
    f"adamw {DECAYED} beta1=0.5 beta2=0.9",
    "adamw learning_rate=0.05 weight_decay=0.5 decay_biases_and_norms=false",
]


class Problem(NamedTuple):
    """Where the parameters start, and their gradient."""

    start: Tree  # kernel [2, 3] and bias [4], float64
    gradient: Gradient


def _each_leaf(of_leaf: Callable[[int, np.ndarray], np.ndarray]) -> Gradient:
    """A gradient in float64 from that of each leaf's parameters in a row, in the parameters' type."""
    return lambda step, params: {
        name: of_leaf(step, p.ravel().astype(np.float64)).reshape(p.shape).astype(p.dtype) for name, p in params.items()
    }


def _bowl(step: int, p: np.ndarray) -> np.ndarray:
    """A bowl with waves."""
    return np.linspace(0.1, 4, p.size) * p + 2 * np.sin(3 * p + 1)


def _stretched(step: int, p: np.ndarray) -> np.ndarray:
    """A bowl whose curvatures differ by a factor of 10,000."""
    return np.logspace(-3, 1, p.size) * (p - 1)


def _silent(step: int, p: np.ndarray) -> np.ndarray:
    """Every fourth coordinate has no gradient, the next one at first, the next one later, the last one always."""
    heard = [False, step >= 5, step < 5, True]
    return np.where(np.resize(heard, p.size), _bowl(step, p), 0)


def _scales(step: int, p: np.ndarray) -> np.ndarray:
    """Noise of sizes from 1e-12 to 1e6."""
    return np.logspace(-12, 6, p.size) * np.random.default_rng([step, p.size]).normal(size=p.size)


_DRAWN = {"kernel": np.random.default_rng(0).normal(size=(2, 3)), "bias": np.zeros(4)}
_ORIGIN = {"kernel": np.zeros((2, 3)), "bias": np.zeros(4)}  # the smallest of movements keeps its digits there
STORED_PROBLEMS = ("silent", "scales")  # PyTorch's numbers are stored for these
PROBLEMS = {
    "bowl": Problem(_DRAWN, _each_leaf(_bowl)),
    "stretched": Problem(_DRAWN, _each_leaf(_stretched)),
    "silent": Problem(_DRAWN, _each_leaf(_silent)),
    "scales": Problem(_ORIGIN, _each_leaf(_scales)),
}


def configuration(case: str) -> Config:
    """The configuration of a case; an option with a dot in its name is another section's."""
    name, *options = case.split()
    options = [option if "." in option.partition("=")[0] else f"optimizer.{option}" for option in options]
    return load_config(None, [f"optimizer.name={name}", *options])


def trajectory(case: str, start: Tree, gradient: Gradient, dtype: str = "float64", steps: int = STEPS) -> list[Tree]:
    """The parameters after each update, computed in a type from the start on."""
    with jax.enable_x64(dtype == "float64"):
        tx, update = make_update(case, dtype)
        params = {name: p.astype(dtype) for name, p in start.items()}
        state = tx.init(params)
        result = []
        for step in range(steps):
            params, state = update(gradient(step, params), state, params)
            params = jax.tree.map(np.asarray, params)
            result.append(params)
    return result


@cache
def make_update(case: str, dtype: str) -> tuple[optax.GradientTransformation, Any]:
    """The optimizer, and its jitted update: gradient, state and parameters to new parameters and state."""
    tx = make_optimizer(configuration(case), STEPS)

    @jax.jit
    def update(grads: Tree, state: Any, params: Tree) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx, update


def deviation(ours: list[Tree], theirs: list[Tree]) -> float:
    """The largest difference after any update, each parameter's as a share of the largest value that it ever had."""
    shares = []
    for name in theirs[0]:
        a, b = (np.stack([params[name] for params in side]).astype(np.float64) for side in (ours, theirs))
        difference, largest = np.abs(a - b), np.max(np.abs(b), axis=0)
        shares.append(np.max(np.where(difference == 0, 0, difference / np.maximum(largest, np.finfo(float).tiny))))
    return float(np.max(shares))
