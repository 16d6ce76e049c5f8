"""The classifier: how it starts, what it takes, its types, and its derivatives in float64. At 32 px."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import FoodClassifier
from jaxfood.model.blocks import ConvBlock
from jaxfood.model.classifier import FEATURES, HIDDEN
from jaxfood.optim.losses import cross_entropy

# Leaf: shape at 32 px and 11 classes, and the fan-in that PyTorch starts it from.
START = {
    **{
        f"block{i}": ((3, 3, fan, features), 9 * fan)
        for i, (fan, features) in enumerate(zip((3, *FEATURES), FEATURES, strict=False), start=1)
    },
    "dense1": ((FEATURES[-1], HIDDEN[0]), FEATURES[-1]),
    "dense2": (HIDDEN, HIDDEN[0]),
    "head": ((HIDDEN[1], 11), HIDDEN[1]),
}


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    return jax.jit(FoodClassifier().init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(3, 32, 32, 3)).astype(np.float32)


# Where it starts.


def test_the_parameters_are_those_of_the_notes_classifier(variables: dict[str, Any]) -> None:
    params, stats = variables["params"], variables["batch_stats"]
    assert params.keys() == START.keys()
    for name, (shape, _) in START.items():
        assert params[name]["kernel"].shape == shape
        assert params[name]["bias"].shape == shape[-1:]
    for i, features in enumerate(FEATURES, start=1):
        norm = {"params": params[f"block{i}"]["norm"], "batch_stats": stats[f"block{i}"]["norm"]}
        assert jax.tree.map(jnp.shape, norm) == {
            "params": {"scale": (features,), "bias": (features,)},
            "batch_stats": {"mean": (features,), "var": (features,)},
        }
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_at_128_px_it_has_the_parameters_of_the_notes_module() -> None:
    shapes = jax.eval_shape(FoodClassifier().init, jax.random.key(0), jnp.zeros((1, 128, 128, 3)))["params"]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in zip((3, *FEATURES), FEATURES, strict=False))
    dense = sum(a * b + b for a, b in zip((512 * 4 * 4, *HIDDEN), (*HIDDEN, 11), strict=True))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == convolutions + dense == 12_833_803


@pytest.mark.parametrize("name", START)
def test_weights_start_from_pytorchs_distribution(name: str, variables: dict[str, Any]) -> None:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), kernels and biases alike; tolerances are four standard errors."""
    bound = 1 / math.sqrt(START[name][1])
    for leaf in (variables["params"][name]["kernel"], variables["params"][name]["bias"]):
        values = np.asarray(leaf, np.float64) / bound
        largest = np.abs(values).max()
        assert largest <= 1 + 1e-6
        assert abs(values.std() * math.sqrt(3) - 1) <= max(0.02, 4 * math.sqrt(0.2 / values.size))
        assert abs(values.mean()) <= 4 / math.sqrt(3 * values.size)
        if values.size > 500:
            assert largest > 0.98
            # Flat: each quarter of the range holds a quarter of the values.
            counts, _ = np.histogram(values, bins=4, range=(-1, 1))
            np.testing.assert_allclose(counts / values.size, 0.25, atol=4 * math.sqrt(0.1875 / values.size))


def test_no_two_leaves_start_from_one_key(variables: dict[str, Any]) -> None:
    firsts = [
        float(leaf.ravel()[0]) * math.sqrt(START[name][1])
        for name in START
        for leaf in (variables["params"][name]["kernel"], variables["params"][name]["bias"])
    ]
    assert len({round(first, 4) for first in firsts}) == len(firsts)


# What it takes.


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
def test_integer_images_are_refused(dtype: type, variables: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="divide uint8 by 255"):
        FoodClassifier().apply(variables, np.zeros((1, 32, 32, 3), dtype))


@pytest.mark.parametrize(
    "shape", [(32, 32, 3), (1, 3, 32, 32), (1, 32, 32, 1), (1, 32, 32, 4), (1, 48, 32, 3), (1, 32, 33, 3)]
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], variables: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="divisible by 32") as error:
        FoodClassifier().apply(variables, np.zeros(shape, np.float32))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(("height", "width", "classes"), [(32, 64, 2), (96, 32, 101), (224, 224, 11)])
def test_any_size_divisible_by_32_and_any_number_of_classes(height: int, width: int, classes: int) -> None:
    model, images = FoodClassifier(num_classes=classes), jnp.zeros((2, height, width, 3))
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False))
    assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)
    assert variables["params"]["dense1"]["kernel"].shape[0] == 512 * height * width // 32**2


# Types.


