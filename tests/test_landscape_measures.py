"""Top eigenpairs, traces by layer, Gauss-Newton and Fisher, rescaled parameters: against dense matrices in float64."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import UserError
from jaxfood.landscape import (
    Matrix,
    NetworkLoss,
    Objective,
    Point,
    SpectrumSettings,
    block,
    extreme_eigenvalues,
    gradient_shares,
    largest_eigenvalue,
    layers_of,
    rescaled,
    top_eigenpairs,
    top_of_krylov,
    trace,
    trace_by_layer,
)
from jaxfood.landscape.lanczos import Krylov
from jaxfood.optim.losses import cross_entropy, mean_squared_error

LANCZOS = SpectrumSettings(dense_size=0, accuracy=1e-6, floor=1e-9)
PICTURES, CLASSES = 6, 3


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def outputs(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["first"]["kernel"] + params["first"]["bias"])
    return hidden @ params["last"]["kernel"]


def losses(z: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
    weights = batch["mask"] * jnp.array([1.0, 2.0, 0.5])[batch["y"]]
    return batch["mask"] * cross_entropy(z, batch["y"], class_weights=(1.0, 2.0, 0.5)), weights


def batches() -> list[dict[str, np.ndarray]]:
    """Two of three pictures and one of padding."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(PICTURES, 4)), rng.integers(0, CLASSES, PICTURES)
    made = []
    for rows in (slice(0, 3), slice(3, 6)):
        padded = np.r_[x[rows], rng.normal(size=(1, 4)) * 100], np.r_[y[rows], 1]
        made.append({"x": padded[0], "y": padded[1], "mask": np.array([1.0, 1, 1, 0])})
    return made


@pytest.fixture(scope="module")
def network() -> NetworkLoss:
    return NetworkLoss(outputs, losses, batches())


@pytest.fixture(scope="module")
def point(network: NetworkLoss) -> Point:
    rng = np.random.default_rng(1)
    params = {
        "first": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)},
        "last": {"kernel": rng.normal(size=(3, CLASSES))},
    }
    return Point(network.objective, jax.tree.map(jnp.asarray, params))


def by_hand(point: Point) -> dict[str, np.ndarray]:
    """The matrices from whole Jacobians and every picture's gradient."""
    sums, weight = {name: np.zeros((point.size, point.size)) for name in Matrix}, 0.0
    for batch in batches():
        flat = jnp.asarray(point.flat(point.params))
        jacobian = np.asarray(jax.jacrev(lambda v, b=batch: outputs(point.tree(v), b))(flat))
        z = outputs(point.params, batch)
        p, weights = np.asarray(jax.nn.softmax(z)), np.asarray(losses(z, batch)[1])
        slopes = np.asarray(jax.grad(lambda z, b=batch: losses(z, b)[0].sum())(z))
        for row in range(3):
            block_of_row = np.diag(p[row]) - np.outer(p[row], p[row])
            sums[Matrix.FISHER] += weights[row] * jacobian[row].T @ block_of_row @ jacobian[row]
            gradient = slopes[row] @ jacobian[row]
            sums[Matrix.EMPIRICAL_FISHER] += np.outer(gradient, gradient)
        weight += weights.sum()
    found = {name: matrix / weight for name, matrix in sums.items()}
    found[Matrix.GAUSS_NEWTON] = found[Matrix.FISHER]
    found[Matrix.REMAINDER] = point.hessian - found[Matrix.FISHER]
    return found


def test_gauss_newton_fisher_and_remainder_are_the_dense_matrices(network: NetworkLoss, point: Point) -> None:
    """The Fisher of a softmax is its cross-entropy's Gauss-Newton matrix, with class weights too."""
    expected = by_hand(point)
    for matrix in Matrix:
        there = network.at(point, matrix)
        np.testing.assert_allclose(there.hessian, expected[matrix], atol=1e-13)
        assert there.loss == point.loss
    assert np.linalg.eigvalsh(expected[Matrix.GAUSS_NEWTON])[0] > -1e-14
    assert np.linalg.eigvalsh(point.hessian)[0] < -1e-3
    assert np.abs(expected[Matrix.EMPIRICAL_FISHER] - expected[Matrix.FISHER]).max() > 0.1


