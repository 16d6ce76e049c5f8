"""The losses: formulas by hand, PyTorch's values and gradients, weighted means, and numbers that stay finite."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import LOSSES, load_config
from jaxfood.errors import UserError
from jaxfood.optim.losses import Loss, balanced_class_weights, make_loss
from jaxfood.training.metrics import batch_sums, means

NUM_CLASSES = 4
WEIGHTS = (0.5, 2.0, 0.0, 3.0)
CASES = [
    "cross_entropy",
    "cross_entropy label_smoothing=0.3",
    "cross_entropy label_smoothing=1",
    "cross_entropy class_weights=0.5,2,0,3",
    "cross_entropy class_weights=0.5,2,0,3 label_smoothing=0.3",
    "mse",
    "focal",
    "focal gamma=0",
    "focal gamma=0.5",
    "focal class_weights=0.5,2,0,3 gamma=1",
]
_rng = np.random.default_rng(0)
LOGITS = _rng.normal(0, 3, (12, NUM_CLASSES))
LABELS = _rng.integers(0, NUM_CLASSES, 12)
ALONG = _rng.normal(size=LOGITS.shape)  # the Hessian is taken along it
ALL = np.ones(12)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def settings_of(case: str) -> Any:
    name, *options = case.split()
    return load_config(None, [f"loss.name={name}", *(f"loss.{option}" for option in options)]).loss


def loss_of(case: str) -> Loss:
    return make_loss(settings_of(case), NUM_CLASSES)


class Results(NamedTuple):
    """Of the pictures, and of their mean as the step takes it: value, gradient, and Hessian times `ALONG`."""

    losses: jax.Array
    weights: jax.Array
    mean: jax.Array
    gradient: jax.Array
    product: jax.Array


@cache
def compiled(case: str) -> Callable[..., Results]:
    @jax.jit
    def compute(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Results:
        def mean(logits: jax.Array) -> jax.Array:
            return means(batch_sums(loss_of(case), logits, {"label": labels, "mask": mask}))["loss"]

        gradient, product = jax.jvp(jax.grad(mean), (logits,), (ALONG.astype(logits.dtype),))
        return Results(*loss_of(case)(logits, labels), mean(logits), gradient, product)

    return compute


def results(case: str, logits: np.ndarray = LOGITS, labels: np.ndarray = LABELS, mask: np.ndarray = ALL) -> Results:
    return Results(*map(np.asarray, compiled(case)(logits, labels, mask)))


# By hand.


def by_hand(case: str, logits: np.ndarray, label: int) -> float:
    """The loss of one picture, as the sum over classes that the papers have."""
    c = settings_of(case)
    p = np.exp(logits) / np.sum(np.exp(logits))
    target = np.eye(NUM_CLASSES)[label]
    weights = np.array(getattr(c, "class_weights", ()) or [1] * NUM_CLASSES)
    if c.name == "mse":
        return float(np.mean((p - target) ** 2))
    if c.name == "focal":
        return float(-weights[label] * (1 - p[label]) ** c.gamma * np.log(p[label]))
    target = (1 - c.label_smoothing) * target + c.label_smoothing / NUM_CLASSES
    return float(-np.sum(weights * target * np.log(p)))


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_of_single_pictures(case: str) -> None:
    ours = results(case)
    expected = [by_hand(case, *picture) for picture in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(ours.losses, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(ours.weights, np.array(WEIGHTS)[LABELS] if "class_weights" in case else ALL)
    assert float(ours.mean) == pytest.approx(np.sum(expected) / np.sum(ours.weights), rel=1e-12)


def test_named_values() -> None:
    """Two logits apart by log 3: the probabilities are 3/4 and 1/4."""
    logits, labels = np.log([[3.0, 1.0], [3.0, 1.0]]), np.array([0, 1])
    expected = {
        "cross_entropy": [np.log(4 / 3), np.log(4)],
        "cross_entropy label_smoothing=0.2": [np.log(4 / 3) + 0.1 * np.log(3), np.log(4) - 0.1 * np.log(3)],
        "mse": [1 / 16, 9 / 16],
        "focal": [np.log(4 / 3) / 16, np.log(4) * 9 / 16],
    }
    losses = jax.jit(lambda *batch: {case: make_loss(settings_of(case), 2)(*batch)[0] for case in expected})
    for case, values in losses(logits, labels).items():
        np.testing.assert_allclose(values, expected[case], rtol=1e-12, err_msg=case)


def test_defaults_are_pytorchs_and_the_papers() -> None:
    assert load_config().loss == LOSSES["cross_entropy"](label_smoothing=0.0, class_weights=())
    assert LOSSES["focal"]().gamma == 2


# PyTorch's, values and gradients.


def torch_losses(case: str) -> Callable[..., Any]:
    """`reduction` to PyTorch's loss of logits and labels."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functional, c = torch.nn.functional, settings_of(case)
    weights = torch.tensor(c.class_weights, dtype=torch.float64) if getattr(c, "class_weights", ()) else None

    def cross_entropy(logits: Any, labels: Any) -> Any:
        return functional.cross_entropy(logits, labels, weights, label_smoothing=c.label_smoothing)

    def mse(logits: Any, labels: Any) -> Any:
        return functional.mse_loss(logits.softmax(-1), functional.one_hot(labels, NUM_CLASSES).double())

    def focal(logits: Any, labels: Any) -> Any:
        surprise = functional.cross_entropy(logits, labels, weights, reduction="none")
        factor = (1 - torch.exp(-functional.cross_entropy(logits, labels, reduction="none"))) ** c.gamma
        return (factor * surprise).sum() / (len(labels) if weights is None else weights[labels].sum())

    return {"cross_entropy": cross_entropy, "mse": mse, "focal": focal}[c.name]


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_mean_and_gradient_are_pytorchs(case: str) -> None:
    """With class weights the mean is by the weights' sum, and pictures that a mask leaves out are not there."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    mask = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    logits = torch.tensor(LOGITS, requires_grad=True)
    shown = torch.tensor(mask == 1)
    theirs = torch_losses(case)(logits[shown], torch.tensor(LABELS)[shown])
    theirs.backward()
    ours = results(case, mask=mask.astype(float))
    np.testing.assert_allclose(ours.mean, theirs.detach(), rtol=1e-12)
    np.testing.assert_allclose(ours.gradient, logits.grad, rtol=1e-10, atol=1e-15)


# Means: sums over sums.


@pytest.mark.parametrize("case", ["cross_entropy", "cross_entropy class_weights=0.5,2,0,3 label_smoothing=0.3", "mse"])
def test_an_epochs_mean_is_that_of_all_its_pictures(case: str) -> None:
    """In batches of 5, 5 and 2, the last one padded: a mean of the batches' means would be another number."""
    sums = jax.jit(partial(batch_sums, loss_of(case)))
    batches = [(slice(0, 5), np.ones(5)), (slice(5, 10), np.ones(5)), (slice(7, 12), np.array([0.0, 0, 0, 1, 1]))]
    parts = [sums(LOGITS[which], {"label": LABELS[which], "mask": mask}) for which, mask in batches]
    whole = means(jax.tree.map(lambda *part: sum(map(np.asarray, part)), *parts))
    assert float(whole["loss"]) == pytest.approx(float(results(case).mean), rel=1e-12)
    assert float(whole["accuracy"]) == np.mean(LOGITS.argmax(1) == LABELS)
    of_means = np.mean([float(means(part)["loss"]) for part in parts])
    assert abs(of_means - float(whole["loss"])) > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_padding_enters_nothing(case: str) -> None:
    """Whatever its logits, and whatever its label among the classes."""
    mask, padded = np.where(np.arange(12) < 7, 1.0, 0.0), LOGITS.copy()
    padded[7:] = 1e4 * np.sign(LOGITS[7:])
    ours, alone = results(case, padded, mask=mask), results(case, mask=mask)
    assert float(ours.mean) == pytest.approx(np.sum(alone.losses[:7]) / np.sum(alone.weights[:7]), rel=1e-12)
    assert not np.any(ours.gradient[7:])
    np.testing.assert_allclose(ours.gradient[:7], alone.gradient[:7], rtol=1e-12)


