"""Loss, gradient, Hessian-vector products and the Taylor expansion, against whole Hessians. In float64."""

import ast
import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from jaxfood import UserError, landscape
from jaxfood.config.loss import CrossEntropy
from jaxfood.landscape import Objective, Point, compare, expand, expand_downhill
from jaxfood.model.blocks import ConvBlock
from jaxfood.model.fused.conv_pool import conv3x3_max_pool
from jaxfood.model.fused.forms import to_linearise
from jaxfood.optim.losses import make_loss

CLASSES, PICTURES, SIDE = 3, 10, 8
LABELS = np.random.default_rng(1).integers(0, CLASSES, PICTURES)
IMAGES = np.random.default_rng(2).random((PICTURES, SIDE, SIDE, 3))


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class SmallNet(nn.Module):
    """Two of the classifier's blocks and a linear layer: 261 parameters."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for features in (3, 4):
            x = ConvBlock(x.shape[-1], features)(x, train=train)
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def variables(float64: None) -> dict[str, Any]:
    """Drawn, so that no bias and no statistic is at its starting value."""
    shapes = jax.eval_shape(lambda: SmallNet().init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), train=False))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.5, leaf.shape)), shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape)), shapes["batch_stats"])
    return {"params": params, "batch_stats": stats}


Batch = dict[str, np.ndarray]
CROSS_ENTROPY = make_loss(CrossEntropy(class_weights=(1.0, 0.5, 2.0)), CLASSES)


def network_loss(batch_stats: Any, params: Any, batch: Batch, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
    """Sums over a batch of weighted cross-entropies and of the weights; `mask` leaves out padding."""
    net = {"params": params, "batch_stats": batch_stats}
    logits, _ = SmallNet().apply(net, batch["image"], train=train, mutable=["batch_stats"])
    losses, weights = CROSS_ENTROPY(logits, batch["label"])
    mask = batch.get("mask", np.ones(len(losses)))
    return jnp.sum(losses * mask), jnp.sum(weights * mask)


def cut(size: int) -> list[Batch]:
    """The pictures in batches of this size, the last one padded with noise."""
    batches = []
    for start in range(0, PICTURES, size):
        image, label = IMAGES[start : start + size], LABELS[start : start + size]
        missing = size - len(image)
        noise = np.full((missing, SIDE, SIDE, 3), 0.7)
        mask = np.repeat([1.0, 0.0], [len(image), missing])
        batches.append({"image": np.concatenate([image, noise]), "label": np.pad(label, (0, missing)), "mask": mask})
    return batches


def network(variables: dict[str, Any], size: int = PICTURES, **options: Any) -> Objective:
    return Objective(partial(network_loss, variables["batch_stats"], **options), cut(size))


def whole_hessian(function: Callable, params: Any) -> np.ndarray:
    """Row by row, reverse over reverse: the convolution has no forward derivative of its own."""
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def rows(point: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda vector: function(unravel(vector)))
        return jax.lax.map(lambda axis: jax.grad(lambda p: jnp.vdot(gradient(p), axis))(point), jnp.eye(flat.size))

    return np.asarray(rows(flat))


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """To a share of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= tolerance * np.max(np.abs(expected))


def test_every_public_name_is_there_and_no_module_stands_in_its_place() -> None:
    for module in pkgutil.iter_modules(landscape.__path__):
        importlib.import_module(f"jaxfood.landscape.{module.name}")
    imports = [node for node in ast.walk(ast.parse(Path(landscape.__file__).read_text())) if hasattr(node, "names")]
    public = {alias.asname for node in imports for alias in node.names if alias.asname}
    assert {"Objective", "judge", "trace"} <= public
    for name in public:
        assert not isinstance(getattr(landscape, name), ModuleType), name
    with pytest.raises(AttributeError, match="no attribute 'hessian'"):
        _ = landscape.hessian


# Products.


