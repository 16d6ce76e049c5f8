"""Preconditioners read from optimizer states, and the curvature up to which steps are stable: by hand and by trial."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxfood.config import Config, load_config
from jaxfood.errors import UserError
from jaxfood.optim.optimizers import make_optimizer
from jaxfood.optim.stability import learning_rate, stability, stable_curvature

STEPS = 5
PARAMS = {"layer": {"kernel": np.full((2, 2), 0.5), "bias": np.full(2, 0.25)}}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def configured(name: str, **options: Any) -> Config:
    options = {"clip_norm": "inf", "weight_decay": 0, "learning_rate": 1} | options
    return load_config(
        None, (f"optimizer.name={name}", *(f"optimizer.{key}={value}" for key, value in options.items()))
    )


def history() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, 6))


def tree(values: np.ndarray) -> Any:
    return {"layer": {"bias": jnp.asarray(values[:2]), "kernel": jnp.asarray(values[2:].reshape(2, 2))}}


def after_history(config: Config) -> optax.OptState:
    params = jax.tree.map(jnp.asarray, PARAMS)
    tx = make_optimizer(config, total_steps=STEPS)
    state = tx.init(params)
    for gradient in history():
        _, state = tx.update(tree(gradient), state, params)
    return state


def mean_square(decay: float) -> np.ndarray:
    """A decaying mean that begins at 0."""
    total = np.zeros(6)
    for gradient in history():
        total = decay * total + (1 - decay) * gradient**2
    return total


def adadelta_root() -> np.ndarray:
    rho, eps, squares, moves = 0.9, 1e-6, np.zeros(6), np.zeros(6)
    for gradient in history():
        squares = rho * squares + (1 - rho) * gradient**2
        move = np.sqrt(moves + eps) / np.sqrt(squares + eps) * gradient
        moves = rho * moves + (1 - rho) * move**2
    return np.sqrt(squares + eps) / np.sqrt(moves + eps)


def notes_sigma(alpha: float) -> np.ndarray:
    total = history()[0] ** 2
    for gradient in history()[1:]:
        total = alpha * total + (1 - alpha) * gradient**2
    return np.sqrt(total)


def adam_root(eps: float, squares: np.ndarray, momentum: float = 0.9) -> np.ndarray:
    return (1 - momentum**STEPS) * (np.sqrt(squares / (1 - 0.999**STEPS)) + eps)


def largest_mean_square() -> np.ndarray:
    total, largest = np.zeros(6), np.zeros(6)
    for gradient in history():
        total = 0.999 * total + 0.001 * gradient**2
        largest = np.maximum(largest, total)
    return largest


def deviation() -> np.ndarray:
    mean = np.zeros(6)
    for gradient in history():
        mean = 0.99 * mean + 0.01 * gradient
    return np.sqrt(mean_square(0.99) - mean**2)


NADAM = [0.9 * (1 - 0.96 ** (t * 4e-3) / 2) for t in range(1, STEPS + 2)]


def nadam_limit() -> float:
    product = math.prod(NADAM[:-1])
    direct, averaged = (1 - NADAM[-2]) / (1 - product), NADAM[-1] / (1 - product * NADAM[-1])
    return 3.8 / (1.9 * direct + 0.1 * averaged)


@pytest.mark.parametrize(
    ("name", "options", "root", "limit"),
    [
        ("sgd", {}, np.ones(6), 2),
        ("momentum", {}, np.ones(6), 3.8),
        ("nesterov", {}, np.ones(6), 3.8 / 2.8),
        ("notes_momentum", {}, np.ones(6), 3.8),
        ("adagrad", {"eps": 0.1}, np.sqrt(np.sum(history() ** 2, 0)) + 0.1, 2),
        ("adagrad", {"lr_decay": 0.5}, (np.sqrt(np.sum(history() ** 2, 0)) + 1e-10) * 3, 2),
        ("rmsprop", {"eps": 0.1}, np.sqrt(mean_square(0.99)) + 0.1, 2),
        ("rmsprop", {"momentum": 0.9}, np.sqrt(mean_square(0.99)) + 1e-8, 3.8),
        ("rmsprop", {"centered": "true"}, deviation() + 1e-8, 2),
        ("adadelta", {}, adadelta_root(), 2),
        ("adam", {"eps": 0.1}, adam_root(0.1, mean_square(0.999)), 38),
        ("adamw", {}, adam_root(1e-8, mean_square(0.999)), 38),
        ("amsgrad", {"eps": 0.1}, adam_root(0.1, largest_mean_square()), 38),
        ("nadam", {"eps": 0.1}, adam_root(0.1, mean_square(0.999), 0.0), nadam_limit()),
        ("notes_adagrad", {}, np.sqrt(np.mean(history() ** 2, 0)), 2),
        ("notes_rmsprop", {}, notes_sigma(0.99), 2),
        ("notes_adam", {}, notes_sigma(0.999), 38),
    ],
)
def test_the_preconditioner_of_every_optimizer(
    name: str, options: dict[str, Any], root: np.ndarray, limit: float
) -> None:
    config = configured(name, **options)
    found = stability(config, after_history(config), PARAMS)
    expected = tree(1 / root)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), dict(found.inverse), expected)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {}),
        ("momentum", {}),
        ("nesterov", {}),
        ("notes_momentum", {}),
        ("adagrad", {"eps": 1e6}),
        ("rmsprop", {"eps": 1e6}),
        ("rmsprop", {"eps": 1e6, "momentum": 0.8}),
        ("adam", {"eps": 1e6}),
        ("adamw", {"eps": 1e6}),
        ("amsgrad", {"eps": 1e6}),
        ("nadam", {"eps": 1e6, "momentum_decay": 0}),
        ("adadelta", {"eps": 1e6}),
    ],
)
def test_steps_shrink_up_to_the_limit_and_grow_beyond(name: str, options: dict[str, Any]) -> None:
    """On x H x / 2 with an eps so large that the preconditioner stays what it is."""
    config = configured(name, **options)
    tx = make_optimizer(config, total_steps=1000)
    start = {"x": jnp.full(2, 1e-9)}

    def steps(state: Any, curvature: jax.Array) -> tuple[Any, jax.Array]:
        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            params, state = carry
            updates, state = tx.update({"x": curvature * params["x"]}, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params["x"]

        (_, state), way = lax.scan(step, (start, state), length=200)
        return state, way

    run = jax.jit(steps)
    settled, _ = run(tx.init(start), jnp.zeros(2))  # past the corrections of the start
    found = stability(config, settled, start)
    _, way = run(settled, found.limit / found.inverse["x"] * jnp.array([0.95, 1.05]))
    assert np.abs(way[-1, 0]) < 0.1 * 1e-9
    assert np.abs(way[:, 1]).max() > 10 * 1e-9  # then its preconditioner may grow too, and stop it


def test_limits_by_the_roots_of_the_step() -> None:
    """The spectral radius of one step of (x, m) is 1 at the limit, for any shares."""
    rng = np.random.default_rng(0)
    for momentum, direct, averaged in rng.uniform(0.01, 0.99, (50, 3)):
        limit = stable_curvature(momentum, direct, averaged)
        for curvature, stable in ((0.999 * limit, True), (1.001 * limit, False)):
            mean = np.array([(1 - momentum) * curvature, momentum])
            step = np.array([[1 - direct * curvature, 0.0] - averaged * mean, mean])
            assert (np.abs(np.linalg.eigvals(step)).max() < 1) == stable


def test_the_penalty_and_what_is_frozen() -> None:
    config = configured("adam", weight_decay=0.1, decay_biases_and_norms="false")
    found = stability(config, after_history(config), PARAMS)
    assert found.decay["layer"]["kernel"].tolist() == [[0.1, 0.1], [0.1, 0.1]]
    assert found.decay["layer"]["bias"].tolist() == [0, 0]
    assert not np.any(
        stability(configured("adamw"), after_history(configured("adamw")), PARAMS).decay["layer"]["kernel"]
    )
    frozen = load_config(None, ("optimizer.name=adam", "train.freeze=layer.bias"))
    found = stability(frozen, after_history(frozen), PARAMS)
    assert found.inverse["layer"]["bias"].tolist() == [0, 0]
    assert np.all(found.inverse["layer"]["kernel"] > 0)


def test_before_the_first_step_and_where_nothing_moves() -> None:
    config = configured("notes_adam")
    state = make_optimizer(config, 1).init(jax.tree.map(jnp.asarray, PARAMS))
    assert not np.any(stability(config, state, PARAMS).inverse["layer"]["kernel"])
    config = configured("adam")
    state = make_optimizer(config, 1).init(jax.tree.map(jnp.asarray, PARAMS))
    assert np.all(np.isfinite(stability(config, state, PARAMS).inverse["layer"]["kernel"]))


def test_the_schedules_rate() -> None:
    config = load_config(None, ("optimizer.learning_rate=0.5", "schedule.name=step", "schedule.step_size=2"))
    assert learning_rate(config, 1, 10) == pytest.approx(0.5)
    assert learning_rate(config, 2, 10, factor=0.5) == pytest.approx(0.025)


def test_an_optimizer_without_a_scale_for_each_parameter_is_refused() -> None:
    config = load_config(None, ("optimizer.name=muon",))
    with pytest.raises(UserError, match=r"^muon has no scale for each parameter"):
        stability(config, (), {"kernel": jnp.ones((2, 2))})


def test_its_critical_rate_is_refused_before_a_training_begins(tiny_food: Path, tmp_path: Path) -> None:
    from jaxfood.train import main

    settings = {"data.root": tiny_food, "optimizer.name": "muon", "logging.critical_learning_rate": 1}
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with pytest.raises(UserError, match=r"^logging\.critical_learning_rate = 1: muon has no scale .*; set it to 0, "):
        main(["--config", "hw3", *given, "--data.image_size", "32", "--workdir", str(tmp_path / "run")])