def test_every_measure_takes_another_matrix(network: NetworkLoss, point: Point) -> None:
    dense = by_hand(point)[Matrix.GAUSS_NEWTON]
    counted: list[int] = []
    there = network.at(point, Matrix.GAUSS_NEWTON, on_product=lambda: counted.append(1))
    assert top_eigenpairs(there, LANCZOS, 2).values == pytest.approx(np.linalg.eigvalsh(dense)[:-3:-1])
    assert trace(there, SpectrumSettings()).value == pytest.approx(np.trace(dense))
    assert len(counted) == there.products > 0


def test_gauss_newton_of_a_loss_that_is_not_convex_in_the_outputs() -> None:
    """The squared error of probabilities has negative second derivatives of its own."""

    def squared(z: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        return mean_squared_error(z, batch["y"]), jnp.ones(len(z))

    batch = {"x": np.array([[1.0, -2.0, 0.5, 1.0]]), "y": np.array([0])}
    params = {"first": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}, "last": {"kernel": jnp.eye(3) * 3}}
    network = NetworkLoss(outputs, squared, [batch])
    point = Point(network.objective, params)
    flat = jnp.asarray(point.flat(params))
    jacobian = np.asarray(jax.jacrev(lambda v: outputs(point.tree(v), batch)[0])(flat))
    curved = np.asarray(jax.hessian(lambda z: squared(z[None], batch)[0].sum())(outputs(params, batch)[0]))
    expected = jacobian.T @ curved @ jacobian
    np.testing.assert_allclose(network.at(point, Matrix.GAUSS_NEWTON).hessian, expected, atol=1e-14)


def test_outputs_with_a_derivative_of_their_own_are_taken() -> None:
    """The fused layers are `jax.custom_vjp`, which has no `jvp`."""

    @jax.custom_vjp
    def square(x: jax.Array) -> jax.Array:
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))

    def own(params: Any, batch: Any) -> jax.Array:
        return square(batch["x"] @ params)

    network = NetworkLoss(own, lambda z, batch: (jnp.sum(z**2, -1) / 2, jnp.ones(len(z))), [{"x": np.eye(2)}])
    point = Point(network.objective, jnp.array([[1.0], [2.0]]))
    np.testing.assert_allclose(network.at(point, Matrix.GAUSS_NEWTON).hessian, np.diag([4.0, 16.0]) / 2)


# The largest eigenvalues, and the gradient's share.


@pytest.mark.parametrize("settings", [SpectrumSettings(), LANCZOS])
def test_top_eigenpairs_and_the_gradients_share(point: Point, settings: SpectrumSettings) -> None:
    values, vectors = np.linalg.eigh(point.hessian)
    top = top_eigenpairs(point, settings, 4)
    np.testing.assert_allclose(top.values, values[:-5:-1], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(top.vectors * vectors.T[:-5:-1], 1)), 1, rtol=1e-6)
    assert np.all(top.residuals < 1e-4)
    shares = gradient_shares(point, top.vectors)
    components = (vectors.T @ point.gradient)[::-1] ** 2
    np.testing.assert_allclose(shares, np.cumsum(components)[:4] / components.sum(), atol=1e-6)
    assert np.all(np.diff(shares) >= 0)
    assert top_eigenpairs(point, settings, 100).values.shape == (point.size,)


def test_the_surveys_lanczos_vectors_tell_of_the_largest_without_a_product(point: Point) -> None:
    krylov = Krylov(point.product, np.random.default_rng(0).normal(size=point.size), 18)
    for _ in range(16):
        krylov.extend()
    before = point.products
    top = top_of_krylov(krylov, 5)
    assert point.products == before
    errors = [np.linalg.norm(point.hessian @ v - value * v) for value, v in zip(top.values, top.vectors, strict=True)]
    np.testing.assert_allclose(top.residuals, errors, atol=1e-9)
    values = np.linalg.eigvalsh(point.hessian)[::-1]
    assert all(np.abs(values - value).min() <= r + 1e-9 for value, r in zip(top.values, top.residuals, strict=True))
    assert np.all(np.diff(top.values) <= 0)
    assert len(top_of_krylov(krylov, 100).values) == 16


