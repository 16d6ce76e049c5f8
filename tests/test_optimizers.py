"""The optimizers: PyTorch's update by update, formulas by hand, and the order clip, L2, direction, rate."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfood.config import OPTIMIZERS, Config, load_config
from jaxfood.optim.optimizers import clip_by_norm, make_optimizer

STEPS = 50
Tree = dict[str, np.ndarray]

# The optimizer's name, then other settings than its defaults.
CASES = [
    "sgd",
    "sgd learning_rate=0.05 weight_decay=0.1 clip_norm=0.5",
    "sgd clip_norm=inf learning_rate=0.01",
    "momentum learning_rate=0.01",
    "momentum learning_rate=0.02 momentum=0.5 weight_decay=0.1 clip_norm=1",
    "momentum momentum=0 learning_rate=0.01",
    "nesterov learning_rate=0.01",
    "nesterov learning_rate=0.02 momentum=0.5 weight_decay=0.1 clip_norm=1",
    "adagrad",
    "adagrad learning_rate=0.1 lr_decay=0.3",
    "adagrad initial_accumulator_value=0.1 weight_decay=0.1 lr_decay=0.01 clip_norm=1 eps=1e-3",
    "rmsprop",
    "rmsprop weight_decay=0.1 clip_norm=0.5 alpha=0.9",
    "rmsprop momentum=0.9 learning_rate=0.001",
    "rmsprop centered=true eps=0.1",
    "rmsprop centered=true momentum=0.5 weight_decay=0.1 clip_norm=1 alpha=0.8 eps=0.01",
    "adam",
    "adam learning_rate=0.05 weight_decay=0.3 clip_norm=0.5",
    "adam learning_rate=0.05 beta1=0 beta2=0.9 eps=0.01 weight_decay=0",
    "adamw",
    "adamw learning_rate=0.05 weight_decay=0.5 clip_norm=0.5 beta1=0.5",
]
LAST_OF_EACH = {case.split()[0]: case for case in CASES}.values()


def configuration(case: str, *more: str) -> Config:
    name, *options = case.split()
    return load_config(None, [f"optimizer.name={name}", *(f"optimizer.{option}" for option in options), *more])


def start(dtype: Any) -> Tree:
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(3, 4)).astype(dtype), "bias": rng.normal(size=5).astype(dtype)}


def gradient(params: Tree) -> Tree:
    """Of a stretched bowl with waves: sum of scale * p^2 / 2 - 2 cos(3 p) / 3."""
    return {
        name: (np.linspace(0.1, 4, p.size).reshape(p.shape) * p + 2 * np.sin(3 * p)).astype(p.dtype)
        for name, p in params.items()
    }


def trajectory(config: Config, params: Tree, steps: int, grads: Callable[[Tree], Tree] = gradient) -> list[Tree]:
    """The parameters after each update."""
    tx = make_optimizer(config, steps)
    state = tx.init(params)

    @jax.jit
    def update(grads: Tree, state: Any, params: Tree) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    result = []
    for _ in range(steps):
        new_params, state = update(grads(params), state, params)
        params = jax.tree.map(np.asarray, new_params)
        result.append(params)
    assert update._cache_size() == 1, "an update after the first compiled something"
    return result


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def assert_close(ours: list[Tree], theirs: list[Tree], tolerance: float) -> None:
    """After every update, each leaf, by the largest value it ever had."""
    for name in theirs[0]:
        a, b = np.stack([params[name] for params in ours]), np.stack([params[name] for params in theirs])
        assert np.max(np.abs(a - b)) <= tolerance * np.max(np.abs(b)), name


# Against PyTorch.


def torch_trajectory(config: Config, params: Tree, steps: int) -> list[Tree]:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    c = config.optimizer
    leaves = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    common = {"lr": c.learning_rate, "weight_decay": c.weight_decay}
    moments = {"eps": getattr(c, "eps", None), "betas": (getattr(c, "beta1", None), getattr(c, "beta2", None))}
    make = {
        "sgd": lambda p: torch.optim.SGD(p, **common),
        "momentum": lambda p: torch.optim.SGD(p, momentum=c.momentum, **common),
        "nesterov": lambda p: torch.optim.SGD(p, momentum=c.momentum, nesterov=True, **common),
        "adagrad": lambda p: torch.optim.Adagrad(
            p, lr_decay=c.lr_decay, initial_accumulator_value=c.initial_accumulator_value, eps=c.eps, **common
        ),
        "rmsprop": lambda p: torch.optim.RMSprop(
            p, alpha=c.alpha, eps=c.eps, momentum=c.momentum, centered=c.centered, **common
        ),
        "adam": lambda p: torch.optim.Adam(p, **moments, **common),
        "adamw": lambda p: torch.optim.AdamW(p, **moments, **common),
    }
    optimizer = make[c.name](list(leaves.values()))
    result = []
    for _ in range(steps):
        grads = gradient({name: leaf.detach().numpy() for name, leaf in leaves.items()})
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(grads[name])
        torch.nn.utils.clip_grad_norm_(leaves.values(), max_norm=c.clip_norm)
        optimizer.step()
        result.append({name: leaf.detach().numpy().copy() for name, leaf in leaves.items()})
    return result


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_updates_are_pytorchs_in_float64(case: str, float64: None) -> None:
    config = configuration(case)
    theirs = torch_trajectory(config, start(np.float64), STEPS)
    ours = trajectory(config, start(np.float64), STEPS)
    assert ours[-1]["kernel"].dtype == np.float64
    assert_close(ours, theirs, 1e-10)


@pytest.mark.torch
@pytest.mark.parametrize("case", LAST_OF_EACH)
def test_updates_are_pytorchs_in_float32(case: str) -> None:
    """For equal gradients: from their own, rounding grows (Adam makes whole steps of it)."""
    config, params = configuration(case), start(np.float32)
    theirs = torch_trajectory(config, params, STEPS)
    grads = iter([gradient(p) for p in (params, *theirs)])
    ours = trajectory(config, params, STEPS, lambda _: next(grads))
    assert ours[-1]["kernel"].dtype == np.float32
    assert_close(ours, theirs, 1e-5)


TORCH_CLASSES = {
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


def test_every_optimizer_is_pytorchs_or_the_notes() -> None:
    assert OPTIMIZERS.keys() - TORCH_CLASSES.keys() == {name for name in OPTIMIZERS if name.startswith("notes_")}


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH_CLASSES)
def test_defaults_are_pytorchs_but_for_the_notes_adam(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    notes = {("adam", "learning_rate"): 3e-4, ("adam", "weight_decay"): 1e-5}
    asked_for = {(name, "momentum"): 0.9 for name in ("momentum", "nesterov")}  # PyTorch's default is 0
    parameters = inspect.signature(getattr(torch.optim, TORCH_CLASSES[name])).parameters
    theirs = {key: parameter.default for key, parameter in parameters.items()}
    theirs["learning_rate"] = theirs["lr"]
    if "betas" in theirs:
        theirs["beta1"], theirs["beta2"] = theirs["betas"]
    theirs |= {"name": name, "clip_norm": 10.0, "clip_value": math.inf, "decay_biases_and_norms": True}
    for field in dataclasses.fields(OPTIMIZERS[name]):
        expected = (notes | asked_for).get((name, field.name), theirs[field.name])
        assert field.default == expected, f"{name}.{field.name}"


# By hand.


def by_hand(update: Callable[[int, np.ndarray, np.ndarray, dict], np.ndarray], steps: int = 3) -> list[Tree]:
    """Parameters after each update `p -= update(t, p, g, memory)`, t = 1, 2, ...; and a memory for each leaf."""
    params = start(np.float64)
    memory: dict[str, dict[str, np.ndarray]] = {name: {} for name in params}
    result = []
    for t in range(1, steps + 1):
        grads = gradient(params)
        params = {name: p - update(t, p, grads[name], memory[name]) for name, p in params.items()}
        result.append(params)
    return result


def sgd(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    return 0.02 * (g + 0.1 * p)


def momentum(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    m["b"] = 0.9 * m.get("b", 0) + g
    return 0.02 * m["b"]


def nesterov(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    m["b"] = 0.9 * m.get("b", 0) + g
    return 0.02 * (g + 0.9 * m["b"])


def adagrad(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    m["s"] = m.get("s", 0.2) + g**2
    return 0.02 / (1 + (t - 1) * 0.5) * g / (np.sqrt(m["s"]) + 1e-3)


def rmsprop(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    m["v"] = 0.7 * m.get("v", 0) + 0.3 * g**2
    m["a"] = 0.7 * m.get("a", 0) + 0.3 * g
    m["b"] = 0.5 * m.get("b", 0) + g / (np.sqrt(m["v"] - m["a"] ** 2) + 1e-3)
    return 0.02 * m["b"]


def adam(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    g = g + 0.1 * p
    m["m"] = 0.9 * m.get("m", 0) + 0.1 * g
    m["v"] = 0.99 * m.get("v", 0) + 0.01 * g**2
    return 0.02 * (m["m"] / (1 - 0.9**t)) / (np.sqrt(m["v"] / (1 - 0.99**t)) + 1e-3)


def adamw(t: int, p: np.ndarray, g: np.ndarray, m: dict) -> np.ndarray:
    m["m"] = 0.9 * m.get("m", 0) + 0.1 * g
    m["v"] = 0.99 * m.get("v", 0) + 0.01 * g**2
    return 0.02 * (m["m"] / (1 - 0.9**t)) / (np.sqrt(m["v"] / (1 - 0.99**t)) + 1e-3) + 0.02 * 0.1 * p


@pytest.mark.parametrize(
    ("case", "formula"),
    [
        ("sgd weight_decay=0.1", sgd),
        ("momentum", momentum),
        ("nesterov", nesterov),
        ("adagrad lr_decay=0.5 initial_accumulator_value=0.2 eps=1e-3", adagrad),
        ("rmsprop alpha=0.7 eps=1e-3 momentum=0.5 centered=true", rmsprop),
        ("adam beta2=0.99 eps=1e-3 weight_decay=0.1", adam),
        ("adamw beta2=0.99 eps=1e-3 weight_decay=0.1", adamw),
    ],
)
def test_three_updates_are_the_formula(case: str, formula: Callable, float64: None) -> None:
    config = configuration(f"{case} learning_rate=0.02 clip_norm=inf")
    assert_close(trajectory(config, start(np.float64), 3), by_hand(formula), 1e-13)


def test_the_first_update_of_sgd_with_everything(float64: None) -> None:
    """Clipped first, then L2, then the rate: in any other order the numbers differ."""
    params, grads = start(np.float64), gradient(start(np.float64))
    norm = math.sqrt(sum(float(np.sum(g**2)) for g in grads.values()))
    assert norm > 1
    expected = {name: p - 0.1 * (grads[name] / (norm + 1e-6) + 0.5 * p) for name, p in params.items()}
    config = configuration("sgd learning_rate=0.1 weight_decay=0.5 clip_norm=1")
    assert_close(trajectory(config, params, 1), [expected], 1e-13)


def test_l2_enters_adams_moments_and_adamws_decay_does_not(float64: None) -> None:
    """Without gradients Adam's first step is a whole rate towards zero; AdamW only shrinks."""
    params = start(np.float64)
    zeros = {name: np.zeros_like(p) for name, p in params.items()}
    options = "learning_rate=0.01 weight_decay=0.1"
    (adam_step,) = trajectory(configuration(f"adam {options}"), params, 1, lambda _: zeros)
    (adamw_step,) = trajectory(configuration(f"adamw {options}"), params, 1, lambda _: zeros)
    for name, p in params.items():
        np.testing.assert_allclose(adam_step[name], p - 0.01 * np.sign(p), rtol=1e-5)
        np.testing.assert_allclose(adamw_step[name], p * (1 - 0.01 * 0.1), rtol=1e-14)