@pytest.mark.slow
@pytest.mark.parametrize(
    "train", [pytest.param(False, marks=pytest.mark.slow), True], ids=["running statistics", "batch statistics"]
)
def test_products_are_the_whole_hessians(variables: dict[str, Any], train: bool) -> None:
    objective = network(variables, train=train)
    point = Point(objective, variables["params"])

    def mean(params: Any) -> jax.Array:
        total, weight = network_loss(variables["batch_stats"], params, cut(PICTURES)[0], train=train)
        return total / weight

    hessian = whole_hessian(mean, variables["params"])
    assert point.size == len(hessian) == 261
    for vector in np.random.default_rng(3).normal(size=(3, point.size)):
        assert_close(point.product(vector), hessian @ vector, 1e-10)
    assert_close(point.hessian, hessian, 1e-10)
    value, gradient = jax.jit(jax.value_and_grad(mean))(variables["params"])
    assert_close(point.gradient, ravel_pytree(gradient)[0], 1e-12)
    assert point.loss == pytest.approx(float(value), rel=1e-14)


@pytest.mark.slow
def test_the_size_of_the_batches_changes_nothing(variables: dict[str, Any]) -> None:
    """3 does not divide 10: the last batch is padded."""
    params = variables["params"]
    vector = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params)

    def numbers(size: int) -> list[Any]:
        objective = network(variables, size)
        results = objective.value(params), objective.value_and_gradient(params), objective.product(params, vector)
        return [ravel_pytree(result)[0] for result in results]

    whole = numbers(PICTURES)
    for size in (1, 3):
        for actual, expected in zip(numbers(size), whole, strict=True):
            assert_close(actual, expected, 1e-12)


