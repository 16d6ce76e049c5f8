"""The benchmarks of whole runs and of an epoch run, small, and measure what they say."""

import dataclasses
import sys

import epoch
import numpy as np
import pytest
import run
from PIL import Image

from jaxfood.data.cache import load_pictures
from jaxfood.data.index import index_pictures
from jaxfood.train import train_and_evaluate
from jaxfood.training import start
from jaxfood.training.logbook import Stopwatch
from jaxfood.training.loop import Training


@pytest.fixture
def notes_script():
    pytest.importorskip("torch", reason="compares with PyTorch")
    import notes_script

    return notes_script


@pytest.mark.torch
def test_the_notes_see_the_pictures_that_jaxfood_sees(tiny_food, tmp_path, notes_script):
    index = index_pictures(tiny_food / "train")
    dataset = notes_script.FoodDataset(
        index.paths, lambda picture: notes_script.resize_to_tensor(picture, 32), Stopwatch()
    )
    ours = load_pictures(index, 32, cache_dir=tmp_path, progress=False)
    for number in (0, len(index) - 1):
        image, label = dataset[number]
        np.testing.assert_array_equal(image.numpy(), ours.images[number].transpose(2, 0, 1).astype(np.float32) / 255)
        assert label == ours.labels[number]


@pytest.mark.torch
def test_the_notes_decode_every_picture_in_every_epoch_and_keep_the_best(
    tiny_food, tiny_config, tmp_path, monkeypatch, notes_script
):
    opened = []
    open_picture = Image.open

    def counted(path):
        opened.append(path)
        return open_picture(path)

    monkeypatch.setattr(notes_script.Image, "open", counted)
    train, valid = (index_pictures(tiny_food / split).paths for split in ("train", "valid"))
    outcome = notes_script.train(tiny_config, train, valid, tmp_path / "best.ckpt")
    assert sorted(opened) == sorted([*train, *valid] * 2)
    assert len(outcome["accuracies"]) == 2
    assert outcome["seconds"].keys() >= {"decode", "train", "validate"}
    assert (tmp_path / "best.ckpt").exists() == (max(outcome["accuracies"]) > 0)


def test_pick_takes_the_same_share_of_each_label(tiny_food):
    index = index_pictures(tiny_food / "train")
    picked = run.pick(tiny_food / "train", 0.5)
    assert set(picked) < set(index.paths)
    assert [sum(path.name.startswith(f"{label}_") for path in picked) for label in range(3)] == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.torch
def test_whole_runs(tiny_food, monkeypatch, capsys, notes_script):
    flags = ["--root", str(tiny_food), "--epochs", "1", "--fraction", "1", "--image_size", "32", "--batch_size", "8"]
    monkeypatch.setattr(sys, "argv", ["", *flags])
    run.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows[1:]] == list(run.RUNS)
    notes, first, second = ([float(cell) for cell in row[1:5]] for row in rows[1:])
    assert notes[2:] == [1, 1]
    for clock, core, ratio, _ in (first, second):
        assert ratio == pytest.approx(notes[0] / clock, rel=0.05, abs=0.05)
        assert core > 0


def test_missing_pictures_are_the_users_to_mend(tmp_path, monkeypatch, capsys, notes_script):
    monkeypatch.setattr(sys, "argv", ["", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        run.main()
    assert exit_.value.code == 2
    assert str(tmp_path / "train") in capsys.readouterr().err


@pytest.mark.slow
def test_bare_updates_are_those_of_the_epoch(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(epoch.Measured, "epochs", [], raising=False)
    monkeypatch.setattr(epoch.Measured, "updates", [], raising=False)
    calls = []
    compiled = Training.compile

    def counting(self) -> None:
        compiled(self)
        ((size, updates),) = self._updates_at.items()
        self._updates_at = {size: lambda *arguments: calls.append(arguments[-1]) or updates(*arguments)}

    monkeypatch.setattr(Training, "compile", counting)
    monkeypatch.setattr(start, "Training", epoch.Measured)
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, steps_per_call=2))
    assert train_and_evaluate(config, tmp_path / "run")["step"] == 6  # the bare updates are none of the run's
    assert len(calls) == 8  # two epochs of two calls, of two updates and of one, and again
    for ours, bare in zip(calls[:2] + calls[4:6], calls[2:4] + calls[6:], strict=True):
        np.testing.assert_array_equal(ours["position"], bare["position"])
    assert len(epoch.Measured.epochs) == len(epoch.Measured.updates) == 2
    assert all(seconds.clock > 0 for seconds in epoch.Measured.epochs + epoch.Measured.updates)
