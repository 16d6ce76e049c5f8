"""`loss.class_weights = "balanced"`: counted from the training pictures, kept by the run as numbers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import Config, load_config
from jaxfood.data.labels import NO_LABEL
from jaxfood.data.records import PictureRecord
from jaxfood.data.splits import Splits, load_splits
from jaxfood.errors import UserError
from jaxfood.optim.losses import make_loss
from jaxfood.runs.directory import begin, is_run, write_config
from jaxfood.train import train_and_evaluate
from jaxfood.training.saved import begin_from

BALANCED = ["loss.class_weights=balanced", "data.image_size=32", "logging.progress=false", "device.count=1"]


@pytest.fixture
def uneven(food: Callable[..., Path]) -> Config:
    """Four, two and two pictures of three classes."""
    root = food(
        *(f"train/{name}.png" for name in ("0_a", "0_b", "0_c", "0_d", "1_a", "1_b", "3_a", "3_b")), "valid/0.png"
    )
    (root / "valid" / "0.png").rename(root / "valid" / "0_x.png")
    return load_config(None, [*BALANCED, f"data.root={root}"])


def splits_of(config: Config) -> Splits:
    return load_splits(config.data, config.model.num_classes, seed=0, progress=False)


def weights(config: Config) -> object:
    return config.loss.class_weights  # type: ignore[attr-defined]


def test_the_weights_are_counted_from_the_training_pictures(uneven: Config) -> None:
    """Class 2 has none, and K counts three classes."""
    assert weights(splits_of(uneven).completed(uneven)) == (8 / 12, 8 / 6, 0, 8 / 6)


def test_of_those_that_are_trained_on(uneven: Config) -> None:
    """Not of the validation pictures that are taken from them."""
    config = dataclasses.replace(uneven, data=dataclasses.replace(uneven.data, valid_fraction=0.25))
    splits = splits_of(config)
    counts = np.bincount(splits.train.labels, minlength=4)  # type: ignore[union-attr]
    assert counts.tolist() != [4, 2, 0, 2]
    found = weights(splits.completed(config))
    assert found == tuple(counts.sum() / (3 * count) if count else 0 for count in counts.tolist())


def test_other_weights_stay(uneven: Config) -> None:
    for text in ("1,2,3,4", ""):
        config = load_config(
            None, [f"loss.class_weights={text}", f"data.root={uneven.data.root}", "data.image_size=32"]
        )
        assert weights(splits_of(config).completed(config)) == weights(config)


def test_tfds_does_not_tell_how_many_there_are() -> None:
    records = (PictureRecord("train", "food11 train", NO_LABEL, "x"),)
    config = load_config(None, [*BALANCED, "data.source=tfds:food11"])
    splits = Splits(None, None, ("a", "b"), records)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"loss\.class_weights = balanced: tfds:food11 does not tell .* give a weight"):
        splits.completed(config)


def test_a_run_with_other_numbers_does_not_go_on_as_balanced(uneven: Config, tmp_path: Path) -> None:
    """Repeated on --resume it is compared as the numbers that it is; nothing is changed by the attempt."""
    run = tmp_path / "run"
    begin(run, ["0", "1", "2", "3"])
    other = dataclasses.replace(uneven.loss, class_weights=(1.0, 2.0, 3.0, 4.0))  # type: ignore[call-arg]
    write_config(run, dataclasses.replace(uneven, loss=other))
    before = (run / "config.toml").read_bytes()
    with pytest.raises(
        UserError, match=r"--resume cannot change loss\.class_weights \(\(1\.0, 2\.0, 3\.0, 4\.0\) -> \(0\.66"
    ):
        train_and_evaluate(uneven, run, resume=True)
    assert (run / "config.toml").read_bytes() == before


@pytest.mark.slow
def test_a_run_of_weights_from_elsewhere_waits_for_pictures(tmp_path: Path, narrow: None) -> None:
    """`convert from-torch` knows none; the loss is refused until a training has counted them."""
    from jaxfood.model.networks import init_variables

    config = load_config(None, [*BALANCED, "model.num_classes=3"])
    begin_from(tmp_path / "run", config, init_variables(config))
    assert is_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"before training pictures are counted, and this run has seen none: train it"):
        make_loss(config.loss, 3)(jnp.zeros((1, 3)), jnp.zeros(1, int))
