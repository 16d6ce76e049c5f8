"""`train.steps_per_call`: several updates in one program are the same updates, to the last bit."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import Config, load_config
from jaxfood.config.loading import all_settings
from jaxfood.data.batches import ResidentBatches, batch_of, epoch_order, make_batches
from jaxfood.data.pictures import Pictures
from jaxfood.data.splits import load_splits
from jaxfood.devices import make_mesh
from jaxfood.runs.directory import load_run
from jaxfood.train import train_and_evaluate
from jaxfood.training import calls
from jaxfood.training.calls import Calls
from jaxfood.training.logbook import read_metrics

pytestmark = pytest.mark.usefixtures("narrow")

STEPS_PER_EPOCH = 6  # 21 pictures in batches of 4, the last one of 1


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, "train.batch_size=4")


def changed(config: Config, *settings: str) -> Config:
    """A copy with other settings, SECTION.FIELD=VALUE."""
    defaults, own = dict(all_settings(Config())), []
    for name, value in all_settings(config):
        if value != defaults.get(name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            own.append(f"{name}={text.lower() if isinstance(value, bool) else text}")
    return load_config(None, [*own, *settings])


def assert_same_run(a: Path, b: Path) -> None:
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (a, b))
    for one, other in zip(ours, theirs, strict=True):
        assert {name: value for name, value in one.items() if one[name] != other[name]}.keys() <= {
            "seconds",
            "images_per_second",
        }
    jax.tree.map(np.testing.assert_array_equal, load_run(a, "last")[1], load_run(b, "last")[1])


def counts_of(config: Config, *, epoch: int = 0, start: int = 0, most: int | None = None) -> list[int]:
    """The updates of each call of an epoch."""
    mesh = make_mesh(config.device)
    train = make_batches(load_splits(config.data, 3, seed=0, progress=False).train, mesh)
    return [count for count, _ in Calls(config, mesh, train).of_epoch(epoch, start, most)]


def test_a_call_ends_with_the_epoch_and_where_a_checkpoint_is_due(config: Config) -> None:
    assert counts_of(changed(config, "train.steps_per_call=4")) == [4, 2]
    assert counts_of(changed(config, "train.steps_per_call=4"), start=1) == [4, 1]
    assert counts_of(changed(config, "train.steps_per_call=4"), most=1) == [1] * 6
    assert counts_of(changed(config, "train.steps_per_call=100")) == [6]
    assert counts_of(config) == [1] * 6, "before it is chosen"
    every = changed(config, "train.steps_per_call=4", "checkpoint.every=5")
    assert counts_of(every) == [4, 1, 1]
    assert counts_of(every, epoch=1) == [4, 2], "it is due after steps 10 and 15"
    assert counts_of(changed(config, "train.steps_per_call=4", "data.resident=false")) == [1] * 6


@pytest.mark.parametrize("by_device", [False, True])
def test_a_stack_holds_the_batches_that_are_gathered_one_by_one(by_device: bool) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (21, 32, 32, 3), np.uint8), rng.integers(0, 3, 21, np.int32)
    mesh = make_mesh(load_config(None, ["device.count=2"]).device)
    resident = ResidentBatches(Pictures(images, labels, (Path(),) * 21), mesh, by_device=by_device)
    order = epoch_order(0, 0, 21)
    stack = resident.stack(list(resident.chosen(order, 8)), 5)
    for number, batch in enumerate(resident.batches(order, 8)):
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, 5), stack) if by_device else stack
        gathered = batch_of(resident.pictures, rows, jnp.int32(number))
        for name, theirs in batch.items():
            assert gathered[name].dtype == theirs.dtype
            np.testing.assert_array_equal(gathered[name], theirs.reshape(gathered[name].shape))


def test_the_number_is_chosen_by_the_time_of_an_update(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh(config.device)
    own = Calls(config, mesh, make_batches(load_splits(config.data, 3, seed=0, progress=False).train, mesh))
    times = iter([0.0, 0.3, 0.6, 10.0, 10.6, 11.2])
    monkeypatch.setattr(calls.time, "perf_counter", lambda: next(times))
    own.begin_epoch(32)
    assert [own.observe(jnp.zeros(3)) for _ in range(4)] == [
        "",
        "",
        "train.steps_per_call: 4, as an update takes 300 ms",
        "",
    ]
    assert [count for count, _ in own.of_epoch(0)] == [4, 2]
    own.begin_epoch(32)
    assert not own.observe(jnp.zeros(3)), "it stays chosen"
    own.begin_epoch(64)
    assert [own.observe(jnp.zeros(3)) for _ in range(3)][-1] == "train.steps_per_call: 2, as an update takes 600 ms"


@pytest.mark.slow
def test_every_number_of_updates_gives_the_same_run(config: Config, tmp_path: Path) -> None:
    """With what draws at random, and the automatic number, which changes inside the first epoch."""
    config = changed(config, "augment.flip=true", "augment.mixup=0.5", "model.dropout=0.5")
    for number in (0, 1, 4):
        train_and_evaluate(changed(config, f"train.steps_per_call={number}"), tmp_path / str(number))
        assert_same_run(tmp_path / str(number), tmp_path / "0")
    assert "train.steps_per_call: 6, as an update takes" in (tmp_path / "0" / "log.txt").read_text()
    assert "train.steps_per_call" not in (tmp_path / "4" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("model.name=resnet", "train.batch_size=5"),
        ("train.accumulate=2", "train.ema_decay=0.9", "optimizer.name=adamw"),
        ("train.sam_radius=0.1", "train.sam_every=2", "schedule.name=one_cycle"),
        ("train.parallel=pmap", "device.count=4"),
        ("device.count=8", "augment.cutmix=1"),
        ("model.dtype=bfloat16", "augment.trivial=true", "augment.resized_crop=0.5"),
        ("data.resident=false", "augment.flip=true"),
        ("train.image_sizes=32,64", "data.image_size=64", "model.name=resnet"),
    ],
    ids=lambda settings: settings[0],
)
def test_it_composes(config: Config, tmp_path: Path, settings: tuple[str, ...]) -> None:
    config = changed(config, *settings)
    for number in (1, 2, 5):
        train_and_evaluate(changed(config, f"train.steps_per_call={number}"), tmp_path / str(number))
        assert_same_run(tmp_path / str(number), tmp_path / "1")
    said = "pictures that are read from disk are trained on one update in a call"
    assert (said in (tmp_path / "5" / "log.txt").read_text()) == ("data.resident=false" in settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("train.parallel=pmap", "device.count=2")], ids=["one", "pmap"])
def test_teachers_and_unlabelled_pictures(
    config: Config, tmp_path: Path, tiny_food: Path, settings: tuple[str, ...]
) -> None:
    config = changed(config, *settings)
    train_and_evaluate(changed(config, "train.epochs=1"), tmp_path / "teacher")
    more = (f"train.teachers={tmp_path}/teacher", f"data.unlabeled={tiny_food}/test", "augment.crop=2")
    for number in (1, 4):
        own = changed(config, *more, "train.unlabeled_threshold=0.1", f"train.steps_per_call={number}")
        train_and_evaluate(own, tmp_path / str(number))
    assert_same_run(tmp_path / "4", tmp_path / "1")
    assert read_metrics(tmp_path / "4" / "metrics.jsonl")[-1]["pseudo_label_share"] > 0


@pytest.mark.slow
def test_an_interrupt_is_heard_between_calls_and_the_number_may_change(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_and_evaluate(config, tmp_path / "whole")
    of_epoch = Calls.of_epoch

    def interrupted(self: Calls, epoch: int, *more: Any, **options: Any) -> Any:
        for number, call in enumerate(of_epoch(self, epoch, *more, **options)):
            if (epoch, number) == (1, 0):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            yield call

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "of_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt, match="at step 10, saved"):
            train_and_evaluate(changed(config, "train.steps_per_call=4"), tmp_path / "run")
    train_and_evaluate(changed(config, "train.steps_per_call=3"), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
