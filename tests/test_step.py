"""One update: metrics, padding, uint8, donation, and how often it compiles. In float64, at 32 px."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import TrainState, load_config, train_step
from jaxfood.config import Config
from jaxfood.config.loss import CrossEntropy
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.networks import init_variables, predict_logits, to_float
from jaxfood.optim.losses import make_loss
from jaxfood.training.metrics import batch_sums, means, zero_sums
from jaxfood.training.step import add_evaluation

CLIP = 1e-3
CROSS_ENTROPY = make_loss(CrossEntropy(), num_classes=3)
SETTINGS = (
    *("data.image_size=32", "model.num_classes=3", "optimizer.name=sgd", "optimizer.learning_rate=0.5"),
    *(f"optimizer.clip_norm={CLIP}", "schedule.name=exponential"),
)
TOTAL_STEPS = 100
LABELS = np.array([2, 0, 1, 2], np.int32)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(None, SETTINGS)


@pytest.fixture(scope="module")
def variables(config: Config, float64: None) -> dict[str, Any]:
    """Drawn, not initialised: that would be one more thing to compile."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(config))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape)), shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), shapes["batch_stats"])
    return {"params": params, "batch_stats": stats}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def floats(pictures: np.ndarray) -> np.ndarray:
    """The same pictures in [0, 1], to the bit as the step has them."""
    return np.asarray(jax.jit(to_float)(pictures))


@pytest.fixture(scope="module")
def stepped(config: Config, variables: dict[str, Any], pictures: np.ndarray) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state and metrics after one update with uint8 pictures and no mask."""
    state = TrainState.create(config, variables, TOTAL_STEPS)
    return train_step(state, {"image": pictures, "label": LABELS})


@pytest.fixture(scope="module")
def logits(variables: dict[str, Any], floats: np.ndarray) -> np.ndarray:
    """Those that the first update sees."""
    forward = jax.jit(partial(FoodClassifier(3).apply, train=True, mutable=["batch_stats"]))
    return np.asarray(forward(variables, floats)[0])


def norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


def assert_equal_trees(actual: Any, expected: Any, tolerance: float) -> None:
    """Each leaf to a share of its largest value."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.max(np.abs(a - b)) <= tolerance * np.max(np.abs(b)), path


# What an update returns.


@pytest.mark.smoke
def test_metrics_are_loss_accuracy_and_gradient_norm(stepped: tuple[TrainState, dict], logits: np.ndarray) -> None:
    _, metrics = stepped
    assert metrics.keys() == {"loss", "accuracy", "grad_norm"}
    assert all(value.shape == () for value in metrics.values())
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(4), LABELS]
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-12)
    assert metrics["accuracy"] == np.mean(logits.argmax(axis=1) == LABELS)


def test_the_gradient_norm_is_taken_before_clipping(
    stepped: tuple[TrainState, dict], variables: dict[str, Any]
) -> None:
    state, metrics = stepped
    grad_norm = float(metrics["grad_norm"])
    assert grad_norm > 100 * CLIP
    moved = jax.tree.map(lambda new, old: (old - new) / 0.5, *jax.device_get((state.params, variables["params"])))
    np.testing.assert_allclose(norm(moved), grad_norm * CLIP / (grad_norm + 1e-6), rtol=1e-6)


def test_the_state_after_an_update(stepped: tuple[TrainState, dict], variables: dict[str, Any]) -> None:
    state, _ = stepped
    assert (int(state.step), state.step.dtype) == (1, jnp.int32)
    assert jax.tree.structure(state.variables) == jax.tree.structure(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {jnp.dtype(jnp.float64)}
    changed = jax.tree.map(lambda new, old: bool(np.any(new != old)), *jax.device_get((state.variables, variables)))
    for i in range(1, 6):
        # PyTorch's has only rounding here: see BatchNormReLU.
        assert not changed["params"][f"block{i}"].pop("bias")
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("loss.name=focal", "loss.class_weights=1,0.5,4"),
        pytest.param(("loss.name=mse",), marks=pytest.mark.slow),
        pytest.param(("loss.label_smoothing=0.1", "loss.class_weights=1,0.5,4"), marks=pytest.mark.slow),
    ],
)
def test_every_loss_trains(
    settings: tuple[str, ...], variables: dict[str, Any], pictures: np.ndarray, logits: np.ndarray
) -> None:
    """The first update's loss is PyTorch's mean, by the sum of the weights, and small steps lower it."""
    config = load_config(None, (*SETTINGS, *settings))
    losses, weights = make_loss(config.loss, 3)(jnp.asarray(logits), jnp.asarray(LABELS))
    state = TrainState.create(config, variables, TOTAL_STEPS)
    seen = []
    for _ in range(3):
        state, metrics = train_step(state, {"image": pictures, "label": LABELS})
        seen.append(float(metrics["loss"]))
    assert seen[0] == pytest.approx(float(jnp.sum(losses) / jnp.sum(weights)), rel=1e-12)
    assert seen[0] > seen[1] > seen[2] > 0


# Padding and uint8.


