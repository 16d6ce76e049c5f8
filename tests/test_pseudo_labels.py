"""Unlabelled pictures in the update: formulas in NumPy, views, thresholds, devices. Of a narrow network."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import TrainState, load_config
from jaxfood.config.sections import AugmentConfig, DeviceConfig
from jaxfood.data.augment import augment
from jaxfood.data.batches import epoch_order, make_batches, unlabeled_order
from jaxfood.data.pictures import Pictures
from jaxfood.devices import compile_step, make_mesh, on_every_device, takes_rows_by_device
from jaxfood.model.networks import init_variables, to_float
from jaxfood.training import pseudo_labels
from jaxfood.training.metrics import means, zero_sums
from jaxfood.training.pseudo_labels import in_parts, pseudo_labelled, sure_of
from jaxfood.training.step import add_augmented_update, gradients

SETTINGS = (
    *("data.image_size=32", "model.num_classes=3", "model.name=resnet", "model.width=4", "model.blocks=0"),
    *("optimizer.name=sgd", "optimizer.learning_rate=0.05", "train.unlabeled_ratio=2"),
)
RNG = np.random.default_rng(1)


def coloured(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures [rows, 32, 32, 3] that a network answers differently, as it does not noise."""
    return (rng.integers(0, 256, (rows, 32, 32, 3)) * rng.uniform(0, 1, (rows, 1, 1, 3))).astype(np.uint8)


IMAGES, MORE = (coloured(rows, RNG) for rows in (4, 8))
THRESHOLD = 0.77  # that some of these pictures' answers reach
LABELS, MASK = np.array([2, 0, 1, 2], np.int32), np.array([1, 1, 1, 0.0])
PSEUDO = {
    "image": MORE,
    "label": np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32),
    "sure": np.array([1, 0, 1, 1, 0, 0, 1, 1.0]),
    "mask": np.array([1, 1, 1, 1, 1, 1, 0, 0.0]),
}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def made(*settings: str, scale: float = 0.2) -> TrainState:
    """A state of drawn weights in float64."""
    config = load_config(None, (*SETTINGS, *settings))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(config))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale, leaf.shape)), shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), shapes["batch_stats"])
    return TrainState.create(config, {"params": params, "batch_stats": stats}, total_steps=100)


@pytest.mark.slow
def test_loss_and_gradient_are_fixmatchs() -> None:
    """Mean of the labelled + weight / (all unlabelled) * sum of the sure ones, by one network pass over both."""
    state = made("train.unlabeled_weight=0.7")

    def by_hand(params: Any) -> Any:
        images = jnp.concatenate((to_float(jnp.asarray(IMAGES)), to_float(jnp.asarray(MORE))))
        mask = np.concatenate((MASK, PSEUDO["mask"]))
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, stats = state.model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])
        surprise = -jax.nn.log_softmax(logits)[np.arange(12), np.concatenate((LABELS, PSEUDO["label"]))]
        own = jnp.sum(surprise[:4] * MASK) / 3
        rest = jnp.sum(surprise[4:] * PSEUDO["sure"] * PSEUDO["mask"]) / 6
        return own + 0.7 * rest, (own, stats["batch_stats"])

    expected, (own, stats) = jax.jit(jax.grad(by_hand, has_aux=True))(state.params)
    batch = {"image": IMAGES, "label": LABELS, "mask": MASK, "unlabeled": PSEUDO}
    grads, batch_stats, sums = jax.jit(gradients)(state, batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), grads, expected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), batch_stats, stats)
    metrics = means(sums)
    assert metrics["loss"] == pytest.approx(float(own), rel=1e-6)  # the labelled pictures' alone
    assert float(sums["count"]) == 3
    assert metrics["pseudo_label_share"] == pytest.approx(3 / 6)