@pytest.mark.parametrize("settings", [SpectrumSettings(), LANCZOS])
def test_the_largest_alone_takes_fewer_products(point: Point, settings: SpectrumSettings) -> None:
    found = largest_eigenvalue(point, settings)
    assert abs(found.value - np.linalg.eigvalsh(point.hessian)[-1]) <= found.residual + 1e-9
    assert found.residual <= 1e-6 * found.value
    few = dataclasses.replace(LANCZOS, max_products=5, memory_gib=0)
    before = point.products
    rough = largest_eigenvalue(point, few)
    assert point.products - before == 5
    assert rough.residual > 1e-6 * rough.value


def test_at_a_gradient_of_zero_no_share_is_anything() -> None:
    flat = Point(Objective.of(lambda x: jnp.sum(x**2)), jnp.zeros(3))
    assert gradient_shares(flat, np.eye(3)).tolist() == [0, 0, 0]


# By layer.


def test_traces_by_layer_add_up_to_the_trace(point: Point) -> None:
    diagonal, layers = np.diag(point.hessian), layers_of(point)
    assert layers == {"first": slice(0, 15), "last": slice(15, 24)}
    exact = trace_by_layer(point, SpectrumSettings())
    assert exact.total == pytest.approx((diagonal.sum(), 0))
    for name, at in layers.items():
        assert exact.layers[name] == pytest.approx((diagonal[at].sum(), 0))
    sampled = SpectrumSettings(dense_size=0, trace_products=13)
    before = point.products
    by_layer = trace_by_layer(point, sampled)
    assert point.products - before == 13
    assert by_layer.total == pytest.approx(trace(point, sampled))
    assert sum(layer.value for layer in by_layer.layers.values()) == pytest.approx(by_layer.total.value)


def test_traces_by_layer_are_right_on_average(point: Point) -> None:
    """Over seeds the mean comes to the exact one, and the standard error tells how far a single one is off."""
    diagonal = np.diag(point.hessian)
    runs = [trace_by_layer(point, SpectrumSettings(dense_size=0, seed=s, trace_products=8)) for s in range(60)]
    for name, at in layers_of(point).items():
        found = np.array([run.layers[name].value for run in runs])
        spread = found.std() / np.sqrt(len(found))
        assert abs(found.mean() - diagonal[at].sum()) < 4 * spread
        told = np.sqrt(np.mean([run.layers[name].standard_error ** 2 for run in runs]))
        assert 0.5 < told / found.std() < 2


def test_a_layers_block(point: Point) -> None:
    for name, at in layers_of(point).items():
        there = block(point, name)
        np.testing.assert_allclose(there.hessian, point.hessian[at, at], atol=1e-13)
        np.testing.assert_allclose(there.gradient, point.gradient[at])
        assert there.loss == point.loss
        move = np.random.default_rng(0).normal(size=there.size)
        whole = np.zeros(point.size)
        whole[at] = move
        assert there.loss_at(move) == pytest.approx(point.loss_at(whole))
    with pytest.raises(UserError, match="no layer third: there are first, last"):
        block(point, "third")
    with pytest.raises(UserError, match="give a dictionary of layers"):
        layers_of(Point(Objective.of(jnp.sum), jnp.ones(2)))


# Rescaled.


def test_rescaled_parameters_have_the_preconditioned_hessian(point: Point) -> None:
    scales = np.random.default_rng(2).uniform(0, 3, point.size)
    scales[3] = 0
    there, before = rescaled(point, scales), point.products
    expected = scales[:, None] * point.hessian * scales
    np.testing.assert_allclose(there.hessian, expected, atol=1e-12)
    np.testing.assert_allclose(there.gradient, scales * point.gradient)
    largest = extreme_eigenvalues(rescaled(point, scales), LANCZOS).values[-1]
    assert largest == pytest.approx(np.linalg.eigvalsh(expected)[-1], rel=1e-6)
    penalised = rescaled(point, scales, decay=np.full(point.size, 0.5))
    np.testing.assert_allclose(penalised.hessian, expected + np.diag(0.5 * scales**2), atol=1e-12)
    move = np.random.default_rng(0).normal(size=point.size)
    loss, gradient = there.loss_and_gradient_at(move)
    assert loss == pytest.approx(point.loss_at(scales * move))
    np.testing.assert_allclose(gradient, scales * point.loss_and_gradient_at(scales * move)[1])
    assert point.products > before  # so that a progress bar over the point sees them
    moved = Point(there.objective, there.moved(move))
    other = Point(point.objective, point.moved(scales * move))
    np.testing.assert_allclose(moved.product(move), scales * other.product(scales * move))
