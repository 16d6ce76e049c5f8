"""Folds: a run for each in one directory, resumed between and inside them, told from a run, and answering together."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxfood import predict
from jaxfood.config import Config, load_config
from jaxfood.data.index import index_pictures
from jaxfood.errors import UserError
from jaxfood.files import write_whole
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.runs import directory, folds
from jaxfood.runs.directory import check_free, is_folds, is_run, load_run, read_config
from jaxfood.runs.lock import hold
from jaxfood.runs.pictures import read_pictures
from jaxfood.train import main, train_and_evaluate
from jaxfood.training import folds as training_folds
from jaxfood.training import loop
from jaxfood.training.failures import not_finite
from jaxfood.training.logbook import Logbook, read_metrics

pytestmark = pytest.mark.usefixtures("narrow")

Trained = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def config(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two folds of 21 pictures, an epoch of two steps each."""
    return load_config(
        None,
        (
            f"data.root={tiny_food}",
            "data.image_size=32",
            "train.batch_size=8",
            "train.epochs=1",
            "train.folds=2",
            "device.count=1",
            "logging.progress=false",
            f"data.cache_dir={tmp_path_factory.mktemp('cache')}",
        ),
    )


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, train_and_evaluate(config, workdir)


def with_(config: Config, **sections: dict[str, Any]) -> Config:
    new = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(config, **new)


def told(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "folds.json").read_text(), parse_constant=pytest.fail)


def assert_same_folds(ours: Path, theirs: Path, count: int = 2) -> None:
    """The same folds.json, metrics (but for time) and last weights of each fold, to the last bit."""
    assert told(ours) == told(theirs)
    for fold in range(1, count + 1):
        a, b = ours / f"fold{fold}", theirs / f"fold{fold}"
        for one, other in zip(read_metrics(a / "metrics.jsonl"), read_metrics(b / "metrics.jsonl"), strict=True):
            for name in one.keys() - {"seconds", "images_per_second"}:
                assert one[name] == other[name], name
        jax.tree.map(np.testing.assert_array_equal, load_run(a, "last")[1], load_run(b, "last")[1])


@pytest.mark.slow
def test_each_fold_is_a_run_and_their_directory_is_not(trained: Trained, tiny_food: Path) -> None:
    workdir, summary = trained
    assert sorted(path.name for path in workdir.iterdir()) == [
        ".lock",
        "config.toml",
        "fold1",
        "fold2",
        "folds.json",
        "run.json",
    ]
    assert is_folds(workdir)
    assert not is_run(workdir)
    validated = []
    for fold in (1, 2):
        own = workdir / f"fold{fold}"
        assert is_run(own)
        assert not is_folds(own)
        assert (read_config(own).train.folds, read_config(own).train.fold) == (2, fold)
        records = read_pictures(own)
        assert records is not None
        validated += [record.name for record in records if record.split == "valid"]
        assert len(records) == 21
    assert sorted(validated) == sorted(path.name for path in (tiny_food / "train").iterdir())
    with pytest.raises(
        UserError, match=r"whole is not a run but holds 2, its folds: name one of them, .*fold1 to fold2$"
    ):
        read_config(workdir)
    assert summary["accuracies"] == [one["best_accuracy"] for one in summary["runs"]]


@pytest.mark.slow
def test_what_the_folds_are_worth_is_told(trained: Trained, tiny_food: Path) -> None:
    workdir, summary = trained
    known = told(workdir)
    a, b = known["accuracies"]
    for fold, accuracy in ((1, a), (2, b)):
        metrics = read_metrics(workdir / f"fold{fold}" / "metrics.jsonl")
        assert accuracy == max(line["valid_accuracy"] for line in metrics)
    assert known["mean"] == pytest.approx((a + b) / 2)
    assert known["standard_deviation"] == pytest.approx(abs(a - b) / 2**0.5)
    index = index_pictures(tiny_food / "valid")
    answers = predict_probabilities([workdir], index, progress=False, device=read_config(workdir / "fold1").device)
    right = float(np.mean(answers.argmax(axis=1) == index.labels))
    assert known["ensemble"] == {"folds": 2, "pictures": 9, "accuracy": right}
    assert summary["ensemble"] == known["ensemble"]


