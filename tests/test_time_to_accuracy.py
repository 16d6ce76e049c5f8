"""`scripts/benchmarks/time_to_accuracy.py`: what it counts, and a training from end to end."""

import math
from pathlib import Path

import pytest
import time_to_accuracy
from time_to_accuracy import Run

from jaxfood.config import Config
from jaxfood.errors import UserError

SECONDS = {"start": 2.0, "decode": 3.0, "initialise": 1.0, "compile": 4.0, "train": 50.0, "validate": 5.0, "save": 6.0}


def run(*accuracies: float, seed: int = 1) -> Run:
    """A run of epochs of 10, 20, ... seconds."""
    records = [
        {"epoch": epoch, "seconds": 10.0 * epoch, "valid_accuracy": accuracy}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    return Run(seed, "a machine", records, SECONDS)


def test_the_first_epoch_that_has_the_accuracy_counts() -> None:
    found = time_to_accuracy.reached(run(0.2, 0.5, 0.4), accuracy=0.5)
    assert found.epoch == 2
    assert found.training == 10 + 6 / 3 + 20  # the second epoch's saving comes after its validation
    assert found.setting_up == 2 + 3 + 1 + 4
    assert found.in_all == 42


def test_never() -> None:
    found = time_to_accuracy.reached(run(0.2, 0.4), accuracy=0.5)
    assert math.isinf(found.epoch)
    assert math.isinf(found.in_all)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_and_its_medians() -> None:
    runs = [run(0.6, 0.7, seed=6), run(0.1, 0.5, seed=7), run(0.1, 0.2, seed=8)]
    table = time_to_accuracy.report(runs, 0.5, Config())
    assert cells(table[-6])[:2] == ["seed", "epoch"]
    assert cells(table[-4]) == ["6", "1", "20.0", "10.0", "2.0", "3.0", "1.0", "4.0", "0.7000"]
    assert cells(table[-3])[:4] == ["7", "2", "43.0", "33.0"]
    assert cells(table[-2])[:4] == ["8", "never", "never", "never"]
    assert cells(table[-2])[-1] == "0.2000"
    assert cells(table[-1])[:4] == ["median", "2", "43.0", "33.0"]
    assert "never" in time_to_accuracy.report(runs[1:] * 2, 0.5, Config())[-1]
    assert "at most 8 epochs" in "\n".join(table)


def test_settings_and_seeds() -> None:
    arguments = ["--accuracy", "0.9", "--root", "/photographs", "--seeds", "3", "--train.seed", "5"]
    config, accuracy, seeds = time_to_accuracy.parse([*arguments, "--config", "demo", "--data.source", "folder"])
    assert (accuracy, seeds) == (0.9, 3)
    assert config.data.root == "/photographs"
    assert config.data.source == "folder"
    assert config.data.image_size == 64  # the recipe's
    changed = time_to_accuracy.with_seed(config, 6, Path("/tmp/x"))
    assert changed.train.seed == 6
    assert changed.data.cache_dir != time_to_accuracy.with_seed(config, 7, Path("/tmp/x")).data.cache_dir
    assert not changed.device.compilation_cache


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--accuracy", "45"], "--accuracy takes"),
        (["--accuracy", "0.5", "--seeds", "0"], "--seeds one of at least 1"),
        (["--accuracy", "0.5", "--train.sed", "1"], "did you mean train.seed"),
        (["--seeds", "2"], "required: --accuracy"),
    ],
)
def test_mistakes(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        time_to_accuracy.parse(arguments)


@pytest.mark.slow
def test_two_seeds_of_a_small_training(tiny_food: Path, capfd) -> None:
    settings = {"data.image_size": 32, "model.num_classes": 3, "train.batch_size": 8, "train.epochs": 1}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    time_to_accuracy.main(["--root", str(tiny_food), "--accuracy", "0.01", "--seeds", "2", *flags])
    out = capfd.readouterr().out
    rows = [cells(line) for line in out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["6666", "6667", "median"]
    for row in rows[2:]:
        in_all, training, *setting_up = map(float, row[2:8])
        assert row[1] == "1"
        assert in_all == pytest.approx(training + sum(setting_up), abs=0.4)
        assert min(training, *setting_up) >= 0  # a few small pictures are decoded in "0.0 s"


@pytest.mark.slow
def test_a_users_mistake_comes_back_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere") as error:
        time_to_accuracy.main(["--root", str(tmp_path / "nowhere"), "--accuracy", "0.5", "--seeds", "1"])
    assert "\n" not in str(error.value)
