"""What TensorBoard, Weights & Biases (offline) and MLflow (in a file) are told of a run, and of one that goes on."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config.sections import Config, LoggingConfig
from jaxfood.errors import UserError
from jaxfood.runs.directory import begin, write_config
from jaxfood.train import train_and_evaluate
from jaxfood.training.logbook import Confusion, Logbook, open_logbook
from jaxfood.training.metrics import confusion_sums
from jaxfood.training.trackers import configured
from jaxfood.training.trackers.configured import check_trackers
from jaxfood.training.trackers.writer import Outcome, Scalars, Tracked, TrackerError

SETTINGS = {"optimizer.name": "adam", "optimizer.clip_norm": float("inf"), "model.normalize": (), "data.root": "/food"}
CONFUSION = Confusion(np.array([[3, 1], [0, 2]]), ("麵條", "Egg"))

pytestmark = [
    # SQLAlchemy 2.1 of what MLflow's tables ask for.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    # TensorBoard's and MLflow's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(mlflow|tensorboardX|wandb|google)"),
]


def record(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": epoch * 3,
        "train_loss": 1 / epoch,
        "valid_accuracy": 0.1 * epoch,
        "grad_norm": None,
    }


def told(
    workdir: Path, logging: LoggingConfig, epochs: tuple[int, ...], settings: Any = SETTINGS, step: int = 0
) -> None:
    with open_logbook(workdir, logging, step, (), settings) as book:
        for epoch in epochs:
            book.metrics(record(epoch), CONFUSION if epoch == 1 else None)


# Several writers, and one that fails.


class Fake:
    """A tracker that writes down what it is told, and takes so many epochs."""

    def __init__(self, takes: int = 10) -> None:
        self.takes, self.said = takes, list[Any]()

    def add_scalars(self, values: Scalars, step: int) -> None:
        if step > 3 * self.takes:
            raise TrackerError("fake takes no more (the network is gone)")
        self.said.append((dict(values), step))

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self.said.append((name, pixels.shape[2], pixels.dtype, step))

    def close(self, outcome: Outcome) -> None:
        self.said.append(outcome)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    made = [Fake(takes=1), Fake()]
    monkeypatch.setattr("jaxfood.training.logbook.open_trackers", lambda logging, run: list(made))
    monkeypatch.setattr(Confusion, "draw", lambda self, title: np.zeros((4, 4, 3), np.uint8))
    return made


def test_all_trackers_are_told_and_one_that_fails_ends_alone(
    fakes: list[Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").touch()
    told(tmp_path, LoggingConfig(), (1, 2, 3))
    first = [({"train_loss": 1.0, "valid_accuracy": 0.1}, 3), ("confusion", 3, np.uint8, 3)]
    assert fakes[0].said == first
    assert fakes[1].said[:2] == first
    assert [said[1] for said in fakes[1].said[2:-1]] == [6, 9]
    assert fakes[1].said[-1] == "finished"
    line = "fake takes no more (the network is gone): going on without it; metrics.jsonl has all numbers\n"
    assert capsys.readouterr().out == line
    assert (tmp_path / "log.txt").read_text() == line


@pytest.mark.parametrize(("error", "outcome"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_how_the_run_ended(fakes: list[Fake], tmp_path: Path, error: type[BaseException], outcome: str) -> None:
    with pytest.raises(error), open_logbook(tmp_path, LoggingConfig(), 0):
        raise error
    assert [fake.said for fake in fakes] == [[outcome], [outcome]]


def test_the_first_is_closed_where_the_second_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()

    def fail(run: Tracked) -> Fake:
        raise UserError("no server")

    monkeypatch.setattr(configured, "TensorBoard", lambda run: fake)
    monkeypatch.setattr(configured, "Wandb", fail)
    with pytest.raises(UserError, match="no server"):
        configured.open_trackers(LoggingConfig(tensorboard=True, wandb=True), Tracked(tmp_path))
    assert fake.said == ["failed"]


def test_without_matplotlib_the_picture_is_left_out_and_said(
    fakes: list[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told(tmp_path, LoggingConfig(), (1,))
    assert "no confusion matrix for the trackers, as matplotlib is missing" in capsys.readouterr().out
    assert len(fakes[1].said) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_the_users_mistake(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX" if name == "tensorboard" else name, None)
    with pytest.raises(UserError, match=rf"logging\.{name} = true needs .*: pip install 'jaxfood\[{name}\]'"):
        check_trackers(LoggingConfig(**{name: True}))


# The confusion matrix.


def test_the_confusion_counts_pictures_and_no_padding() -> None:
    logits = jnp.eye(3)[jnp.array([0, 2, 1, 1])]
    batch = {"label": jnp.array([0, 1, 1, 0]), "mask": jnp.array([1.0, 1.0, 1.0, 0.0])}
    assert confusion_sums(logits, batch).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "parallel"), [(1, "jit"), (2, "jit"), (2, "pmap")])  # 9 pictures: 2 are padded
def test_the_confusion_is_that_of_the_best_epoch(
    narrow: None,
    fakes: list[Fake],
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    parallel: str,
) -> None:
    drawn = []
    monkeypatch.setattr(
        Confusion, "draw", lambda self, title: drawn.append(self.counts) or np.zeros((4, 4, 3), np.uint8)
    )
    config = changed(tiny_config, tensorboard=True)
    config = replace(
        config, device=replace(config.device, count=devices), train=replace(config.train, parallel=parallel)
    )
    train_and_evaluate(config, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [0.0, *(each["valid_accuracy"] for each in records)]
    bests = [each for n, each in enumerate(accuracies[1:], 1) if n == 1 or each > max(accuracies[1:n])]
    assert [np.trace(counts) / counts.sum() for counts in drawn] == pytest.approx(bests)
    assert all(counts.sum() == 9 for counts in drawn)  # the validation pictures


def changed(config: Config, **logging: bool) -> Config:
    return replace(config, logging=replace(config.logging, **logging))


def test_a_run_that_replaces_another_begins_anew_in_the_trackers(tiny_config: Config, tmp_path: Path) -> None:
    begin(tmp_path, CONFUSION.classes)
    write_config(tmp_path, tiny_config)
    Tracked(tmp_path).store("mlflow", "abc")
    (tmp_path / "wandb").mkdir()
    assert Tracked(tmp_path).stored("mlflow") == "abc"
    begin(tmp_path, CONFUSION.classes, overwrite=True)
    assert Tracked(tmp_path).stored("mlflow") == ""
    assert not (tmp_path / "wandb").exists()
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(UserError, match=r"trackers\.json is damaged: restore it, or remove it"):
        Tracked(tmp_path).stored("mlflow")


# TensorBoard.


def events(folder: Path) -> Iterator[Any]:
    """All values in TensorBoard's files, as (step, value)."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                yield event.step, value