def test_a_batch_of_weight_0_teaches_nothing() -> None:
    """PyTorch's mean of it is nan."""
    ours = results("cross_entropy class_weights=0.5,2,0,3", labels=np.full(12, 2))
    assert float(ours.mean) == 0
    assert not np.any(ours.gradient)


def test_class_weights_leave_accuracy_alone() -> None:
    sums = batch_sums(loss_of("cross_entropy class_weights=0.5,2,0,3"), jnp.asarray(LOGITS), {"label": LABELS})
    assert (float(sums["correct"]), float(sums["count"])) == (np.sum(LOGITS.argmax(1) == LABELS), 12)


# Numbers that stay finite, and derivatives by finite differences.


@pytest.mark.parametrize("case", CASES)
def test_extreme_logits_give_finite_values_and_derivatives(case: str) -> None:
    """Of +-1e4, and ties, in float32."""
    drawn = np.random.default_rng(1)
    for _ in range(10):
        logits = drawn.choice([-1e4, 0, 1e4], LOGITS.shape).astype(np.float32)
        ours = results(case, logits, mask=ALL.astype(np.float32))
        for result in ours:
            assert result.dtype == np.float32
            assert np.all(np.isfinite(result))
        assert np.all(ours.losses >= 0)
        assert np.max(ours.losses) >= (0.3 if case == "mse" else 2e3)


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_finite_differences(case: str) -> None:
    step = 1e-5
    ours = results(case)
    ahead, behind = (results(case, LOGITS + sign * step * ALONG) for sign in (1, -1))
    slope = float(ahead.mean - behind.mean) / (2 * step)
    assert slope == pytest.approx(float(np.sum(ours.gradient * ALONG)), rel=1e-7)
    np.testing.assert_allclose((ahead.gradient - behind.gradient) / (2 * step), ours.product, rtol=1e-6, atol=1e-9)