def test_the_folds_answer_together_by_the_mean_of_their_probabilities(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the validation folder's labels 0 0 0 1 1 1 2 2 2: the second fold alone has six right, both together nine."""
    eye = np.eye(3, dtype=np.float32)
    first = 0.8 * eye[[0, 0, 0, 0, 0, 0, 2, 2, 2]] + 0.1
    second = 0.6 * eye[[1, 1, 1, 1, 1, 1, 2, 2, 2]] + 0.1
    first[3:6] = (0.4, 0.35, 0.25)
    answers = iter((first, second))
    monkeypatch.setattr(training_folds, "answer_of_run", lambda *arguments, **named: next(answers))
    ensemble = training_folds._Ensemble(config)
    assert ensemble.add(Path("fold1")) == {"folds": 1, "pictures": 9, "accuracy": 6 / 9}
    assert ensemble.add(Path("fold2")) == {"folds": 2, "pictures": 9, "accuracy": 1.0}


@pytest.mark.slow
def test_a_fold_that_is_not_finite_names_the_settings_of_all(trained: Trained, config: Config, tmp_path: Path) -> None:
    """A new attempt with the fold's own would train that fold alone."""
    told_of = [
        str(not_finite("the loss is nan", workdir, config, step=1, rate=1, grad_norm=1, last=None))
        for workdir in (trained[0] / "fold2", tmp_path / "fold2")
    ]
    assert f"--config {trained[0] / 'config.toml'} --workdir NEW" in told_of[0]
    assert f"--config {tmp_path / 'fold2' / 'config.toml'} --workdir NEW" in told_of[1]


@pytest.mark.slow
def test_a_finished_directory_says_so_and_stays(
    trained: Trained, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, summary = trained
    before = told(workdir)
    again = train_and_evaluate(config, workdir, resume=True)
    assert {name: again[name] for name in before if name != "format"} == {
        name: summary[name] for name in before if name != "format"
    }
    assert told(workdir) == before
    out = capsys.readouterr().out
    assert "fold2 is finished after 1 of 1 epochs" in out
    assert "2 of 2 folds: accuracy " in out
    assert "together" in out


Arm = Callable[[Any, str, int], None]


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Arm:
    """Makes the n-th call of a function the process's last."""

    def arm(module: Any, name: str, call: int) -> None:
        real, calls = getattr(module, name), []

        def dying(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) == call:
                raise Killed
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, dying)

    return arm


@pytest.mark.slow
def test_killed_between_folds_and_inside_one(
    trained: Trained,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: Any,
) -> None:
    """After the first fold, before the second has begun; then at the second one's second step, after a checkpoint."""
    workdir = tmp_path / "run"
    saving = with_(config, checkpoint={"every": 1})
    whole = tmp_path / "whole"
    train_and_evaluate(saving, whole)
    with monkeypatch.context():
        killed_at(directory, "begin", 2)
        with pytest.raises(Killed):
            train_and_evaluate(saving, workdir)
    assert told(workdir)["accuracies"] == told(whole)["accuracies"][:1]
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"run: 1 of its 2 folds are finished: go on with .*--workdir .*run --resume"):
        predict_probabilities([workdir], config.data.root + "/test", progress=False)
    killed_at(Logbook, "epoch", 1)
    with pytest.raises(Killed):
        train_and_evaluate(saving, workdir, resume=True)
    monkeypatch.undo()
    assert is_run(workdir / "fold2")
    train_and_evaluate(saving, workdir, resume=True)
    assert_same_folds(workdir, whole)


