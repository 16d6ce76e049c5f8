import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import NUM_CLASSES, TRAIN_PER_CLASS

from jaxfood.config import LOSSES, OPTIMIZERS, SCHEDULES, Config, load_config
from jaxfood.config.loss import Focal
from jaxfood.config.schedule import Plateau
from jaxfood.config.sections import DeviceConfig
from jaxfood.data.index import index_pictures
from jaxfood.errors import UserError
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import load_run
from jaxfood.runs.progress import Progress
from jaxfood.train import train_and_evaluate
from jaxfood.training.calls import Calls
from jaxfood.training.logbook import Logbook, read_metrics
from jaxfood.training.loop import Training
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")

STEPS_PER_EPOCH = 3  # 21 pictures in batches of 8


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    """A copy with other settings: `changed(config, train={"epochs": 3})`."""
    new = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(config, **new)


def steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def assert_same_run(a: Path, b: Path) -> None:
    """The same metrics (but for time) and the same last weights, to the last bit."""
    for ours, theirs in zip(read_metrics(a / "metrics.jsonl"), read_metrics(b / "metrics.jsonl"), strict=True):
        for name in ours.keys() - {"seconds", "images_per_second"}:
            assert ours[name] == theirs[name], name
    ours, theirs = load_run(a, "last")[1], load_run(b, "last")[1]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture(scope="module")
