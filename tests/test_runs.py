"""A run's directory: who may write to it, when it is one, which versions read it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from jaxfood import predict, train
from jaxfood.config import Config
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.runs import directory
from jaxfood.runs.directory import FORMAT, begin, check_free, is_run, load_run, make_workdir, read_classes, read_config
from jaxfood.runs.lock import hold
from jaxfood.runs.resume import schedule_changes
from jaxfood.train import train_and_evaluate
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")

HOLD = """
import sys, time
from pathlib import Path
from jaxfood.runs.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def one_epoch(tiny_config: Config) -> Config:
    return replace(tiny_config, train=replace(tiny_config.train, epochs=1))


@pytest.mark.slow
def test_a_run_is_held_by_one_process_and_free_when_it_dies(one_epoch: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train_and_evaluate(one_epoch, workdir)
    longer = replace(one_epoch, train=replace(one_epoch.train, epochs=2))
    with subprocess.Popen([sys.executable, "-c", HOLD, workdir], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match=rf"run is in use by process {other.pid} on .*: wait until"):
                train_and_evaluate(longer, workdir, **how)
        assert load_run(workdir)  # whoever reads needs no lock
        other.send_signal(signal.SIGKILL)
    assert train_and_evaluate(longer, workdir, resume=True)["epochs"] == 2
    assert not (workdir / ".lock-holder").exists()


def test_a_disk_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("jaxfood.runs.lock.FileLock.acquire", refuse)
    with hold(tmp_path / "run") as said:
        assert (
            said
            == f"{tmp_path / 'run'} cannot be locked (Function not implemented): see that nobody else trains this run"
        )


def test_nothing_is_left_of_a_training_that_never_began(one_epoch: Config, tmp_path: Path) -> None:
    bad = replace(one_epoch, data=replace(one_epoch.data, train="nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        train_and_evaluate(bad, tmp_path / "deep" / "run")
    assert not (tmp_path / "deep" / "run").exists()


def test_two_starts_never_choose_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [make_workdir("hw3") for _ in range(3)] == [Path(f"runs/hw3-{number}") for number in (1, 2, 3)]
    with pytest.raises(UserError, match="nowhere"):
        train.main(["--data.root", str(tmp_path / "nowhere")])
    assert sorted(path.name for path in Path("runs").iterdir()) == ["hw3-1", "hw3-2", "hw3-3"]


def test_an_earlier_run_is_replaced_only_once_the_new_one_can_begin(
    one_epoch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    train_and_evaluate(one_epoch, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    def fail(self: object) -> None:
        raise UserError("it cannot be compiled")

    monkeypatch.setattr("jaxfood.training.loop.Training.compile", fail)
    with pytest.raises(UserError, match="compiled"):
        train_and_evaluate(one_epoch, workdir, overwrite=True)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_a_run_of_given_weights_is_one_once_these_are_safe(
    one_epoch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, config.toml came first: ended there it was a run, and --resume trained it from new random weights."""
    workdir = tmp_path / "run"
    config = replace(one_epoch, model=replace(one_epoch.model, num_classes=3))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxfood.training.saved.write_config", die)
        with pytest.raises(KeyboardInterrupt):
            begin_from(workdir, config, init_variables(config))
    assert not is_run(workdir)
    with pytest.raises(UserError, match="is not a run: whoever made it was ended before it was one: begin it again"):
        read_config(workdir)
    begin_from(workdir, config, init_variables(config))
    assert load_run(workdir)[2] == config


def test_what_is_no_run_names_the_run_that_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "hw3-1" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "hw3-1" / "config.toml").touch()
    for name, message in (
        ("hw3-1", r"^hw3-1 is not a run: it does not exist: did you mean runs/hw3-1\?; name"),
        ("runs/hw31", r": did you mean hw3-1\?"),
        ("runs", r"^runs is not a run: it holds some, hw3-1; name"),
        ("runs/hw3-1/checkpoints", r"it is a part of one: did you mean runs/hw3-1\?"),
    ):
        with pytest.raises(UserError, match=message):
            read_config(Path(name))


def test_a_directory_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").touch()
    with pytest.raises(UserError, match="is not empty and not a run"):
        check_free(tmp_path, overwrite=True)
    with pytest.raises(UserError, match="is not empty and not a run"):
        begin(tmp_path, ["a", "b"], overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.slow
def test_a_format_of_the_future_is_refused(one_epoch: Config, tmp_path: Path) -> None:
    train_and_evaluate(one_epoch, tmp_path / "run")
    told = tmp_path / "run" / "run.json"
    assert json.loads(told.read_text())["format"] == FORMAT
    told.write_text('{"format": 99, "jaxfood": "7.0"}')
    for read in (
        lambda: load_run(tmp_path / "run"),
        lambda: train_and_evaluate(one_epoch, tmp_path / "run", resume=True),
    ):
        with pytest.raises(UserError, match=r"was made by jaxfood 7\.0, and this is .*: upgrade jaxfood"):
            read()
    told.write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        load_run(tmp_path / "run")
    told.unlink()  # a run of before there were formats
    assert load_run(tmp_path / "run")


@pytest.mark.parametrize(
    "names", [("Bread", "Dairy product"), (os.fsdecode(b"\xcb\xae\xb9\xfb"), "豆腐"), ("a\u2028b", "c")]
)
def test_names_of_classes_come_back(names: tuple[str, ...], tmp_path: Path) -> None:
    directory.write_classes(tmp_path, names)
    assert read_classes(tmp_path) == names


def test_a_missing_list_of_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*classes\.txt"):
        read_classes(tmp_path)


def test_what_more_epochs_do_to_the_rate_is_said(tiny_config: Config) -> None:
    from jaxfood.config import load_config

    cosine = load_config(None, ("schedule.name=warmup_cosine", "train.epochs=2"))
    longer = replace(cosine, train=replace(cosine.train, epochs=4))
    (line,) = schedule_changes(cosine, longer, step=6, total_steps=12)
    assert line.startswith(
        "train.epochs 2 -> 4: the schedule warmup_cosine spans the whole run, so the learning rate goes"
    )
    assert schedule_changes(cosine, cosine, step=6, total_steps=6) == []
    constant = load_config(None, ("train.epochs=2",))
    assert schedule_changes(constant, replace(constant, train=longer.train), step=6, total_steps=12) == []


@pytest.mark.slow
def test_more_epochs_of_a_cosine_are_said_when_it_goes_on(
    one_epoch: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxfood.config.schedule import WarmupCosine

    cosine = replace(one_epoch, schedule=WarmupCosine())
    train_and_evaluate(cosine, tmp_path / "run")
    train_and_evaluate(replace(cosine, train=replace(cosine.train, epochs=2)), tmp_path / "run", resume=True)
    assert "train.epochs 1 -> 2: the schedule warmup_cosine spans the whole run" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gone", "named"), [("", r"run was moved or removed"), ("checkpoints", r"run/checkpoints was moved or removed")]
)
def test_a_run_moved_away_while_it_is_trained(
    gone: str, named: str, one_epoch: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax would make its folders anew: half a run at the old place, exit 0."""
    from jaxfood.training.loop import Training

    workdir = tmp_path / "run"
    evaluate = Training._evaluate

    def move(self: Training) -> dict[str, float]:
        shutil.move(workdir / gone, tmp_path / "moved")
        return evaluate(self)

    monkeypatch.setattr(Training, "_evaluate", move)
    with pytest.raises(UserError, match=named):
        train_and_evaluate(one_epoch, workdir)
    assert not (workdir / gone).exists()


@pytest.mark.slow
def test_settings_edited_by_hand_are_refused(one_epoch: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train_and_evaluate(one_epoch, workdir)
    text = (workdir / "config.toml").read_text()
    (workdir / "config.toml").write_text(text.replace("batch_size = 8", "batch_size = 5"))
    edited = read_config(workdir)
    with pytest.raises(UserError, match="was trained with 3 steps an epoch, and batches of 5 make 5: put"):
        train_and_evaluate(replace(edited, train=replace(edited.train, epochs=2)), workdir, resume=True)


@pytest.mark.slow
def test_one_process_opens_no_socket(tiny_food: Path, tmp_path: Path) -> None:
    """Nothing of a training on one machine talks to a network, its own included."""
    script = tmp_path / "watch.py"
    script.write_text(
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.bind', 'socket.connect', 'socket.getaddrinfo'):\n"
        "        print('SOCKET', event, arguments[1:], flush=True)\n"
        "sys.addaudithook(hook)\n"
        "from jaxfood import train, predict\n"
        "train.main(sys.argv[2:])\n"
        "predict.main([sys.argv[3], '--images', sys.argv[1], '--out', sys.argv[3] + '/out.csv'])\n"
    )
    arguments = ["--workdir", str(tmp_path / "run"), "--data.root", str(tiny_food), "--data.image_size", "32"]
    arguments += ["--train.epochs", "1", "--device.count", "1"]
    ended = subprocess.run(
        [sys.executable, script, tiny_food / "test", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "SOCKET" not in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kept", sorted((Path(__file__).parent / "references").glob("kept_run_*.tar.gz")), ids=str)
def test_runs_of_earlier_formats_are_read(kept: Path, tmp_path: Path) -> None:
    """Loaded, answering as they did when they were made, and trained on, where their pictures lie now."""
    with tarfile.open(kept) as packed:
        packed.extractall(tmp_path, filter="data")
    run, food = tmp_path / "run", tmp_path / "food"
    predict.main([str(run), "--images", str(food / "test"), "--out", str(tmp_path / "out.csv")])
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "submission.csv").read_bytes()
    config = load_run(run)[2]
    config = replace(config, data=replace(config.data, root=str(food)), train=replace(config.train, epochs=3))
    assert train_and_evaluate(config, run, resume=True)["epochs"] == 3