@pytest.mark.slow
def test_tensorboard_gets_settings_scalars_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="an optional extra")
    told(tmp_path, LoggingConfig(tensorboard=True), (1, 2))
    found = list(events(tmp_path / "tensorboard"))
    scalars = {
        (step, value.tag): round(value.simple_value, 3) for step, value in found if value.HasField("simple_value")
    }
    assert scalars == {
        (3, "train_loss"): 1.0,
        (3, "valid_accuracy"): 0.1,
        (6, "train_loss"): 0.5,
        (6, "valid_accuracy"): 0.2,
    }
    pictures = [(step, value.tag) for step, value in found if value.HasField("image")]
    assert pictures == [(3, "confusion")]
    (text,) = (value.tensor.string_val[0].decode() for _, value in found if value.tag.startswith("settings"))
    assert "| optimizer.clip_norm | `Infinity` |" in text
    (table,) = (value.metadata.plugin_data.content for _, value in found if value.tag.endswith("session_start_info"))
    assert b"optimizer.name" in table
    assert b"adam" in table
    assert b"data.root" not in table  # where pictures lie changes no result
    assert any(value.tag == "_hparams_/session_end_info" for _, value in found)


@pytest.mark.slow
def test_tensorboard_that_is_asked_for_later_gets_the_earlier_epochs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="an optional extra")
    told(tmp_path, LoggingConfig(), (1, 2))
    for epoch in (3, 4):
        told(tmp_path, LoggingConfig(tensorboard=True), (epoch,), step=3 * epoch - 3)
        for file in (tmp_path / "tensorboard").glob("events*"):  # their names tell the second, and this is faster
            file.rename(file.with_name(f"{epoch}"))
    steps = [step for step, value in events(tmp_path / "tensorboard") if value.tag == "train_loss"]
    assert steps == [3, 6, 9, 12]


