"""What an update does on request: moving average, sharpness-aware gradient, dropout. Of a narrow network."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import TrainState, load_config, train_step
from jaxfood.model.layers import dropout
from jaxfood.model.networks import init_variables
from jaxfood.training.step import gradients

RATE = 0.5
SETTINGS = (
    *("data.image_size=32", "model.num_classes=3", "model.width=4", "optimizer.name=sgd"),
    *(f"optimizer.learning_rate={RATE}", "optimizer.clip_norm=inf"),
)
RNG = np.random.default_rng(1)
BATCH = {"image": RNG.integers(0, 256, (4, 32, 32, 3), np.uint8), "label": np.array([2, 0, 1, 2], np.int32)}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def made(*settings: str) -> TrainState:
    """A state of new weights in float64, with settings of its own."""
    config = load_config(None, (*SETTINGS, *settings))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(config))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape)), shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), shapes["batch_stats"])
    return TrainState.create(config, {"params": params, "batch_stats": stats}, total_steps=100)


def norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), actual, expected)


@pytest.mark.slow
def test_the_average_follows_its_formula_and_takes_statistics_along() -> None:
    state = made("train.ema_decay=0.3")
    expected = jax.tree.map(np.asarray, state.variables)
    for step in range(1, 5):
        state, _ = train_step(state, BATCH)
        decay = min(0.3, (1 + step) / (10 + step))
        pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(state.variables), strict=True)
        mixed = [decay * a + (1 - decay) * np.asarray(b) for a, b in pairs]
        expected = jax.tree.unflatten(jax.tree.structure(expected), mixed)
    assert_close(state.average, expected)
    assert state.evaluated is state.average
    assert made().evaluated.keys() == {"params", "batch_stats"}


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_the_sharpness_aware_gradient_is_that_uphill(every: int) -> None:
    """Found by hand from two plain gradients; the running statistics and the metrics are those of the place itself."""
    radius = 0.3
    gradient = jax.jit(lambda state: gradients(state, BATCH)[0])
    state, plain = made(f"train.sam_radius={radius}", f"train.sam_every={every}"), made()
    for step in range(2):
        here = gradient(plain)
        if step % every == 0:
            scale = radius / norm(here)
            pairs = zip(jax.tree.leaves(plain.params), jax.tree.leaves(here), strict=True)
            params = [p + scale * g for p, g in pairs]
            here = gradient(plain.replace(params=jax.tree.unflatten(jax.tree.structure(here), params)))
        expected = jax.tree.map(lambda p, g: p - RATE * g, plain.params, here)
        stepped, metrics = train_step(jax.tree.map(jnp.copy, plain), BATCH)
        state, own_metrics = train_step(state, BATCH)
        assert_close(state.params, expected)
        assert_close(state.batch_stats, stepped.batch_stats)
        assert_close(own_metrics, metrics)
        plain = plain.replace(**jax.tree.map(jnp.copy, state.variables), step=jnp.copy(state.step))


def test_dropout_draws_for_each_picture_and_not_for_its_place() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = dropout(jnp.ones((4, 400)), 0.5, keys, layer=1)
    assert set(np.unique(drawn)) == {0.0, 2.0}
    assert abs((drawn > 0).mean() - 0.5) < 0.05
    np.testing.assert_array_equal(dropout(jnp.ones((4, 400)), 0.5, keys[::-1], layer=1), drawn[::-1])
    assert (drawn[0] != drawn[1]).any()
    assert (dropout(jnp.ones((4, 400)), 0.5, keys, layer=2) != drawn).any()


@pytest.mark.slow
def test_an_update_with_dropout_repeats_and_differs_from_the_next() -> None:
    state = made("model.dropout=0.5", "optimizer.learning_rate=0", "train.accumulate=2")
    losses = []
    for step in (0, 0, 1):
        copy = jax.tree.map(jnp.copy, state)
        losses.append(float(train_step(copy.replace(step=copy.step + step), BATCH)[1]["loss"]))
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(ValueError, match="give keys"):
        state.model.apply(state.variables, jnp.zeros((1, 32, 32, 3)), train=True, mutable=["batch_stats"])
