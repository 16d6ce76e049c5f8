"""The optimizers: PyTorch's updates and defaults, the order clip, L2, direction, rate; any pytree and type."""

import dataclasses
import inspect
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimizer_parity as parity
import pytest
from optimizer_parity import CASES, PROBLEMS, STORED_PROBLEMS, TORCH_CLASSES, Tree, configuration, deviation, trajectory

from jaxfood.config import OPTIMIZERS
from jaxfood.optim.optimizers import clip_by_norm, clip_by_value, is_weight_matrix, make_optimizer

STORED = json.loads(parity.NUMBERS.read_text())
ONES = {"kernel": np.ones((1, 2)), "bias": np.ones(1)}


def torch_trajectory(*arguments: Any) -> list[Tree]:
    pytest.importorskip("torch", reason="compares with PyTorch")
    from torch_parity import trajectory

    return trajectory(*arguments)


# PyTorch's updates.


@pytest.mark.torch
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_pytorchs_in_float64(case: str, problem: str) -> None:
    theirs = torch_trajectory(case, *PROBLEMS[problem])
    ours = trajectory(case, *PROBLEMS[problem])
    assert {p.dtype for p in ours[-1].values()} == {np.dtype("float64")}
    assert deviation(ours, theirs) < 1e-10
    assert parity.make_update(case, "float64")[1]._cache_size() == 1, "an update after the first compiled something"


@pytest.mark.torch
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_pytorchs_in_float32(case: str, problem: str) -> None:
    """For equal gradients: from their own, rounding grows (Adam makes whole steps of it)."""
    start, gradient = PROBLEMS[problem]
    theirs = torch_trajectory(case, start, gradient, "float32")
    before = [{name: p.astype(np.float32) for name, p in start.items()}, *theirs]
    ours = trajectory(case, start, lambda step, _: gradient(step, before[step]), "float32")
    assert {p.dtype for p in ours[-1].values()} == {np.dtype("float32")}
    assert deviation(ours, theirs) < 1e-5