@pytest.mark.slow
def test_padding_and_division_by_255_change_nothing(
    config: Config, variables: dict[str, Any], floats: np.ndarray, stepped: tuple[TrainState, dict]
) -> None:
    """Float pictures among padding, against uint8 pictures alone: the same loss, parameters and statistics."""
    noise = np.random.default_rng(2)
    images = noise.uniform(size=(6, 32, 32, 3)).astype(np.float32)
    labels, mask = noise.integers(0, 3, 6).astype(np.int32), np.array([1, 0, 1, 1, 0, 1], np.float32)
    images[mask == 1] = floats
    labels[mask == 1] = LABELS
    state = TrainState.create(config, variables, TOTAL_STEPS)
    state, metrics = train_step(state, {"image": images, "label": labels, "mask": mask})
    expected_state, expected_metrics = stepped
    assert_equal_trees(metrics, expected_metrics, 1e-12)
    assert_equal_trees(state.params, expected_state.params, 1e-12)
    assert_equal_trees(state.batch_stats, expected_state.batch_stats, 1e-12)


def test_bytes_become_what_totensor_makes_of_them() -> None:
    """XLA multiplies by a rounded 1 / 255 instead of dividing: half of the values are off by their last bit."""
    values = np.arange(256, dtype=np.uint8)
    expected = values.astype(np.float32) / np.float32(255)
    for convert in (to_float, jax.jit(to_float)):
        converted = np.asarray(convert(values))
        assert converted.dtype == np.float32
        np.testing.assert_array_max_ulp(converted, expected, maxulp=1)
        assert (converted[0], converted[-1]) == (0, 1)
    np.testing.assert_array_equal(jax.jit(to_float)(expected), expected)


def test_evaluation_takes_uint8_and_leaves_padding_out(
    variables: dict[str, Any], pictures: np.ndarray, floats: np.ndarray
) -> None:
    model = FoodClassifier(3)
    exact = jax.jit(partial(model.apply, train=False))(variables, floats)
    np.testing.assert_allclose(jax.jit(partial(predict_logits, model))(variables, pictures), exact, rtol=1e-12)

    evaluate = jax.jit(partial(add_evaluation, model, CROSS_ENTROPY))
    sums = zero_sums(updates=False)
    for mask in ([1, 1, 0, 0], [0, 0, 1, 1]):
        sums = evaluate(variables, sums, {"image": pictures, "label": LABELS, "mask": np.array(mask, np.float32)})
    whole = means(batch_sums(CROSS_ENTROPY, exact, {"label": LABELS}))
    assert_equal_trees(means(sums), whole, 1e-12)
    assert float(sums["count"]) == 4


def test_sums_count_pictures_and_not_batches() -> None:
    """An epoch's mean, its smaller last batch included, is one over pictures; the notes' code has it over batches."""
    logits = np.array([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0]])
    first = batch_sums(CROSS_ENTROPY, jnp.asarray(logits), {"label": np.array([0, 0, 0])})
    last = batch_sums(CROSS_ENTROPY, jnp.asarray(logits), {"label": np.array([1, 0, 0]), "mask": np.array([1, 0, 0])})
    result = means(jax.tree.map(jnp.add, first, last))
    assert float(result["accuracy"]) == 2 / 4
    small = np.log(1 + 2 * np.exp(-9.0))
    np.testing.assert_allclose(result["loss"], (2 * small + 2 * (small + 9)) / 4, rtol=1e-12)


def test_means_of_nothing_are_zero() -> None:
    assert {name: float(value) for name, value in means(zero_sums(updates=True)).items()} == {
        "loss": 0,
        "accuracy": 0,
        "grad_norm": 0,
    }


# Donation and compilation.


def test_the_variables_given_stay_valid_and_the_state_is_donated(
    config: Config, variables: dict[str, Any], pictures: np.ndarray, stepped: tuple[TrainState, dict]
) -> None:
    before = jax.tree.map(np.array, variables)
    state = TrainState.create(config, variables, TOTAL_STEPS)
    train_step(state, {"image": pictures, "label": LABELS})
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(variables))
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_equal_configurations_share_one_compiled_step(
    variables: dict[str, Any], pictures: np.ndarray, stepped: tuple[TrainState, dict]
) -> None:
    """Also where settings differ that are not the step's, such as the number of epochs."""
    batch = {"image": pictures, "label": LABELS}
    compiled = train_step._cache_size()
    for more in ((), ("data.root=/elsewhere", "train.epochs=77", "train.seed=1", "logging.progress=false")):
        state = TrainState.create(load_config(None, (*SETTINGS, *more)), variables, TOTAL_STEPS)
        for step in range(1, 3):
            state, _ = train_step(state, batch)
            assert int(state.step) == step
    assert train_step._cache_size() == compiled


@pytest.mark.parametrize(
    "more",
    [
        *("optimizer.learning_rate=0.25", "optimizer.clip_norm=inf", "schedule.name=constant", "model.dtype=bfloat16"),
        *("loss.name=mse", "loss.class_weights=1,2,3", "optimizer.decay_biases_and_norms=false"),
    ],
)
def test_another_recipe_is_another_step(more: str, config: Config, variables: dict[str, Any]) -> None:
    def kind(config: Config, total_steps: int = TOTAL_STEPS) -> Any:
        return jax.tree.structure(jax.eval_shape(lambda: TrainState.create(config, variables, total_steps)))

    assert kind(config) == kind(load_config(None, SETTINGS))
    assert kind(config) != kind(load_config(None, (*SETTINGS, more)))
    assert kind(config) != kind(config, TOTAL_STEPS + 1)