# Clipping.


@pytest.mark.parametrize(("norm", "max_norm"), [(5.0, 1.0), (1.0, 1.0), (1.0 - 5e-7, 1.0), (1e-6, 1e-6), (0.5, 1.0)])
def test_clipping_has_pytorchs_millionth(norm: float, max_norm: float, float64: None) -> None:
    grads = {"a": np.array([0.6 * norm, 0.0]), "b": np.array([[-0.8 * norm]])}
    clip = clip_by_norm(max_norm)
    clipped, _ = clip.update(grads, clip.init(grads), grads)
    factor = min(1.0, max_norm / (norm + 1e-6))
    for name, g in grads.items():
        np.testing.assert_allclose(clipped[name], g * factor, rtol=1e-14)


def test_infinite_is_no_clipping_whatever_the_gradient() -> None:
    grads = {"a": jnp.array([1e30, -1e38], jnp.float32), "b": jnp.ones(2, jnp.bfloat16)}
    clip = clip_by_norm(math.inf)
    clipped, _ = clip.update(grads, clip.init(grads), grads)
    for name, g in grads.items():
        np.testing.assert_array_equal(clipped[name], g)


def test_clipping_of_nothing_is_nothing() -> None:
    grads = {"a": jnp.zeros(3)}
    clip = clip_by_norm(1.0)
    np.testing.assert_array_equal(clip.update(grads, clip.init(grads), grads)[0]["a"], np.zeros(3))


# Any pytree, schedule.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_any_pytree_and_keeps_its_types(name: str) -> None:
    params = [jnp.ones((2, 3)), ({"half": jnp.ones(4, jnp.bfloat16)}, jnp.ones([]))]
    tx = make_optimizer(configuration(name, "schedule.name=warmup_cosine"), total_steps=10)

    def update(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.tree.map(lambda p: p * 0.5, params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    new_params, new_state = jax.eval_shape(update, params, state)
    assert jax.tree.map(lambda p: (p.shape, p.dtype), (new_params, new_state)) == jax.tree.map(
        lambda p: (p.shape, p.dtype), (params, state)
    )


def test_the_schedules_rate_is_the_one_applied(float64: None) -> None:
    schedule = ("schedule.name=step", "schedule.step_size=2", "schedule.gamma=0.5")
    config = configuration("sgd learning_rate=0.1 clip_norm=inf", *schedule)
    ones = {"a": np.ones(3)}
    steps = trajectory(config, {"a": np.zeros(3)}, 5, lambda _: ones)
    moved = -np.diff([0.0, *(step["a"][0] for step in steps)])
    np.testing.assert_allclose(moved, [0.1, 0.1, 0.05, 0.05, 0.025], rtol=1e-7)