@pytest.mark.parametrize("problem", STORED_PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_fifty_updates_lead_where_pytorchs_stored_numbers_are(case: str, problem: str) -> None:
    stored = {name: np.array(values) for name, values in STORED[f"{case} on {problem}"].items()}
    last = {name: p.ravel() for name, p in trajectory(case, *PROBLEMS[problem])[-1].items()}
    for name, values in stored.items():
        np.testing.assert_allclose(last[name], values, rtol=1e-10, atol=1e-10 * np.max(np.abs(values)), err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_float32_keeps_its_digits(case: str) -> None:
    """Also where the moments' start is corrected: 1 - 0.999 is 1e-5 off there."""
    exact = trajectory(case, *PROBLEMS["scales"])
    assert deviation(trajectory(case, *PROBLEMS["scales"], "float32"), exact) < 5e-6


def test_numbers_are_stored_for_every_case() -> None:
    assert STORED.keys() - {"made_with"} == {f"{case} on {problem}" for case in CASES for problem in STORED_PROBLEMS}


def test_every_optimizer_is_pytorchs_or_the_notes() -> None:
    notes = {name for name in OPTIMIZERS if name.startswith("notes_")}
    assert OPTIMIZERS.keys() - TORCH_CLASSES.keys() == notes | {
        "muon"
    }  # PyTorch's has no parity beyond bfloat16, below
    assert {case.split()[0] for case in CASES} == TORCH_CLASSES.keys()


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


# The order: clip by value, clip by norm, L2, direction, learning rate.


def test_the_first_update_of_sgd_with_everything() -> None:
    """In any other order the numbers differ."""
    case = "sgd learning_rate=0.1 weight_decay=0.5 clip_value=3 clip_norm=1"
    (params,) = trajectory(case, ONES, lambda *_: {"kernel": np.array([[4.0, -1]]), "bias": np.array([-9.0])}, steps=1)
    clipped = np.array([3, -1, -3]) / (math.sqrt(19) + 1e-6)
    np.testing.assert_allclose(np.append(params["kernel"], params["bias"]), 1 - 0.1 * (clipped + 0.5), rtol=1e-14)


def test_l2_enters_adams_moments_and_adamws_decay_does_not() -> None:
    """Without gradients Adam's first step is a whole rate towards zero; AdamW only shrinks."""
    start = {"kernel": np.array([[1.0, -2]]), "bias": np.array([4.0])}
    options = "learning_rate=0.01 weight_decay=0.1"
    (adam,), (adamw,) = (
        trajectory(f"{name} {options}", start, lambda _, params: jax.tree.map(np.zeros_like, params), steps=1)
        for name in ("adam", "adamw")
    )
    for name, p in start.items():
        np.testing.assert_allclose(adam[name], p - 0.01 * np.sign(p), rtol=1e-5)
        np.testing.assert_allclose(adamw[name], p * (1 - 0.01 * 0.1), rtol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_weight_matrices_decay_where_asked(name: str) -> None:
    """Without gradients nothing but the decay moves a parameter."""
    case = f"{name} learning_rate=0.1 weight_decay=0.1 decay_biases_and_norms=false"
    last = trajectory(case, ONES, lambda _, params: jax.tree.map(np.zeros_like, params), steps=3)[-1]
    assert np.all(last["kernel"] < 1)
    np.testing.assert_array_equal(last["bias"], 1)


def test_weight_matrices_of_the_classifier_are_its_kernels() -> None:
    from jaxfood.model.networks import init_variables

    config = configuration("adam data.image_size=32 model.num_classes=3")
    params = jax.eval_shape(lambda: init_variables(config))["params"]
    for path, is_matrix in jax.tree.leaves_with_path(is_weight_matrix(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert is_matrix == name.endswith("kernel"), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", [-1, -2, -2.5, -3, -3.25]),
        ("momentum", [-1, -2.5, -3.375, -4.3125, -4.796875]),  # velocities 1, 1.5, 1.75, 1.875, 1.9375
    ],
)
def test_the_schedules_rate_is_the_one_applied(name: str, expected: list[float]) -> None:
    schedule = "schedule.name=step schedule.step_size=2 schedule.gamma=0.5"
    momentum = "momentum=0.5" if name == "momentum" else ""
    zeros = jax.tree.map(np.zeros_like, ONES)
    steps = trajectory(f"{name} {momentum} learning_rate=1 {schedule}", zeros, lambda *_: ONES, steps=5)
    np.testing.assert_allclose([params["bias"][0] for params in steps], expected, rtol=1e-14)


# Clipping.


def clipped(clip: optax.GradientTransformation, grads: Any) -> Any:
    return clip.update(grads, clip.init(grads), grads)[0]


@pytest.mark.parametrize(("norm", "max_norm"), [(5.0, 1.0), (1.0, 1.0), (1.0 - 5e-7, 1.0), (1e-6, 1e-6), (0.5, 1.0)])
def test_clipping_by_norm_has_pytorchs_millionth(norm: float, max_norm: float) -> None:
    with jax.enable_x64(True):
        grads = {"a": np.array([0.6 * norm, 0.0]), "b": np.array([[-0.8 * norm]])}
        result = clipped(clip_by_norm(max_norm), grads)
    factor = min(1.0, max_norm / (norm + 1e-6))
    for name, g in grads.items():
        np.testing.assert_allclose(result[name], g * factor, rtol=1e-14)


def test_clipping_by_value_takes_each_element() -> None:
    grads = {"a": jnp.array([3.0, -0.5, -4.0]), "b": jnp.array(2.0, jnp.bfloat16)}
    result = clipped(clip_by_value(2.0), grads)
    np.testing.assert_array_equal(result["a"], [2, -0.5, -2])
    assert (result["b"], result["b"].dtype) == (2, jnp.bfloat16)


@pytest.mark.parametrize("clip", [clip_by_norm(math.inf), clip_by_value(math.inf)], ids=["norm", "value"])
def test_infinite_is_no_clipping_whatever_the_gradient(clip: optax.GradientTransformation) -> None:
    grads = {"a": jnp.array([1e30, -1e38], jnp.float32), "b": jnp.ones(2, jnp.bfloat16)}
    jax.tree.map(np.testing.assert_array_equal, clipped(clip, grads), grads)


def test_clipping_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(clipped(clip_by_norm(1.0), {"a": jnp.zeros(3)})["a"], np.zeros(3))


# Muon.


def test_muons_step_is_the_same_in_every_direction_of_a_kernel() -> None:
    """A convolution's, as a matrix of what enters it by its outputs: singular values near 1, of AdamW's mean square."""
    kernel = {"kernel": np.zeros((3, 3, 8, 16))}
    rng = np.random.default_rng(0)
    case = "muon learning_rate=1 weight_decay=0 momentum=0.9"
    gradients = lambda *_: {"kernel": rng.normal(size=(3, 3, 8, 16)) * np.r_[0.1, np.ones(15)]}  # noqa: E731
    (step,) = trajectory(case, kernel, gradients, steps=1)
    values = np.linalg.svd(step["kernel"].reshape(72, 16), compute_uv=False) / (0.2 * math.sqrt(72))
    assert 0.6 < values.min() < values.max() < 1.3


def test_biases_and_norms_move_by_adamw_beside_muon() -> None:
    gradients = lambda step, params: {name: np.cos(p + step) for name, p in params.items()}  # noqa: E731
    options = "learning_rate=0.01 weight_decay=0.1"
    muon, adamw = (trajectory(f"{name} {options}", ONES, gradients, steps=4)[-1] for name in ("muon", "adamw"))
    np.testing.assert_allclose(muon["bias"], adamw["bias"], rtol=1e-12)
    assert np.abs(muon["kernel"] - adamw["kernel"]).max() > 1e-3


@pytest.mark.torch
def test_muon_moves_matrices_as_pytorchs_does() -> None:
    """PyTorch orthogonalises in bfloat16, whose errors five rounds raise to some percent; without Nesterov's look ahead
    or with another size the difference is 20 % and more."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    start = np.random.default_rng(0).normal(size=(12, 20))
    drawn = np.random.default_rng(1).normal(size=(8, 12, 20))
    kernel = torch.nn.Parameter(torch.tensor(start.T.copy()))  # `nn.Linear` keeps outputs first
    theirs = torch.optim.Muon([kernel], lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for g in drawn:
        kernel.grad = torch.tensor(g.T.copy())
        theirs.step()
    case = "muon learning_rate=0.02 weight_decay=0.1 momentum=0.9"
    ours = trajectory(case, {"kernel": start}, lambda step, _: {"kernel": drawn[step]}, steps=8)[-1]["kernel"]
    moved = kernel.detach().numpy().T - start
    assert np.abs(ours - start - moved).max() < 0.08 * np.abs(moved).max()


# Any pytree and type.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_any_pytree_and_keeps_its_types(name: str) -> None:
    """And in bfloat16 it moves as in float32, but for bfloat16's three digits; clipped, decayed, on a schedule."""
    tx = make_optimizer(configuration(f"{name} clip_norm=2 weight_decay=0.01 schedule.name=warmup_cosine"), 10)
    update = jax.jit(tx.update)
    drawn = np.random.default_rng(0).normal(size=(8, 3, 4))
    params = [jnp.zeros((3, 4)), ({"half": jnp.zeros((3, 4), jnp.bfloat16)}, jnp.ones([]))]
    state = tx.init(params)
    types = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (params, state))
    for g in drawn:
        grads = [jnp.asarray(g, jnp.float32), ({"half": jnp.asarray(g, jnp.bfloat16)}, jnp.ones([]))]
        updates, state = update(grads, state, params)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (updates, state)) == types
        whole, half = np.asarray(updates[0]), np.asarray(updates[1][0]["half"], np.float32)
        np.testing.assert_allclose(half, whole, rtol=0, atol=0.03 * np.max(np.abs(whole)))
        params = optax.apply_updates(params, updates)
    assert np.max(np.abs(whole)) > 0
    assert update._cache_size() == 1, "an update after the first compiled something"
