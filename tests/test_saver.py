"""`checkpoint.interval`: fewer saves, the same run."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxfood.config import Config
from jaxfood.errors import UserError
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import load_run
from jaxfood.runs.steps import steps_on_disk
from jaxfood.train import train_and_evaluate
from jaxfood.training.logbook import Logbook, read_metrics
from jaxfood.training.loop import Training

pytestmark = pytest.mark.usefixtures("narrow")

ACCURACIES = (0.25, 0.75, 0.5, 0.75, 0.25, 1.0, 0.5)  # of the epochs: the best is the second, then the sixth
STEPS_PER_EPOCH = 3


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Seven epochs with these accuracies, saved each third one and at the end."""

    def evaluate(self: Training) -> Any:
        return {"loss": 1.0, "accuracy": ACCURACIES[self.step // STEPS_PER_EPOCH - 1]}, None

    monkeypatch.setattr(Training, "_evaluate", evaluate)
    return with_settings(tiny_config, interval=3, epochs=7, patience=9)


def with_settings(config: Config, **values: Any) -> Config:
    """A copy with other settings of `checkpoint` and `train`."""
    own = {name: values.pop(name) for name in ("interval", "keep_best", "every") if name in values}
    checkpoint, train = dataclasses.replace(config.checkpoint, **own), dataclasses.replace(config.train, **values)
    return dataclasses.replace(config, checkpoint=checkpoint, train=train)


def epochs_on_disk(workdir: Path) -> list[int]:
    return [step // STEPS_PER_EPOCH for step in steps_on_disk(workdir / "checkpoints")]


def epochs_told(workdir: Path) -> list[int]:
    return [record["epoch"] for record in read_metrics(workdir / "metrics.jsonl")]


def assert_same_run(a: Path, b: Path) -> None:
    """The same checkpoints and the same metrics (but for time), to the last bit."""
    assert epochs_on_disk(a) == epochs_on_disk(b)
    for ours, theirs in zip(read_metrics(a / "metrics.jsonl"), read_metrics(b / "metrics.jsonl"), strict=True):
        for name in ours.keys() - {"seconds", "images_per_second"}:
            assert ours[name] == theirs[name], name
    for step in steps_on_disk(a / "checkpoints"):
        jax.tree.map(np.testing.assert_array_equal, load_run(a, step)[1], load_run(b, step)[1])


@pytest.mark.slow
def test_fewer_saves_leave_the_same_run_and_lines_wait_for_them(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    evaluate = Training._evaluate

    def look(self: Training) -> Any:
        self.checkpoints.wait()
        workdir = self.checkpoints.workdir
        seen[self.step // STEPS_PER_EPOCH] = (epochs_on_disk(workdir), epochs_told(workdir))
        return evaluate(self)

    train_and_evaluate(with_settings(config, interval=1), tmp_path / "each")
    monkeypatch.setattr(Training, "_evaluate", look)
    summary = train_and_evaluate(config, tmp_path / "third")
    assert (summary["best_epoch"], summary["best_accuracy"]) == (6, 1.0)
    # As the evaluation of each epoch begins: those before it.
    assert [seen[epoch] for epoch in (1, 2, 3)] == [([], [])] * 3
    assert [seen[epoch] for epoch in (4, 5, 6)] == [([2, 3], [1, 2, 3])] * 3
    assert seen[7] == ([6], [1, 2, 3, 4, 5, 6])
    assert epochs_on_disk(tmp_path / "third") == [6, 7]
    assert_same_run(tmp_path / "third", tmp_path / "each")


@pytest.mark.slow
def test_several_best_wait_too(config: Config, tmp_path: Path) -> None:
    config = with_settings(config, keep_best=3)
    for interval in (1, 3, 5, 9):
        train_and_evaluate(with_settings(config, interval=interval), tmp_path / str(interval))
        assert epochs_on_disk(tmp_path / str(interval)) == [2, 4, 6, 7]
        assert_same_run(tmp_path / str(interval), tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, 5])
def test_a_killed_run_goes_on_from_the_last_save(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    train_and_evaluate(config, tmp_path / "whole")
    workdir, evaluate = tmp_path / "killed", Training._evaluate

    def die(self: Training) -> Any:
        if self.step == epoch * STEPS_PER_EPOCH:
            raise Killed
        return evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_evaluate", die)
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert epochs_told(workdir) == ([1, 2, 3] if epoch == 5 else [])
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("dies_at", "last"), [(1, 2), (4, 6), (7, 7)])
def test_no_line_of_a_checkpoint_is_lost(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int, last: int
) -> None:
    """Killed as the first of several lines is to be written, after the best was saved and before the last is."""
    train_and_evaluate(config, tmp_path / "whole")
    workdir, write = tmp_path / "killed", Logbook.metrics

    def die(self: Logbook, record: dict[str, Any], *more: Any) -> None:
        if record["epoch"] == dies_at:
            raise Killed
        write(self, record, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "metrics", die)
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert epochs_on_disk(workdir)[-1] == last
    assert epochs_told(workdir) == list(range(1, dies_at))
    assert train_and_evaluate(config, workdir, resume=True)["epochs"] == 7
    assert_same_run(workdir, tmp_path / "whole")


@pytest.mark.slow
def test_an_interrupted_run_is_saved_and_a_save_inside_an_epoch_saves_the_best_too(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_settings(config, interval=9)
    train_and_evaluate(config, tmp_path / "whole")
    workdir, told = tmp_path / "run", Logbook.epoch

    def interrupted(self: Logbook, record: dict[str, Any], *more: Any, **options: Any) -> None:
        if record["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        told(self, record, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt, match="at step 9, saved"):
            train_and_evaluate(config, workdir)
    assert (epochs_on_disk(workdir), epochs_told(workdir)) == ([2, 3], [1, 2, 3])
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, tmp_path / "whole")

    inside = []
    begin = Checkpoints.save

    def noted(self: Checkpoints, step: int, *more: Any, **options: Any) -> None:
        inside.append(step)
        begin(self, step, *more, **options)

    monkeypatch.setattr(Checkpoints, "save", noted)
    train_and_evaluate(with_settings(config, every=7), tmp_path / "every")
    assert inside == [6, 7, 14, 18, 21]  # epoch 2, the best so far, before the first save inside an epoch
    assert_same_run(tmp_path / "every", tmp_path / "whole")


@pytest.mark.slow
def test_what_ends_a_run_early_saves_first(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = train_and_evaluate(with_settings(config, interval=9, patience=1), tmp_path / "stopped")
    assert (summary["epochs"], summary["stopped_early"]) == (4, True)
    assert (epochs_on_disk(tmp_path / "stopped"), epochs_told(tmp_path / "stopped")) == ([2, 4], [1, 2, 3, 4])

    evaluate = Training._evaluate

    def diverge(self: Training) -> Any:
        means, confusion = evaluate(self)
        return means | ({"loss": float("nan")} if self.step == 9 else {}), confusion

    monkeypatch.setattr(Training, "_evaluate", diverge)
    with pytest.raises(UserError, match=r"the validation loss is nan at step 9 .* checkpoint of step 6 stands"):
        train_and_evaluate(config, tmp_path / "nan")
    assert (epochs_on_disk(tmp_path / "nan"), epochs_told(tmp_path / "nan")) == ([2], [1, 2])


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "count"), [("jit", 8), ("pmap", 2)])
def test_the_interval_may_change_and_devices_hold_the_best(
    config: Config, tmp_path: Path, parallel: str, count: int
) -> None:
    several = with_settings(config, parallel=parallel)
    several = dataclasses.replace(several, device=dataclasses.replace(config.device, count=count))
    train_and_evaluate(several, tmp_path / "third")
    train_and_evaluate(with_settings(several, interval=1, epochs=5), tmp_path / "each")
    train_and_evaluate(with_settings(several, interval=2), tmp_path / "each", resume=True)
    assert_same_run(tmp_path / "third", tmp_path / "each")