# Weights & Biases, offline.


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, offline; its service ends at `teardown`."""
    wandb = pytest.importorskip("wandb", reason="an optional extra")
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    yield wandb
    wandb.teardown()


def offline_records(file: Path) -> Iterator[Any]:
    """Its records: LevelDB's log format, blocks of 32 KiB of which the first begins with 7 bytes of wandb's."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), 7, b""
    while at < len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_wandb_offline_and_gone_on_with_under_the_same_id(
    wandb_offline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logging, workdir = LoggingConfig(wandb=True), tmp_path / "runs" / "dinner"
    workdir.mkdir(parents=True)
    check_trackers(logging)
    told(workdir, logging, (1, 2))
    name = json.loads((workdir / "trackers.json").read_text())["wandb"]
    told(workdir, logging, (3,), step=6)
    assert json.loads((workdir / "trackers.json").read_text()) == {"wandb": name}
    wandb_offline.teardown()  # what is still on its way is written
    files = sorted((workdir / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    written = [record for file in files for record in offline_records(file)]
    begun = [record.run for record in written if record.HasField("run")]
    assert {(run.run_id, run.display_name, run.project) for run in begun} == {(name, "dinner", "jaxfood")}
    assert any("adam" in update.value_json for run in begun for update in run.config.update)
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in written
        if record.HasField("history")
    ]
    assert [(each["_step"], each["train_loss"]) for each in history] == [(3, 1.0), (6, 0.5), (9, 1 / 3)]
    assert "confusion" in " ".join(history[0])
    assert f"wandb: offline, in {workdir}/wandb; to bring it to the server: wandb sync" in capsys.readouterr().out


@pytest.mark.slow
def test_wandb_without_a_server_is_one_plain_line(
    wandb_offline: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(
        UserError, match=r"cannot be reached \(nobody is logged in\): .* \(wandb login\), set WANDB_MODE=off"
    ):
        check_trackers(LoggingConfig(wandb=True))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached") as raised:
        check_trackers(LoggingConfig(wandb=True))
    assert "\n" not in str(raised.value)


# MLflow, in a file.


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    pytest.importorskip("mlflow", reason="an optional extra")
    pytest.importorskip("sqlalchemy", reason="of the optional extra mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # its pictures lie beside
    return MlflowClient


@pytest.mark.slow
def test_mlflow_in_a_file_and_gone_on_with(
    mlflow_client: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging, workdir = LoggingConfig(mlflow=True), tmp_path / "runs" / "fold2"
    workdir.mkdir(parents=True)
    check_trackers(logging)
    told(workdir, LoggingConfig(), (1,))
    many = {**SETTINGS, **{f"data.number{n}": n for n in range(130)}}
    told(workdir, logging, (2,), step=3, settings=many)
    told(workdir, logging, (3,), step=6, settings={**many, "optimizer.name": "sgd", "data.more": 1})
    client = mlflow_client()
    name = json.loads((workdir / "trackers.json").read_text())["mlflow"]
    (experiment,) = (each for each in client.search_experiments() if each.name == "jaxfood")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (name, "runs/fold2", "FINISHED")
    assert run.data.params.items() >= {"optimizer.name": "adam", "data.number129": "129", "data.more": "1"}.items()
    assert run.data.tags["optimizer.name"] == "sgd"
    history = client.get_metric_history(name, "train_loss")
    assert [(each.step, each.value) for each in history] == [(3, 1.0), (6, 0.5), (9, 1 / 3)]  # epoch 1 was before
    with open_logbook(workdir, logging, 9, (), many) as book:
        book.metrics(record(4), CONFUSION)
    assert [file.path for file in client.list_artifacts(name, "confusion")] == ["confusion/00000012.png"]
    capsys.readouterr()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    Logbook(workdir, logging, 12).close()
    said = capsys.readouterr().out
    assert f"other.db has no run {name}, which this one was: beginning anew there" in said
    assert (
        len(
            mlflow_client().get_metric_history(
                json.loads((workdir / "trackers.json").read_text())["mlflow"], "train_loss"
            )
        )
        == 4
    )


def test_mlflow_without_a_server_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="an optional extra")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"MLflow cannot reach http://127\.0\.0\.1:9 .*: check MLFLOW_TRACKING_URI"
    ) as raised:
        check_trackers(LoggingConfig(mlflow=True))
    assert "\n" not in str(raised.value)