def finished(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """An undisturbed run of three epochs."""
    config = load_config(
        None,
        (
            f"data.root={tiny_food}",
            "data.image_size=32",
            "model.num_classes=3",
            "train.batch_size=8",
            "train.epochs=3",
            "device.count=1",
            "logging.progress=false",
            f"data.cache_dir={tmp_path_factory.mktemp('cache')}",
        ),
    )
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train_and_evaluate(config, workdir)
    return workdir, config


@pytest.mark.smoke
def test_a_run_holds_what_the_contract_names(finished: tuple[Path, Config]) -> None:
    workdir, config = finished
    records = read_metrics(workdir / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records] == [3, 6, 9]
    for record in records:
        assert record.keys() >= {"train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "learning_rate"}
        assert record["images_per_second"] > 0
        assert record["learning_rate"] == pytest.approx(3e-4)
    assert load_config(workdir / "config.toml") == config
    assert (workdir / "classes.txt").read_text() == "0\n1\n2\n"
    log = (workdir / "log.txt").read_text()
    assert "epoch 1/3" in log
    assert log.count("new best") >= 1
    best = max(records, key=lambda record: record["valid_accuracy"])
    assert set(steps(workdir)) == {best["step"], 9}


def test_metric_sums_count_every_picture_once(finished: tuple[Path, Config]) -> None:
    workdir, _ = finished
    for record in read_metrics(workdir / "metrics.jsonl"):
        right = record["train_accuracy"] * NUM_CLASSES * TRAIN_PER_CLASS
        assert right == pytest.approx(round(right), abs=1e-4)


@pytest.mark.slow
def test_interrupt_inside_an_epoch_and_resume_gives_the_same_run(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, config = finished
    of_epoch = Calls.of_epoch

    def interrupted(self: Calls, epoch: int, *more: Any) -> Any:
        for number, call in enumerate(of_epoch(self, epoch, *more)):
            if (epoch, number) == (1, 1):
                os.kill(os.getpid(), signal.SIGINT)
            yield call

    config = changed(config, train={"steps_per_call": 1})
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Calls, "of_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train_and_evaluate(config, workdir)
    assert steps(workdir)[-1] == STEPS_PER_EPOCH + 2
    assert len(read_metrics(workdir / "metrics.jsonl")) == 1
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, whole)


@pytest.mark.parametrize("every", [pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.smoke)])
def test_a_killed_run_resumes_to_the_same_run(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    whole, config = finished
    config = changed(config, checkpoint={"every": every})
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        # Dies in the second epoch's evaluation: the epoch's updates are done, nothing of its end is saved.
        evaluate = Training._evaluate
        patch.setattr(Training, "_evaluate", lambda self: die() if self.step == 6 else evaluate(self))
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert steps(workdir)[-1] == (4 if every else 3)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "step": 6, "train_loss": 0.0}\n{"epoch": 3, "st')
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_a_plateau_lowers_the_rate_and_a_run_killed_across_it_goes_on_the_same(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loss falls by the factor of 100 that counts here. Killed while it cools down."""
    plateau = Plateau(warmup_ratio=0.2, factor=0.5, patience=1, threshold=0.99, cooldown=1)
    config = changed(finished[1], train={"epochs": 7, "patience": 9})
    config = dataclasses.replace(config, schedule=plateau)
    whole, workdir = tmp_path / "whole", tmp_path / "killed"
    train_and_evaluate(config, whole)
    rates = [record["learning_rate"] / 3e-4 for record in read_metrics(whole / "metrics.jsonl")]
    # Step 2 of a warm-up of 4; the third and the sixth epoch are too many, the fourth is the cooldown.
    assert rates == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.5, 0.25])

    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        evaluate = Training._evaluate
        patch.setattr(Training, "_evaluate", lambda self: die() if self.step == 12 else evaluate(self))
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert steps(workdir)[-1] == 9
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        *(f"optimizer.name={name}" for name in OPTIMIZERS),
        *(f"schedule.name={name}" for name in SCHEDULES),
        *(f"loss.name={name}" for name in LOSSES),
        "loss.class_weights=1,0,5",
        "train.ema_decay=0.9",
        "train.sam_radius=0.1",
        "model.dropout=0.5",
    ],
)
def test_every_choice_trains_with_its_defaults_and_resumes(
    setting: str, finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(finished[0] / "config.toml", [setting, "train.epochs=2"])
    train_and_evaluate(config, tmp_path / "whole")
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        evaluate = Training._evaluate
        patch.setattr(Training, "_evaluate", lambda self: die() if self.step == 6 else evaluate(self))
        with pytest.raises(Killed):
            train_and_evaluate(config, tmp_path / "killed")
    summary = train_and_evaluate(config, tmp_path / "killed", resume=True)
    assert summary["epochs"] == 2
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    first, second = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert first["learning_rate"] > 0
    assert first["train_loss"] != second["train_loss"]


def test_class_weights_that_do_not_fit_are_refused_before_any_work(tiny_config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, loss=Focal(class_weights=(1.0, 2.0)))
    with pytest.raises(UserError, match=r"loss\.class_weights has 2 numbers and model\.num_classes = 3"):
        train_and_evaluate(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"loss\.class_weights has 2 numbers"):
        begin_from(tmp_path / "run", config, {})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_metrics_of_a_safe_checkpoint_are_not_lost(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, config = finished
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        patch.setattr(Logbook, "metrics", die)  # the checkpoint is whole, its line is not yet written
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert not read_metrics(workdir / "metrics.jsonl")
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_metrics_of_the_last_epoch_are_not_lost(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is finished by its checkpoint, and would not be looked at again."""
    whole, config = finished
    workdir = tmp_path / "run"
    write = Logbook.metrics

    def die_at_the_end(self: Any, record: dict[str, Any], *more: Any) -> None:
        if record["epoch"] == config.train.epochs:
            raise Killed
        write(self, record, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "metrics", die_at_the_end)
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir)
    assert len(read_metrics(workdir / "metrics.jsonl")) == config.train.epochs - 1
    for _ in range(2):
        assert train_and_evaluate(config, workdir, resume=True)["epochs"] == config.train.epochs
        assert_same_run(workdir, whole)


def test_metrics_are_written_only_when_their_checkpoint_is_whole(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = finished
    workdir = tmp_path / "run"
    write = Logbook.metrics

    def check(self: Any, record: dict[str, Any], *more: Any) -> None:
        with Checkpoints(workdir) as checkpoints:
            assert checkpoints.find(record["step"]) == record["step"]
        write(self, record, *more)

    monkeypatch.setattr(Logbook, "metrics", check)
    train_and_evaluate(changed(config, train={"epochs": 1}), workdir)
    assert len(read_metrics(workdir / "metrics.jsonl")) == 1


@pytest.mark.slow
def test_a_finished_run_says_so_and_more_epochs_go_on(
    finished: tuple[Path, Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, config = finished
    workdir = tmp_path / "run"
    train_and_evaluate(changed(config, train={"epochs": 1}), workdir)
    capsys.readouterr()
    summary = train_and_evaluate(changed(config, train={"epochs": 1}), workdir, resume=True)
    assert "finished after 1 of 1 epochs" in capsys.readouterr().out
    assert summary["step"] == STEPS_PER_EPOCH
    train_and_evaluate(config, workdir, resume=True)
    assert_same_run(workdir, whole)
    assert load_config(workdir / "config.toml").train.epochs == 3


def test_resume_refuses_other_settings_by_name(finished: tuple[Path, Config]) -> None:
    workdir, config = finished
    other = changed(config, train={"batch_size": 4, "epochs": 9}, optimizer={"learning_rate": 0.5})
    with pytest.raises(UserError) as error:
        train_and_evaluate(other, workdir, resume=True)
    assert "optimizer.learning_rate" in str(error.value)
    assert "train.batch_size" in str(error.value)
    assert "train.epochs (" not in str(error.value)


def test_resume_refuses_other_pictures(finished: tuple[Path, Config], tmp_path: Path, tiny_food: Path) -> None:
    import shutil

    _, config = finished
    root = tmp_path / "food"
    shutil.copytree(tiny_food, root)
    config = changed(config, data={"root": str(root), "cache_dir": str(tmp_path / "cache")})
    train_and_evaluate(changed(config, train={"epochs": 1}), tmp_path / "run")
    (root / "train" / "0_0.jpg").unlink()
    with pytest.raises(UserError, match=r"not those that .* train has lost 1 \(0_0\.jpg\): put them back"):
        train_and_evaluate(config, tmp_path / "run", resume=True)
    assert load_config(tmp_path / "run" / "config.toml").train.epochs == 1, "a refused resume changes nothing"


def test_a_used_directory_is_refused_and_overwrite_takes_only_a_run(
    finished: tuple[Path, Config], tmp_path: Path
) -> None:
    _, config = finished
    config = changed(config, train={"epochs": 1})
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir)
    (workdir / "mine.csv").write_text("keep me")
    with pytest.raises(UserError, match=r"--resume.*--overwrite"):
        train_and_evaluate(config, workdir)
    train_and_evaluate(changed(config, train={"seed": 1}), workdir, overwrite=True)
    assert (workdir / "mine.csv").read_text() == "keep me"
    assert load_config(workdir / "config.toml").train.seed == 1

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not empty and not a run"):
            train_and_evaluate(config, tmp_path / "home", overwrite=overwrite)
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_a_mistake_costs_nothing_of_an_earlier_run(finished: tuple[Path, Config]) -> None:
    workdir, config = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with pytest.raises(UserError, match="no such folder"):
        train_and_evaluate(changed(config, data={"root": "/nowhere"}), workdir, overwrite=True)
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


@pytest.mark.slow
def test_early_stopping_and_the_first_of_equal_bests(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = finished
    accuracies = iter([0.25, 0.5, 0.5, 0.25, 0.5, 0.75])
    monkeypatch.setattr(Training, "_evaluate", lambda self: ({"loss": 1.0, "accuracy": next(accuracies)}, None))
    workdir = tmp_path / "run"
    summary = train_and_evaluate(changed(config, train={"epochs": 9, "patience": 2}), workdir)
    assert (summary["best_epoch"], summary["best_accuracy"], summary["epochs"]) == (2, 0.5, 5)
    assert summary["stopped_early"]
    assert "3 epochs in a row brought no new best (patience 2)" in (workdir / "log.txt").read_text()
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.find("best") == 2 * STEPS_PER_EPOCH
        assert checkpoints.find("last") == 5 * STEPS_PER_EPOCH
    # More patience lets it go on, with what it remembered.
    summary = train_and_evaluate(changed(config, train={"epochs": 6, "patience": 3}), workdir, resume=True)
    assert (summary["best_epoch"], summary["best_accuracy"], summary["epochs"]) == (6, 0.75, 6)


def test_the_first_epoch_is_a_best_even_with_nothing_right() -> None:
    for monitor in ("valid_accuracy", "valid_loss"):
        progress = Progress(num_train=1, steps_per_epoch=1).after_epoch(1, 0.0, 7.0, monitor)
        assert (progress.best_epoch, progress.best_accuracy, progress.stale) == (1, 0.0, 0)


@pytest.mark.slow
def test_the_lowest_loss_may_tell_the_best(
    finished: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = finished
    pairs = [(3.0, 0.25), (1.5, 0.5), (1.5, 1.0), (2.0, 1.0)]
    evaluations = iter([{"loss": loss, "accuracy": accuracy} for loss, accuracy in pairs])
    monkeypatch.setattr(Training, "_evaluate", lambda self: (next(evaluations), None))
    settings = {"epochs": 9, "patience": 1, "monitor": "valid_loss"}
    summary = train_and_evaluate(changed(config, train=settings, checkpoint={"every": 1}), tmp_path / "run")
    assert (summary["best_epoch"], summary["best_accuracy"], summary["epochs"]) == (2, 0.5, 4)
    assert (
        "best: accuracy 0.5000, by the lowest validation loss, 1.5000, in epoch 2"
        in (tmp_path / "run" / "log.txt").read_text()
    )
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.find("best") == 2 * STEPS_PER_EPOCH


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_the_mend(tiny_config: Config, tmp_path: Path) -> None:
    config = changed(tiny_config, optimizer={"learning_rate": 1e30, "clip_norm": float("inf")})
    with pytest.raises(UserError, match=r"training loss is (nan|inf).*learning_rate"):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.slow
def test_eight_devices_train_as_one(finished: tuple[Path, Config], tmp_path: Path) -> None:
    whole, config = finished
    train_and_evaluate(changed(config, train={"epochs": 1}, device={"count": 8}), tmp_path / "run")
    ours, theirs = (read_metrics(run / "metrics.jsonl")[0] for run in (tmp_path / "run", whole))
    for name in ("train_loss", "valid_loss", "grad_norm"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    for leaf in jax.tree.leaves(load_run(tmp_path / "run")[1]):
        assert leaf.devices() == {jax.devices()[0]}


@pytest.mark.slow
def test_a_run_crosses_from_eight_devices_to_one_to_four(finished: tuple[Path, Config], tmp_path: Path) -> None:
    whole, config = finished
    for epoch, count in enumerate((8, 1, 4), start=1):
        there = changed(config, train={"epochs": epoch}, device={"count": count})
        train_and_evaluate(there, tmp_path / "run", resume=epoch > 1)
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (tmp_path / "run", whole))
    for found, expected in zip(ours, theirs, strict=True):
        for name in ("train_loss", "valid_loss", "grad_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-2), name
    index = index_pictures(Path(config.data.root) / "test", labelled=False)
    answers = [
        predict_probabilities([tmp_path / "run"], index, progress=False, device=DeviceConfig(count=count))
        for count in (1, 4, 8)
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


@pytest.mark.slow
def test_pmap_and_parts_through_the_whole_loop(finished: tuple[Path, Config], tmp_path: Path) -> None:
    whole, config = finished
    base = changed(config, train={"epochs": 1, "parallel": "pmap"}, device={"count": 4})
    train_and_evaluate(base, tmp_path / "pmap")
    train_and_evaluate(changed(base, train={"accumulate": 2}), tmp_path / "parts")
    pmapped, parts, theirs = (
        read_metrics(run / "metrics.jsonl")[0] for run in (tmp_path / "pmap", tmp_path / "parts", whole)
    )
    for name in ("train_loss", "valid_loss", "grad_norm"):
        assert pmapped[name] == pytest.approx(theirs[name], rel=1e-3), name
    # BatchNorm sees half of each batch: near, and not equal.
    assert parts["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.2)
    assert parts["train_loss"] != pytest.approx(theirs["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_tensorboard_gets_the_scalars(finished: tuple[Path, Config], tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    _, config = finished
    train_and_evaluate(changed(config, train={"epochs": 1}, logging={"tensorboard": True}), tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"valid_accuracy" in events.read_bytes()


def test_the_library_door_and_json(finished: tuple[Path, Config]) -> None:
    import jaxfood

    workdir, config = finished
    summary = jaxfood.train_and_evaluate(config, workdir, resume=True)
    assert json.loads(json.dumps(summary))["best_epoch"] == summary["best_epoch"]


@pytest.mark.slow
def test_augmentation_changes_the_training_alone_and_no_number_of_devices_changes_it(
    finished: tuple[Path, Config], tmp_path: Path
) -> None:
    whole, config = finished
    augmented = changed(config, augment={"flip": True, "crop": 4, "cutmix": 1.0}, train={"epochs": 2})
    for count in (1, 8):
        train_and_evaluate(changed(augmented, device={"count": count}), tmp_path / f"on{count}")
    plain, on_one, on_eight = (
        read_metrics(run / "metrics.jsonl")[:2] for run in (whole, tmp_path / "on1", tmp_path / "on8")
    )
    assert on_one[0]["train_loss"] != pytest.approx(plain[0]["train_loss"], rel=1e-4)
    for one, eight in zip(on_one, on_eight, strict=True):
        assert eight["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
