"""Mixup and CutMix: which pictures are mixed, by how much, and what the loss makes of their labels."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxfood.config import load_config
from jaxfood.config.augment import AugmentConfig
from jaxfood.config.loss import CrossEntropy
from jaxfood.config.sections import DeviceConfig
from jaxfood.data.augment import check_mixing, mix, mixes, vary
from jaxfood.devices import AXIS, make_mesh
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.optim.losses import make_loss
from jaxfood.training.metrics import batch_sums, means, zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_augmented_update

ROWS = 8
BATCH = {
    "image": np.broadcast_to(np.arange(ROWS, dtype=np.float32)[:, None, None, None] / 10, (ROWS, 20, 20, 3)),
    "label": np.arange(ROWS, dtype=np.int32),
    "mask": np.array([1] * 6 + [0, 0], np.float32),
}


@functools.cache
def compiled(config: AugmentConfig) -> Callable[..., dict[str, jax.Array]]:
    return jax.jit(partial(mix, config, axis_name=None))


def mixed(key: int, batch: dict[str, Any] = BATCH, **settings: float) -> dict[str, np.ndarray]:
    found = compiled(AugmentConfig(**settings))(batch, key=jax.random.key(key))
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_each_picture_is_mixed_with_the_one_before_and_the_first_with_the_last_that_is_no_padding(
    settings: dict[str, float],
) -> None:
    shares = []
    for key in range(20):
        found = mixed(key, **settings)
        assert found["other_label"].tolist() == [5, 0, 1, 2, 3, 4, 6, 7]
        share = found["share"][0]
        assert (found["share"] == share).all()
        expected = share * np.arange(6) + (1 - share) * np.array([5, 0, 1, 2, 3, 4])
        np.testing.assert_allclose(found["image"][:6].mean((1, 2, 3)) * 10, expected, atol=1e-5)
        own_or_other = np.isclose(found["image"], BATCH["image"]) | np.isclose(found["image"][..., :1], 0.5)
        assert own_or_other[0].all() == ("cutmix" in settings or min(share, 1 - share) < 1e-4)
        shares.append(share)
    assert 0.2 < np.mean(shares) < 0.8
    assert np.std(shares) > 0.1


@pytest.mark.slow
def test_a_share_of_the_batches_is_mixed_and_of_these_half_by_each() -> None:
    batch = {**BATCH, "image": np.random.default_rng(0).uniform(size=(ROWS, 20, 20, 3)).astype(np.float32)}
    same = cut = blended = 0
    for key in range(60):
        found = mixed(key, batch, mixup=1.0, cutmix=1.0, mix_share=0.5)["image"]
        kept = np.isclose(found, batch["image"]).all(-1)
        same, cut, blended = (
            same + kept.all(),
            cut + (not kept.all() and kept[0].any()),
            blended + (not kept[0].any()),
        )
    assert same + cut + blended == 60
    assert 15 <= same <= 45
    assert cut > 4
    assert blended > 4
    assert not mixes(AugmentConfig(flip=True))
    assert mixes(AugmentConfig(mixup=0.1))


def test_a_picture_that_is_alone_stays_as_it_is() -> None:
    alone = {"image": BATCH["image"][3:4], "label": BATCH["label"][3:4]}
    found = mixed(0, alone, mixup=1.0)
    np.testing.assert_allclose(found["image"], alone["image"])
    assert found["other_label"] == found["label"] == 3


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_batches_of_one_picture_cannot_be_mixed(name: str) -> None:
    config = AugmentConfig(**{name: 0.5})
    check_mixing(config, 2)
    check_mixing(AugmentConfig(flip=True), 1)
    with pytest.raises(UserError, match=f"augment.{name} = 0.5 mixes the pictures of a batch, and here a batch is one"):
        check_mixing(config, 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 6, 8])
def test_eight_devices_mix_as_one(count: int) -> None:
    batch = {**BATCH, "mask": (np.arange(ROWS) < count).astype(np.float32)}
    mesh = make_mesh(DeviceConfig(count=8))
    config = AugmentConfig(mixup=1.0, cutmix=1.0)
    rows, whole = PartitionSpec(AXIS), PartitionSpec()
    step = partial(mix, config, axis_name=AXIS)
    on_eight = jax.shard_map(
        lambda batch, key: step(batch, key), mesh=mesh, in_specs=(rows, whole), out_specs=rows, check_vma=False
    )
    for key in range(3):
        found = jax.jit(on_eight)(batch, jax.random.key(key))
        for name, expected in mixed(key, batch, mixup=1.0, cutmix=1.0).items():
            np.testing.assert_allclose(np.asarray(found[name]), expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}])
def test_the_loss_is_that_of_soft_targets_and_right_is_the_larger_share(settings: dict[str, float]) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3))
    batch = {"label": np.array([0, 1, 2, 0]), "other_label": np.array([2, 0, 0, 0])}
    shares = np.array([0.3, 0.5, 1.0, 0.7])
    targets = shares[:, None] * np.eye(3)[batch["label"]] + (1 - shares)[:, None] * np.eye(3)[batch["other_label"]]
    smoothing = settings.get("label_smoothing", 0.0)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -((1 - smoothing) * targets + smoothing / 3) * log_p
    sums = batch_sums(make_loss(CrossEntropy(**settings), 3), jnp.asarray(logits), {**batch, "share": shares})
    np.testing.assert_allclose(means(sums)["loss"], expected.sum(1).mean(), rtol=1e-5)
    larger = np.where(shares >= 0.5, batch["label"], batch["other_label"])
    np.testing.assert_allclose(means(sums)["accuracy"], (logits.argmax(1) == larger).mean())


@pytest.mark.torch
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"class_weights": (1.0, 2.0, 0.5)}])
def test_losses_of_pictures_are_pytorchs_of_soft_targets(settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    logits = np.random.default_rng(0).normal(size=(4, 3))
    batch = {"label": np.array([0, 1, 2, 0]), "other_label": np.array([2, 0, 0, 0])}
    shares = np.array([0.3, 0.5, 1.0, 0.7])
    targets = shares[:, None] * np.eye(3)[batch["label"]] + (1 - shares)[:, None] * np.eye(3)[batch["other_label"]]
    weights = torch.tensor(settings["class_weights"], dtype=torch.float64) if "class_weights" in settings else None
    reference = torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=settings.get("label_smoothing", 0.0))
    with jax.enable_x64(True):
        sums = batch_sums(make_loss(CrossEntropy(**settings), 3), jnp.asarray(logits), {**batch, "share": shares})
        expected = reference(torch.tensor(logits), torch.tensor(targets))
        np.testing.assert_allclose(float(means(sums)["loss"]), float(expected), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("setting", ["model.dtype=bfloat16", "train.accumulate=2"])
def test_mixed_batches_are_trained_on_in_bfloat16_and_in_parts(setting: str) -> None:
    """To a loss like that in float32 and in one part, of which BatchNorm's batch and rounding are the difference."""
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "label": np.arange(8) % 3,
        "position": np.arange(8),
    }
    losses, shares = [], []
    for settings in ((), (setting,)):
        config = load_config(None, ("model.num_classes=3", "data.image_size=32", "augment.cutmix=1.0", *settings))
        options = {"config": config.augment, "seed": 0, "steps_per_epoch": 1}
        state = TrainState.create(config, init_variables(config), total_steps=1)
        _, sums = jax.jit(partial(add_augmented_update, **options))(state, zero_sums(updates=True), batch)
        losses.append(float(means(sums)["loss"]))
        shares.append(vary(config.augment, batch, seed=0, epoch=0, step=0)["share"])
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1] != losses[0]
    np.testing.assert_array_equal(*shares)
    assert 0 < shares[0][0] < 1


def test_each_update_draws_anew_and_a_repeated_one_the_same() -> None:
    batch = {**BATCH, "position": np.arange(ROWS)}
    config = AugmentConfig(mixup=1.0)
    shares = [float(vary(config, batch, seed=3, epoch=0, step=step)["share"][0]) for step in (0, 1, 2, 0)]
    assert len(set(shares)) == 3
    assert shares[3] == shares[0]
    assert float(vary(config, batch, seed=4, epoch=0, step=0)["share"][0]) != shares[0]