@pytest.mark.slow
def test_interrupted_inside_a_fold_it_names_the_whole(
    trained: Trained, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    real = loop.read_means

    def interrupting(sums: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(sums)

    monkeypatch.setattr(loop, "read_means", interrupting)
    with_more = with_(config, train={"epochs": 2})
    with pytest.raises(
        KeyboardInterrupt, match=r"in fold 1 of 2 at step \d, saved; go on with: .*--workdir \S*/run --resume$"
    ):
        train_and_evaluate(with_more, workdir)
    monkeypatch.undo()
    train_and_evaluate(with_more, workdir, resume=True)
    whole = tmp_path / "whole"
    train_and_evaluate(with_more, whole)
    assert_same_folds(workdir, whole)


@pytest.mark.slow
def test_before_the_first_fold_begins_nothing_is_there_and_nothing_is_lost(
    trained: Trained,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: Any,
) -> None:
    """Killed while the first fold compiles, and while the marker is written."""
    before = told(trained[0])
    killed_at(loop, "compile_step", 1)
    for workdir, overwrite in ((tmp_path / "new", False), (trained[0], True)):
        with pytest.raises(Killed):
            train_and_evaluate(config, workdir, overwrite=overwrite)
        monkeypatch.undo()
        killed_at(loop, "compile_step", 1)
    assert not (tmp_path / "new").exists()
    assert told(trained[0]) == before
    assert is_run(trained[0] / "fold2")


def test_a_half_made_directory_is_free(tmp_path: Path) -> None:
    """What processes leave that were killed while they compiled the first fold, or made room for it."""
    (tmp_path / "fold1").mkdir()
    for name in (".lock", "fold1/.lock", "fold1/.lock-holder"):
        (tmp_path / name).touch()
    check_free(tmp_path, overwrite=False)
    (tmp_path / "fold1" / "notes.txt").touch()
    with pytest.raises(UserError, match="not empty and not a run"):
        check_free(tmp_path, overwrite=False)


def make_folds(workdir: Path, config: Config, count: int = 3) -> None:
    """A directory of folds, each fold but a shell."""
    workdir.mkdir()
    directory.begin_folds(workdir, config)
    for fold in range(1, count + 1):
        directory.begin(workdir / f"fold{fold}", ["0", "1", "2"])
        directory.write_config(workdir / f"fold{fold}", config)


def test_overwriting_removes_the_folds_and_nothing_else(config: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    make_folds(workdir, config)
    mine = [workdir / "mine.txt", workdir / "fold2" / "mine.txt", workdir / "fold10b" / "mine.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(UserError, match=r"run is a run already: go on with --resume, replace it with --overwrite"):
        check_free(workdir, overwrite=False)
    directory.begin(workdir, ["0", "1"], overwrite=True)  # a single run in place of folds
    assert all(path.exists() for path in mine)
    assert sorted(path.name for path in workdir.iterdir()) == [
        "checkpoints",
        "classes.txt",
        "fold10b",
        "fold2",
        "mine.txt",
        "run.json",
    ]
    assert [path.name for path in (workdir / "fold2").iterdir()] == ["mine.txt"]
    directory.write_config(workdir, config)
    assert is_run(workdir)
    directory.begin_folds(workdir, config)  # and folds in place of a single run
    assert is_folds(workdir)
    assert not is_run(workdir)
    assert not (workdir / "checkpoints").exists()


def test_killed_while_room_is_made_the_rest_is_removed_the_next_time(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: Arm
) -> None:
    workdir = tmp_path / "run"
    make_folds(workdir, config)
    killed_at(directory, "remove", 5)
    with pytest.raises(Killed):
        directory.begin_folds(workdir, config)
    monkeypatch.undo()
    assert not is_folds(workdir)
    check_free(workdir, overwrite=False)
    directory.begin_folds(workdir, config)
    assert is_folds(workdir)
    assert not any(is_run(workdir / f"fold{fold}") for fold in (1, 2, 3))


@pytest.mark.slow
def test_one_process_at_a_time(trained: Trained, config: Config) -> None:
    """The whole, or one of its folds."""
    workdir = trained[0]
    one = with_(config, train={"fold": 1, "epochs": 2})
    with hold(workdir):
        for settings, folder in ((config, workdir), (one, workdir / "fold1")):
            with pytest.raises(UserError, match=r"whole is in use by process \d+"):
                train_and_evaluate(settings, folder, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"folds": 3}, r"--resume cannot change train\.folds \(2 -> 3\)"),
        ({"seed": 1}, r"--resume cannot change train\.seed \(6666 -> 1\)"),
        ({"fold": 1}, "whole is not a run but holds 2, its folds: name one of them"),
    ],
)
def test_resume_refuses_other_folds(changes: dict[str, int], named: str, trained: Trained, config: Config) -> None:
    with pytest.raises(UserError, match=named):
        train_and_evaluate(with_(config, train=changes), trained[0], resume=True)


def test_a_single_run_does_not_go_on_as_folds(config: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    directory.begin(workdir, ["0", "1", "2"])
    directory.write_config(workdir, with_(config, train={"folds": 0}))
    with pytest.raises(UserError, match=r"--resume cannot change train\.folds \(0 -> 2\)"):
        train_and_evaluate(config, workdir, resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "folds": "x", "accuracies": []}', "\xff"])
def test_a_damaged_marker_is_one_line_with_the_mend(text: str, config: Config, tmp_path: Path) -> None:
    make_folds(tmp_path / "run", config)
    write_whole(tmp_path / "run" / folds.FOLDS, text)
    with pytest.raises(UserError, match=r"folds\.json is damaged: go on with .* --workdir .*run --resume"):
        directory.each_run([tmp_path / "run"])


@pytest.mark.parametrize(("name", "value"), [("folds", 1), ("folds", -1), ("fold", 3), ("fold", -1)])
def test_settings_that_are_no_folds(name: str, value: int, config: Config) -> None:
    with pytest.raises(UserError, match=rf"train\.{name} = {value}"):
        with_(config, train={name: value})


@pytest.mark.slow
def test_predict_takes_the_whole_for_its_folds(
    trained: Trained, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = trained[0]
    for name, runs in (("a.csv", [workdir]), ("b.csv", [workdir / "fold1", workdir / "fold2"])):
        arguments = [*map(str, runs), "--images", str(tiny_food / "test"), "--out", str(tmp_path / name)]
        predict.main(arguments)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "5 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_folds_without_a_validation_folder(
    config: Config, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, with a missing folder of the default's name; a folder that the user named must be there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "food").mkdir()
    (tmp_path / "food" / "train").symlink_to(tiny_food / "train")
    settings = {
        "data.root": "food",
        "data.image_size": "32",
        "train.batch_size": "16",
        "train.epochs": "1",
        "train.folds": "2",
        "device.count": "1",
        "logging.progress": "false",
        "loss.class_weights": "balanced",
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with pytest.raises(UserError, match=r"data\.valid = 'nowhere'"):
        main(["--workdir", "run", *flags, "--data.valid", "nowhere"])
    assert not Path("run").exists()
    main(["--workdir", "run", *flags])
    out = capsys.readouterr().out
    assert "food has no data.valid = valid: what the folds answer together is not measured" in out
    assert "fold 2 of 2: trained on " in out
    assert told(Path("run"))["ensemble"] is None
    assert load_config("run/config.toml").loss.class_weights == "balanced"  # type: ignore[attr-defined]
    for fold in (1, 2):
        counts = np.bincount([r.label for r in read_pictures(Path("run", f"fold{fold}")) or () if r.split == "train"])
        expected = tuple(counts.sum() / (3 * counts))
        assert read_config(Path("run", f"fold{fold}")).loss.class_weights == expected  # type: ignore[attr-defined]
        assert f"loss.class_weights = balanced: {expected[0]:.4g}, {expected[1]:.4g}, {expected[2]:.4g}" in out
    main(["--workdir", "run", "--resume", "--train.epochs", "2"])
    assert len(read_metrics(Path("run", "fold2", "metrics.jsonl"))) == 2
    assert load_config("run/config.toml").train.epochs == 2