def test_bfloat16_gives_float32_logits_near_the_float32_ones(variables: dict[str, Any], images: np.ndarray) -> None:
    half = FoodClassifier(dtype=jnp.bfloat16)
    exact = np.asarray(jax.jit(FoodClassifier().apply)(variables, images))
    logits = np.asarray(jax.jit(half.apply)(variables, images))
    assert exact.dtype == logits.dtype == np.float32
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()
    started = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(started)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_keeps_gradients_and_statistics_in_float32(variables: dict[str, Any], images: np.ndarray) -> None:
    model = FoodClassifier(dtype=jnp.bfloat16)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, new = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return logits.sum(), new

    grads, new = jax.eval_shape(jax.grad(loss, has_aux=True), variables["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves((grads, new))} == {jnp.dtype(jnp.float32)}


def test_pooling_before_relu_is_the_notes_order(variables: dict[str, Any], images: np.ndarray) -> None:
    """The whole network by the notes' order, convolution, BatchNorm, ReLU, pooling, in plain JAX."""
    rng = np.random.default_rng(1)
    stats = jax.tree.map(lambda leaf: leaf + rng.uniform(0, 0.5, leaf.shape), variables["batch_stats"])
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables | {"batch_stats": stats})

        @jax.jit
        def notes(wide: Any, x: jax.Array) -> jax.Array:
            p, s = wide["params"], wide["batch_stats"]
            for name in (f"block{i}" for i in range(1, 6)):
                x = jax.lax.conv_general_dilated(
                    x, p[name]["kernel"], (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                norm, old = p[name]["norm"], s[name]["norm"]
                x = (x + p[name]["bias"] - old["mean"]) / jnp.sqrt(old["var"] + 1e-5) * norm["scale"] + norm["bias"]
                x = jax.nn.relu(x)
                batch, height, width, features = x.shape
                x = x.reshape(batch, height // 2, 2, width // 2, 2, features).max((2, 4))
            x = x.reshape(len(x), -1)
            x = jax.nn.relu(x @ p["dense1"]["kernel"] + p["dense1"]["bias"])
            x = jax.nn.relu(x @ p["dense2"]["kernel"] + p["dense2"]["bias"])
            return x @ p["head"]["kernel"] + p["head"]["bias"]

        x = images.astype(np.float64)
        ours = jax.jit(FoodClassifier().apply)(wide, x)
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, notes(wide, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_a_block_is_the_notes_order_in_value_and_gradients_whatever_batch_norms_scale(train: bool, fused: bool) -> None:
    """Convolution, BatchNorm, ReLU, pooling; the scale positive, negative and zero."""
    rng = np.random.default_rng(0)
    scale = np.array([1.5, -1.0, 0.0, 0.3, -0.2])
    norm = {"scale": scale, "bias": rng.normal(0.5, 0.5, size=5)}
    params = {"kernel": rng.normal(size=(3, 3, 4, 5)), "bias": rng.normal(size=5), "norm": norm}
    stats = {"norm": {"mean": rng.normal(size=5), "var": rng.uniform(0.5, 2, size=5)}}
    x, g = rng.normal(size=(3, 4, 6, 4)), rng.normal(size=(3, 2, 3, 5))

    def ours(params: Any, x: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        return ConvBlock(4, 5, fused=fused).apply(variables, x, train=train, mutable=["batch_stats"])[0]

    def notes(params: Any, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        y = y + params["bias"]
        mean, var = (y.mean((0, 1, 2)), y.var((0, 1, 2))) if train else (stats["norm"]["mean"], stats["norm"]["var"])
        y = (y - mean) / jnp.sqrt(var + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
        y = jax.nn.relu(y).reshape(3, 2, 2, 3, 2, 5).swapaxes(2, 3).reshape(3, 2, 3, 4, 5)
        return jnp.take_along_axis(y, jnp.argmax(y, axis=3, keepdims=True), axis=3)[:, :, :, 0]  # the first of equals

    def run(block: Any) -> Any:
        y, pull = jax.vjp(block, params, x)
        return y, pull(g)

    with jax.enable_x64(True):
        actual, expected = jax.jit(run, static_argnums=0)(ours), jax.jit(run, static_argnums=0)(notes)
        for leaf, exact in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, exact, rtol=1e-9, atol=1e-11)


# Derivatives.


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_in_float64_jvp_of_grad_is_the_finite_difference(variables: dict[str, Any], images: np.ndarray) -> None:
    model, labels, rng = FoodClassifier(), np.array([0, 7, 10]), np.random.default_rng(2)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * np.abs(leaf).mean(), wide["params"])

        def loss(params: Any) -> jax.Array:
            trained = {"params": params, "batch_stats": wide["batch_stats"]}
            logits, _ = model.apply(trained, images.astype(np.float64), train=True, mutable=["batch_stats"])
            return cross_entropy(logits, labels).mean()

        @jax.jit
        def grads_and_product(params: Any) -> tuple[Any, Any]:
            return jax.jvp(jax.grad(loss), (params,), (direction,))

        def grads_at(distance: float) -> np.ndarray:
            moved = jax.tree.map(lambda p, d: p + distance * d, wide["params"], direction)
            return flat(grads_and_product(moved)[0])

        grads, product = grads_and_product(wide["params"])
        expected = (grads_at(1e-6) - grads_at(-1e-6)) / 2e-6
        assert np.linalg.norm(flat(product) - expected) <= 1e-7 * np.linalg.norm(expected)
        for i in range(1, 6):
            np.testing.assert_array_equal(grads[f"block{i}"]["bias"], np.zeros(FEATURES[i - 1]))
