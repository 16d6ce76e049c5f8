"""Runs that are also trained on unlabelled pictures: which these are, what is said, resume, streaming, refusals."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import NUM_CLASSES, NUM_TEST, TRAIN_PER_CLASS, VALID_PER_CLASS

from jaxfood.config import Config
from jaxfood.config.sections import AugmentConfig, DataConfig
from jaxfood.data.splits import Splits, load_splits
from jaxfood.errors import UserError
from jaxfood.runs.directory import load_run
from jaxfood.runs.pictures import read_pictures
from jaxfood.train import train_and_evaluate
from jaxfood.training import loop

pytestmark = pytest.mark.usefixtures("narrow")

TRAIN, VALID = NUM_CLASSES * TRAIN_PER_CLASS, NUM_CLASSES * VALID_PER_CLASS


def load(root: Path, unlabeled: str, *, folds: int = 0, fold: int = 0, **settings: Any) -> Splits:
    data = DataConfig(root=str(root), image_size=32, unlabeled=unlabeled, **settings)
    return load_splits(data, NUM_CLASSES, seed=0, folds=folds, fold=fold, progress=False)


def names(splits: Splits) -> list[str]:
    return [record.name for record in splits.records if record.split == "unlabeled"]


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Batches of 8 labelled and 16 unlabelled pictures, answers taken early."""
    return dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, unlabeled="train"),
        augment=AugmentConfig(flip=True, crop=4),
        train=dataclasses.replace(tiny_config.train, unlabeled_threshold=0.34),
    )


# Which pictures.


def test_labels_are_not_read_and_doubles_of_validation_are_left_out(tiny_food: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    shutil.copytree(tiny_food / "valid", more / "9_no_class")
    shutil.copy(tiny_food / "test" / "0001.jpg", more / "cake.jpg")
    splits = load(tiny_food, f"train+{more}")
    assert splits.unlabeled is not None
    assert len(splits.unlabeled) == len(names(splits)) == TRAIN
    assert all(record.label == -1 for record in splits.records if record.split == "unlabeled")
    assert len(splits.train) == TRAIN
    assert splits.remarks[-4:] == (
        f"data.unlabeled = train+{more}: {TRAIN + VALID + 1} pictures; labels that their names may tell are not read",
        f"left out of the unlabelled pictures: {VALID} that by the same bytes are validation pictures",
        f"left out of the unlabelled pictures: 1 that by the same bytes stand in {tiny_food / 'test'} (name that "
        "folder to train on them)",
        f"of the unlabelled pictures {TRAIN} are training pictures too, and count as both",
    )


def test_test_pictures_are_trained_on_where_their_folder_is_named(tiny_food: Path) -> None:
    splits = load(tiny_food, "test")
    assert len(names(splits)) == NUM_TEST


def test_a_validation_share_is_not_trained_on(tiny_food: Path) -> None:
    splits = load(tiny_food, "train", valid_fraction=0.3)
    held_out = {record.digest for record in splits.records if record.split == "valid"}
    assert len(names(splits)) == TRAIN - len(held_out)
    assert held_out.isdisjoint(record.digest for record in splits.records if record.split == "unlabeled")


def test_folds_leave_out_what_they_are_evaluated_on_together(tiny_food: Path) -> None:
    splits = load(tiny_food, "train+valid", folds=3, fold=2)
    assert all(name.startswith("train/") for name in names(splits))
    assert len(names(splits)) == len(splits.train)


def test_streamed_pictures_are_the_same(tiny_food: Path) -> None:
    resident, streamed = (load(tiny_food, "valid+train", resident=resident) for resident in (True, False))
    assert resident.records == streamed.records
    assert resident.unlabeled is not None
    assert streamed.unlabeled is not None
    np.testing.assert_array_equal(streamed.unlabeled.subset(slice(None)).images, resident.unlabeled.images)


@pytest.mark.parametrize(
    ("unlabeled", "message"),
    [
        ("valid", "data.unlabeled = valid: none is left to train on (left out of the unlabelled pictures: 9 that by "),
        ("nothing", "nothing does not exist"),
        ("empty", "no pictures in "),
        ("train+", "has an empty name; write FOLDER or FOLDER+FOLDER"),
    ],
)
def test_what_holds_no_pictures_to_train_on_is_refused(
    unlabeled: str, message: str, tiny_food: Path, tmp_path: Path
) -> None:
    root = tmp_path / "food"
    shutil.copytree(tiny_food, root)
    (root / "empty").mkdir()
    with pytest.raises(UserError) as refusal:
        load(root, unlabeled)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tfds_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.unlabeled = train: not with tfds:food11, only with data\.source = fo"):
        load_splits(DataConfig(source="tfds:food11", unlabeled="train"), 3, seed=0)


# A run.


def test_without_augmentation_it_is_refused_before_a_picture_is_read(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, augment=AugmentConfig(), data=dataclasses.replace(config.data, root="/none"))
    with pytest.raises(UserError, match=r"^data\.unlabeled = train: .* no augment setting changes any: set some"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def stopping(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ends a training as Ctrl-C does, after so many steps."""
    monkeypatch.setattr(loop.StopRequest, "reached", lambda self, done: done == step, raising=True)


def records(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit_streamed_or_not(
    config: Config, tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_and_evaluate(config, tmp_path / "whole")
    said = capsys.readouterr().out
    assert f": {TRAIN} training, {TRAIN} unlabelled and {VALID} validation pictures of" in said
    shares = [record["pseudo_label_share"] for record in records(tmp_path / "whole")]
    assert f"pseudo-labels for {shares[0]:.1%} of the unlabelled, " in said
    assert 0 < max(shares) <= 1
    in_file = read_pictures(tmp_path / "whole") or ()
    assert [record.split for record in in_file].count("unlabeled") == TRAIN

    with monkeypatch.context() as patch:
        stopping(patch, 4)
        one_by_one = dataclasses.replace(config, train=dataclasses.replace(config.train, steps_per_call=1))
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(one_by_one, tmp_path / "halves")
    shutil.copytree(tmp_path / "halves", tmp_path / "streamed")
    train_and_evaluate(config, tmp_path / "halves", resume=True)
    streamed = dataclasses.replace(config, data=dataclasses.replace(config.data, resident=False))
    train_and_evaluate(streamed, tmp_path / "streamed", resume=True)
    assert records(tmp_path / "halves") == records(tmp_path / "whole")
    ours, theirs, others = (load_run(tmp_path / run, "last")[1] for run in ("halves", "whole", "streamed"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    jax.tree.map(np.testing.assert_array_equal, others, theirs)

    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))

    def refusal(unlabeled: str) -> str:
        other = dataclasses.replace(longer, data=dataclasses.replace(config.data, unlabeled=unlabeled))
        with pytest.raises(UserError) as raised:
            train_and_evaluate(other, tmp_path / "halves", resume=True)
        return str(raised.value)

    assert "unlabeled has lost 21 (0_0.jpg, " in refusal("test")
    assert refusal("").startswith("--resume cannot change data.unlabeled (train -> ); it takes")
    shutil.copytree(tiny_food / "train", tmp_path / "moved")
    elsewhere = dataclasses.replace(longer, data=dataclasses.replace(config.data, unlabeled=str(tmp_path / "moved")))
    assert train_and_evaluate(elsewhere, tmp_path / "halves", resume=True)["epochs"] == 3