@pytest.mark.slow
def test_the_answer_to_the_weak_view_labels_the_strong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the moving average and the running statistics; the views are functions of seed, step and picture."""
    seen = []

    def spy(config: AugmentConfig, images: jax.Array, positions: jax.Array, key: jax.Array, *, size: int) -> jax.Array:
        seen.append((config, augment(config, images, positions, key, size=size)))
        return seen[-1][1]

    monkeypatch.setattr(pseudo_labels, "augment", spy)
    state = made("train.ema_decay=0.9", scale=1.0)
    other = jax.tree.map(lambda leaf: 0.6 * leaf[..., ::-1], state.average)
    state = state.replace(average=other)
    batch = {"image": MORE, "position": np.arange(8), "mask": PSEUDO["mask"]}
    config = AugmentConfig(flip=True, crop=4)
    monkeypatch.setattr(pseudo_labels, "weak", lambda config: AugmentConfig(flip=True))
    options: dict[str, Any] = {"config": config, "seed": 3, "size": None}
    found = pseudo_labelled(state, batch, threshold=THRESHOLD, **options)
    (weak_config, weak), (strong_config, strong) = seen
    assert (weak_config, strong_config) == (AugmentConfig(flip=True), config)
    np.testing.assert_array_equal(found["image"], strong)
    logits = np.asarray(state.model.apply(other, to_float(weak), train=False))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found["label"], shares.argmax(axis=1))
    np.testing.assert_array_equal(found["sure"], shares.max(axis=1) >= THRESHOLD)
    assert 0 < np.sum(found["sure"]) < 8, shares.max(axis=1)

    again = pseudo_labelled(state, batch, threshold=THRESHOLD, **options)
    np.testing.assert_array_equal(again["image"], found["image"])
    turned = pseudo_labelled(state, {name: rows[::-1] for name, rows in batch.items()}, threshold=THRESHOLD, **options)
    np.testing.assert_array_equal(turned["image"][::-1], found["image"])
    later = pseudo_labelled(state.replace(step=state.step + 1), batch, threshold=THRESHOLD, **options)
    assert np.any(later["image"] != found["image"])


def test_an_answer_of_the_threshold_counts_and_none_at_a_threshold_of_one() -> None:
    answers = jnp.array([[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_array_equal(sure_of(answers, 0.75), [True, True, False, True])
    assert not np.any(sure_of(answers, 1.0))


def test_a_weak_view_is_mirrored_and_shifted_alone() -> None:
    assert pseudo_labels.weak(AugmentConfig(flip=True, crop=4)) == AugmentConfig(flip=True, crop=4)
    assert pseudo_labels.weak(AugmentConfig()) == AugmentConfig()


def test_parts_keep_the_order_of_rows() -> None:
    images = jnp.arange(24.0).reshape(12, 2, 1, 1)
    answers = in_parts(lambda part: part[:, :, 0, 0] * 2, images, 3)
    np.testing.assert_array_equal(answers, images[:, :, 0, 0] * 2)


def test_each_unlabelled_picture_is_seen_once_before_any_again() -> None:
    size, count = 7, 10
    stream = np.concatenate([unlabeled_order(5, epoch, size, count) for epoch in range(7)])
    for row in range(0, len(stream), size):
        np.testing.assert_array_equal(np.sort(stream[row : row + size]), np.arange(size))
    np.testing.assert_array_equal(unlabeled_order(5, 3, size, count), stream[30:40])
    assert len({tuple(stream[row : row + size]) for row in range(0, 70, 7)}) > 5
    assert np.any(unlabeled_order(6, 3, size, count) != stream[30:40])
    small = unlabeled_order(5, 2, 100, 30)
    assert len(np.unique(small)) == 30
    assert np.any(unlabeled_order(5, 0, 100, 100) != epoch_order(5, 0, 100))


def trained(devices: int, *settings: str) -> tuple[list[float], Any]:
    """Losses and shares of six updates, of which two are of fewer pictures; the parameters then."""
    config = load_config(None, (*SETTINGS, "train.batch_size=10", *settings))
    mesh = make_mesh(DeviceConfig(count=devices))
    rng = np.random.default_rng(0)
    kinds = []
    for rows in (24, 37):
        images = coloured(rows, rng)
        kinds.append(
            Pictures(images, rng.integers(0, 3, rows).astype(np.int32), tuple(map(Path, map(str, range(rows)))))
        )
    make = partial(make_batches, mesh=mesh, parts=config.train.accumulate, by_device=takes_rows_by_device(config))
    own, more = map(make, kinds)
    state = on_every_device(made(*settings, scale=0.6), mesh)
    sums = on_every_device(zero_sums(updates=True, unlabeled=True), mesh)
    options = {"config": AugmentConfig(flip=True, crop=4), "seed": 3, "steps_per_epoch": 3, "threshold": 0.45}
    step, found = None, []
    for epoch in range(2):
        pairs = zip(
            own.batches(epoch_order(0, epoch, 24), 10), more.batches(unlabeled_order(0, epoch, 37, 48), 20), strict=True
        )
        for batch, unlabeled in pairs:
            arguments = (state, sums, {**batch, "unlabeled": unlabeled})
            step = step or compile_step(partial(add_augmented_update, **options), config, mesh, arguments)
            state, new_sums = step(*arguments)
            found += [float(means(new_sums)[name]) for name in ("loss", "pseudo_label_share")]
    return found, jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [(), ("train.parallel=pmap",), ("train.ema_decay=0.5", "model.dropout=0.5", "train.sam_radius=0.01")]
)
def test_eight_devices_train_on_them_as_one(settings: tuple[str, ...]) -> None:
    found, params = trained(8, *settings)
    expected, expected_params = trained(1, *settings)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert any(0 < share < 1 for share in expected[1::2])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), params, expected_params)


@pytest.mark.slow
def test_the_parts_of_a_batch_have_their_own_unlabelled_pictures() -> None:
    """As on several devices without a shared BatchNorm, so here without a comparison to the whole batch."""
    found, params = trained(2, "train.accumulate=2")
    expected, expected_params = trained(1, "train.accumulate=2")
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), params, expected_params)