@pytest.mark.slow
def test_products_of_what_is_kept_are_the_same(variables: dict[str, Any]) -> None:
    """Of all four batches, of one and a half (so one), of none; the last is padded."""
    params = variables["params"]
    vector = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    objective = Objective(partial(network_loss, variables["batch_stats"]), cut(3), to_linearise)
    (value, gradient), product = objective.value_and_gradient(params), objective.product(params, vector)
    whole = objective.linearised(params, 2**30)
    for most_bytes, batches in ((2**30, 4), (whole.kept * 3 // 8, 1), (0, 0)):
        kept = objective.linearised(params, most_bytes)
        assert kept.kept == batches * whole.kept / 4
        assert kept.value == pytest.approx(value, rel=1e-14)
        assert_close(ravel_pytree(kept.gradient)[0], ravel_pytree(gradient)[0], 1e-12)
        assert_close(ravel_pytree(kept.product(vector))[0], ravel_pytree(product)[0], 1e-12)
    point = Point(objective, params, kept_gib=1)
    assert_close(point.product(point.flat(vector)), ravel_pytree(product)[0], 1e-12)
    assert point.loss == whole.value
    assert_close(point.gradient, ravel_pytree(gradient)[0], 1e-12)


@pytest.mark.slow
def test_nothing_is_kept_of_the_platform_not_taken(variables: dict[str, Any]) -> None:
    objectives = [
        Objective(partial(network_loss, variables["batch_stats"]), cut(3), *more) for more in ((), (to_linearise,))
    ]
    either, one = (objective.linearised(variables["params"], 2**30).kept for objective in objectives)
    assert one < 0.6 * either


@pytest.mark.slow
def test_each_function_is_compiled_once(variables: dict[str, Any]) -> None:
    traces = []

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        traces.append(batch)
        return network_loss(variables["batch_stats"], params, batch)

    objective, params = Objective(loss, cut(3)), variables["params"]
    evaluations = [
        lambda: objective.value(params),
        lambda: objective.value_and_gradient(params),
        lambda: objective.product(params, params),
    ]
    for evaluate in evaluations:
        evaluate()
        traced = len(traces)
        evaluate()
        assert len(traces) == traced


def test_a_batch_is_waited_for_before_the_next_one_is_taken() -> None:
    """Otherwise the device is given all of them at once, and memory grows with their number."""
    taken: list[float] = []

    class Batches:
        def __iter__(self) -> Iterator[np.ndarray]:
            for number in range(20):
                taken.append(time.perf_counter())
                yield np.full((300, 300), number / 1e3)

    def slow_loss(params: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sum(jnp.linalg.matrix_power(batch + params, 8)), jnp.ones([])

    objective = Objective(slow_loss, Batches())
    objective.value(jnp.array(1.0))
    taken.clear()
    start = time.perf_counter()
    objective.value(jnp.array(1.0))
    total = time.perf_counter() - start
    assert taken[-1] - start > total / 2


def test_the_poolings_second_derivative_is_the_finite_difference_of_its_first() -> None:
    """The backends' own pooling loses it: a maximum's position does not move with a small step."""
    rng = np.random.default_rng(0)
    images, weights = rng.normal(size=(2, 4, 6, 3)), rng.normal(size=(2, 2, 3, 3))
    copy = np.zeros((3, 3, 3, 3))  # a kernel that does nothing
    copy[1, 1] = np.eye(3)

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(weights * jnp.sin(2 * conv3x3_max_pool(x, copy, jnp.ones(3)).values))

    point = Point(Objective.of(loss), jnp.asarray(images))
    direction, step = rng.normal(size=point.size), 1e-5
    gradients = [point.loss_and_gradient_at(sign * step * direction)[1] for sign in (1, -1)]
    difference = (gradients[0] - gradients[1]) / (2 * step)
    assert_close(point.product(direction), difference, 1e-8)
    assert np.count_nonzero(point.product(direction)) == images.size // 4


def test_a_point_takes_any_tree_and_gives_it_back() -> None:
    params = [jnp.arange(2.0), ({"b": jnp.ones((2, 1))}, jnp.array(3.0))]
    point = Point(Objective.of(lambda p: jnp.sum(p[0] ** 3) + p[1][1] * jnp.sum(p[1][0]["b"])), params)
    np.testing.assert_array_equal(point.flat(params), [0, 1, 1, 1, 3])
    assert jax.tree.structure(point.tree(point.flat(params))) == jax.tree.structure(params)
    np.testing.assert_allclose(point.gradient, [0, 3, 3, 3, 2])
    np.testing.assert_allclose(point.product(np.array([1, 1, 1, 0, 2.0])), [0, 6, 2, 2, 1])
    np.testing.assert_allclose(point.flat(point.moved(np.ones(5))), [1, 2, 2, 2, 4])
    assert point.loss_at(np.ones(5)) == pytest.approx(1 + 8 + 4 * 4)


def test_products_are_counted_and_told() -> None:
    told = []
    point = Point(Objective.of(lambda x: jnp.sum(x**2)), jnp.ones(3), on_product=lambda: told.append(point.products))
    assert point.hessian is point.hessian
    assert told == [1, 2, 3]


def test_float32_stays_float32() -> None:
    point = Point(Objective.of(lambda x: jnp.sum(x**4)), jnp.ones(3, jnp.float32))
    assert {point.dtype, point.gradient.dtype, point.product(np.ones(3)).dtype} == {np.dtype(np.float32)}


# Mistakes.


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "no parameters"),
        ({"a": jnp.ones((0, 3))}, "no parameters"),
        ({"a": jnp.ones(2), "n": jnp.arange(3)}, r"parameter \['n'\] has type int"),
        ({"a": jnp.ones(2, jnp.bfloat16)}, r"parameter \['a'\] has type bfloat16"),
    ],
)
def test_parameters_that_have_no_hessian_are_named(params: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Point(Objective.of(lambda p: jnp.ones([])), params)


@pytest.mark.parametrize(("start", "loss"), [(-1.0, "nan"), (0.0, "-inf")])
def test_a_loss_that_is_not_finite_is_refused(start: float, loss: str) -> None:
    point = Point(Objective.of(lambda x: jnp.log(x)), jnp.array(start))
    for attribute in ("loss", "gradient"):
        with pytest.raises(UserError, match=f"the loss is {loss} at these parameters") as error:
            getattr(point, attribute)
        assert "\n" not in str(error.value)


def test_a_kink_is_refused() -> None:
    """The loss is finite, its derivatives are not."""
    point = Point(Objective.of(lambda x: jnp.sqrt(x)), jnp.array(0.0))
    with pytest.raises(UserError, match="gradient is not finite"):
        _ = point.gradient
    with pytest.raises(UserError, match="Hessian's product is not finite"):
        point.product(np.ones(1))


def test_batches_must_be_there_and_must_last() -> None:
    def loss(params: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sum(params * batch), jnp.sum(batch)

    with pytest.raises(UserError, match="generator, gone through only once"):
        Objective(loss, (batch for batch in [jnp.ones(1)]))
    for batches in ([], [jnp.zeros(2)]):
        with pytest.raises(UserError, match="weights sum to 0"):
            Objective(loss, batches).value(jnp.ones(1))


def test_a_tree_of_another_form_is_refused() -> None:
    point = Point(Objective.of(lambda p: jnp.sum(p["a"])), {"a": jnp.ones((2, 3))})
    for other in ({"a": jnp.ones((3, 2))}, {"b": jnp.ones((2, 3))}, jnp.ones((2, 3))):
        with pytest.raises(UserError, match="other leaves or shapes"):
            point.flat(other)


# The Taylor expansion.


def test_the_expansion_of_a_quadratic_is_the_quadratic() -> None:
    matrix = np.array([[2.0, 1.0], [1.0, -3.0]])
    point = Point(Objective.of(lambda x: x @ matrix @ x / 2 + x @ jnp.array([1.0, 2.0]) + 5), jnp.array([0.5, -1.0]))
    comparison = compare(point, np.array([1.0, 2.0]), np.linspace(-3, 3, 7))
    np.testing.assert_allclose(comparison.losses, comparison.expansion, rtol=1e-13)
    assert np.ptp(comparison.losses) > 1


@pytest.mark.slow
def test_the_expansions_error_is_of_third_order(variables: dict[str, Any]) -> None:
    point = Point(network(variables), variables["params"])
    direction = 1e-3 * np.random.default_rng(0).normal(size=point.size)
    errors = compare(point, direction, [1, 0.5, 0.25]).errors
    assert errors[0] != 0
    np.testing.assert_allclose(errors[:-1] / errors[1:], 8, rtol=0.05)


@pytest.mark.parametrize(
    ("loss", "start", "decrease"),
    [
        (lambda x: 3 * x**2 + 1, 2.0, 12.0),
        (lambda x: 3 * x**2 + 1, 0.0, 0.0),
        (lambda x: -(x**2), 1.0, math.inf),
        (lambda x: -(x**2), 0.0, 0.0),
        (lambda x: 2 * x, 1.0, math.inf),
        (lambda x: 0 * x, 1.0, 0.0),
    ],
    ids=["slope", "minimum", "negative curvature", "maximum", "straight", "flat"],
)
def test_the_decrease_that_the_expansion_promises(loss: Callable, start: float, decrease: float) -> None:
    point = Point(Objective.of(loss), jnp.array(start))
    downhill = expand_downhill(point)
    assert downhill.decrease == pytest.approx(decrease, rel=1e-14)
    assert downhill.slope == -np.linalg.norm(point.gradient)


def test_the_promise_does_not_depend_on_the_directions_length() -> None:
    point = Point(Objective.of(lambda x: jnp.sum(jnp.exp(x))), jnp.array([0.0, 1.0]))
    decreases = [expand(point, -scale * point.gradient).decrease for scale in (1e-3, 1, 1e3)]
    np.testing.assert_allclose(decreases, expand_downhill(point).decrease, rtol=1e-12)