def test_each_element_of_a_gradient_is_that_of_finite_differences() -> None:
    step = 1e-5
    for case in CASES:
        ours = results(case)
        for index in np.ndindex(3, NUM_CLASSES):
            shift = np.zeros_like(LOGITS)
            shift[index] = step
            slope = float(results(case, LOGITS + shift).mean - results(case, LOGITS - shift).mean) / (2 * step)
            assert slope == pytest.approx(float(ours.gradient[index]), rel=1e-6, abs=1e-10), (case, index)


def test_bfloat16_logits_keep_their_type() -> None:
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    all_losses = jax.jit(lambda logits: [loss_of(case)(logits, LABELS) for case in CASES])
    for case, (losses, weights) in zip(CASES, all_losses(half), strict=True):
        assert losses.dtype == weights.dtype == jnp.bfloat16, case
        exact = results(case, np.asarray(half, np.float64)).losses
        np.testing.assert_allclose(np.asarray(losses, np.float64), exact, rtol=0.05, atol=0.05, err_msg=case)


# The user's mistakes.


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1,2,3", r"^loss\.class_weights has 3 numbers and model\.num_classes = 4: give a weight for each class$"),
        ("1,2,3,4,5", r"loss\.class_weights has 5 numbers and model\.num_classes = 4"),
        ("0,0,0,0", r"loss\.class_weights are all 0 and"),
    ],
)
def test_class_weights_that_do_not_fit(name: str, weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loss_of(f"{name} class_weights={weights}")


def test_balanced_weights_are_scikit_learns() -> None:
    """n / (K n_c): by hand, and its property that a picture weighs 1 on average; none for what nothing is known of."""
    assert balanced_class_weights([4, 1, 3]) == (8 / 12, 8 / 3, 8 / 9)
    assert balanced_class_weights([4, 0, 4]) == (1, 0, 1)
    counts = [33, 1, 270, 0, 12]
    weights = balanced_class_weights(counts)
    assert np.dot(weights, counts) == pytest.approx(sum(counts))
    assert weights[3] == 0


def test_balanced_weights_without_pictures_have_no_loss() -> None:
    with pytest.raises(UserError, match=r"loss\.class_weights = balanced has no numbers before .*train it first"):
        loss_of("focal class_weights=balanced")
