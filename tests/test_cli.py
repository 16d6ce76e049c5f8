"""The command line of `jaxfood.train`: what it takes, what it refuses and how it leaves. Nothing is trained here."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from PIL import Image

from jaxfood import cli, convert, predict, train
from jaxfood.config import Config, load_config, to_toml
from jaxfood.config.loading import merge, variants_of
from jaxfood.config.sections import SECTIONS, DeviceConfig
from jaxfood.errors import UserError
from jaxfood.landscape import __main__ as landscape
from jaxfood.lessons import __main__ as lessons


def parse(*argv: str) -> Config:
    """The configuration of these flags alone."""
    return merge(cli.Parser("train", "").parse_with_settings(argv)[1])


def python(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, without the platform that the tests choose."""
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def leave(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m jaxfood.train`."""
    return python("-m", "jaxfood.train", *argv, cwd=cwd)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """What `train_and_evaluate` was called with; it does nothing, in an empty current directory."""
    call = SimpleNamespace(config=None, workdir=None, resume=None, overwrite=None, cwd=tmp_path)

    def capture(config: Config, workdir: Path, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
        call.config, call.workdir, call.resume, call.overwrite = config, Path(workdir), resume, overwrite
        return {}

    monkeypatch.setattr("jaxfood.train.train_and_evaluate", capture)
    monkeypatch.chdir(tmp_path)
    return call


def make_run(workdir: Path, config: Config) -> Path:
    """A directory that looks like a run."""
    (workdir / "checkpoints").mkdir(parents=True)
    (workdir / "config.toml").write_text(to_toml(config), encoding="utf-8")
    return workdir


# The parser.


@pytest.mark.parametrize("spelling", [("--train.epochs=3",), ("--train.epochs", "3")])
def test_a_flag_and_its_value_in_one_word_or_two(spelling: tuple[str, ...]) -> None:
    assert parse(*spelling).train.epochs == 3


def test_flags_are_read_by_their_settings_types() -> None:
    config = parse(
        *("--data.skip_corrupt", "true", "--logging.progress=false", "--optimizer.clip_norm", "inf"),
        *("--data.root", "/a b/c=d", "--optimizer.learning_rate=1e-3", "--data.valid="),
    )
    assert config.data.skip_corrupt is True
    assert config.logging.progress is False
    assert config.optimizer.clip_norm == float("inf")
    assert config.data.root == "/a b/c=d"
    assert config.optimizer.learning_rate == 1e-3
    assert config.data.valid == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train.epoch", "3"], r"no setting train\.epoch: did you mean train\.epochs\?"),
        (["--train.epoch=3"], r"no setting train\.epoch: did you mean train\.epochs\?"),
        (["--trian.epochs", "3"], r"no section 'trian': did you mean train\?"),
        (["--train.batch-size", "3"], r"did you mean train\.batch_size\?"),
        (["--epochs", "3"], r"unknown argument '--epochs': did you mean --train\.epochs\?"),
        (["--lr", "3"], r"unknown argument '--lr': did you mean --optimizer\.learning_rate\?"),
        (["--lr=3"], r"unknown argument '--lr=3': did you mean --optimizer\.learning_rate\?"),
        (["--batch_size", "3"], r"unknown argument '--batch_size': did you mean --train\.batch_size\?"),
        (["--batch-size", "3"], r"unknown argument '--batch-size': did you mean --train\.batch_size\?"),
        (["--data", "food"], r"unknown argument '--data': did you mean --data\.root\?"),
        (["--workdri", "x"], r"unknown argument '--workdri': did you mean --workdir\?"),
        (
            ["--resume", "runs/a"],
            r"unknown argument 'runs/a': a run is named with --workdir RUN, --resume takes no val",
        ),
        (["--data.skip_corrupt", "True"], r"= 'True': it takes true or false; write true$"),
        (["--train.epochs", "1e-3"], r"= '1e-3': it takes an integer, at least 1, at most 1000000$"),
        (["--train.batch_size", "64.0"], r"= '64\.0': it takes an integer, at least 1, at most 1000000; write 64$"),
        # Python 3.12.7 and later take -- for a value, earlier ones for none.
        (
            ["--optimizer.learning_rate=--"],
            r"--optimizer\.learning_rate: expected one argument|= '--': it takes a number",
        ),
        (
            ["--workdir", "~nobody_here/run"],
            r"~nobody_here/run: there is no such user nobody_here; write the path with",
        ),
        (
            ["--data.root", "https://food.org/a.zip"],
            r"data\.root = https://food\.org/a\.zip: .*; download it first \(curl",
        ),
        (["\x1b[31m\n"], r"unknown argument '\\x1b\[31m\\n'"),
        (["hw3"], r"unknown argument 'hw3'"),
        (["--conf", "hw3"], r"unknown argument '--conf'"),
        (["--train.epochs"], r"--train\.epochs: expected one argument"),
        (["--train.epochs", "three"], r"command line: train\.epochs = 'three': it takes an integer, at least 1"),
        (["--train.epochs", "-3"], r"command line: train\.epochs = -3: it takes an integer, at least 1"),
        (["--data.skip_corrupt", "yes"], r"data\.skip_corrupt = 'yes': it takes true or false"),
        (["--data.skip_corrupt"], r"--data\.skip_corrupt: expected one argument"),
        (["--optimizer.name", "adamm"], r"optimizer\.name = 'adamm': it takes one of: sgd, "),
        (["--optimizer.momentum", "0.5"], r"optimizer 'adam' has no 'momentum'; its settings: learning_rate, "),
        (["--config", "hw33"], r"no recipe 'hw33': did you mean hw3\?"),
        (["--config", "no/such.toml"], r"no configuration file no/such\.toml"),
        (["--resume", "--overwrite", "--workdir", "x"], r"not allowed with argument"),
        (["--resume"], r"--resume needs --workdir"),
        (["--resume", "--workdir", "nothing"], r"nothing is not a run: it does not exist"),
    ],
)
def test_a_mistake_is_one_plain_line(argv: list[str], message: str, trained: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=message) as error:
        train.main(argv)
    assert "\n" not in str(error.value)
    assert trained.config is None


# What train makes of its arguments.


def test_without_configuration_and_data_it_takes_the_demo_recipe_and_says_so_first(
    trained: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(["--train.epochs", "3"])
    assert "demo" in capsys.readouterr().out.splitlines()[0]
    assert trained.config == load_config("demo", ["train.epochs=3"])
    assert trained.workdir == Path("runs/demo-1")
    assert (trained.resume, trained.overwrite) == (False, False)


def test_with_a_data_setting_it_takes_the_notes_recipe(
    trained: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(["--data.root", "food", "--workdir", "here", "--overwrite"])
    assert "demo" not in capsys.readouterr().out
    assert trained.config == load_config(None, [f"data.root={trained.cwd / 'food'}"])
    assert trained.workdir == Path("here")
    assert trained.overwrite


def test_flags_win_over_the_configuration_file(trained: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nepochs = 3\npatience = 1", encoding="utf-8")
    train.main(["--config", "mine.toml", "--train.epochs", "4"])
    assert (trained.config.train.epochs, trained.config.train.patience) == (4, 1)
    assert trained.workdir == Path("runs/mine-1")


@pytest.mark.parametrize("name", ["hw3", "night [1]"])
def test_the_work_directory_is_the_next_free_one(name: str, trained: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / f"{name}.toml").write_text("", encoding="utf-8")
    for taken in (f"{name}-1", f"{name}-9", f"{name}-10", f"{name}-x", f"{name}-old-77", "other-99"):
        (tmp_path / "runs" / taken).mkdir(parents=True)
    train.main(["--config", f"./{name}.toml"])
    assert trained.workdir == Path(f"runs/{name}-11")


def test_resume_reads_the_runs_own_configuration(trained: SimpleNamespace, tmp_path: Path) -> None:
    stored = load_config(None, ["optimizer.name=rmsprop", "optimizer.momentum=0.5", "data.root=food"])
    make_run(tmp_path / "run", stored)
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # the fixture changes it back
    train.main(["--workdir", "../run", "--resume"])
    assert trained.config == stored
    assert trained.resume
    Path("more.toml").write_text("[train]\nepochs = 50\npatience = 9", encoding="utf-8")
    train.main(["--workdir", "../run", "--resume", "--config", "more.toml", "--train.epochs=99"])
    assert trained.config == dataclasses.replace(stored, train=dataclasses.replace(stored.train, epochs=99, patience=9))


# How a command leaves.


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (None, 0, ""),
        (UserError("the thing is wrong: mend it"), 2, "error: the thing is wrong: mend it\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt(" at step 3, saved"), 130, "interrupted at step 3, saved\n"),
    ],
)
def test_exit_status(raised: BaseException | None, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> None:
        if raised is not None:
            raise raised

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert (left.value.code, capsys.readouterr().err) == (status, said)


def test_an_error_line_is_bounded_and_safe_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> None:
        raise UserError("\x1b[2Jmissing: " + ", ".join(f"{number}.jpg" for number in range(75_750)) + "; the mend")

    with pytest.raises(SystemExit):
        cli.run(main)
    told = capsys.readouterr().err
    assert len(told) < 4100
    assert told.startswith(r"error: \x1b[2Jmissing: 0.jpg")
    assert "characters left out ...]" in told
    assert told.endswith("; the mend\n")


def test_a_shells_pattern_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["RUN", "--images", "1.jpg", "2.jpg", "3.jpg"], ["--images", "1.jpg", "2.jpg", "RUN"]):
        with pytest.raises(UserError, match=r"--images takes one word, and the shell replaces .*: name the folder"):
            predict.main(words)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (predict.main, ["RUN", "--images", "1.png", "--out", "."], r"^--out \.: this is a folder; name a file in it"),
        (predict.main, ["RUN", "--images", "1.png", "--out", "no/a.csv"], r"there is no folder .*/no; make it first"),
        (convert.main, ["to-torch", "RUN", "."], r"^FILE \.: this is a folder; name a file in it"),
        (
            convert.main,
            ["from-torch", "a.pt", "1.png/run"],
            r"^cannot write to 1\.png/run \(.*/1\.png is a file\); choose",
        ),
        (landscape.main, ["RUN", "--images", "1.png", "--out", "1.png"], r"^cannot write to 1\.png \(it is a file\)"),
        (
            lessons.main,
            ["momentum", "--out", "1.png"],
            r"^cannot write to 1\.png \(it is a file\); choose another --out$",
        ),
        (lessons.main, ["momentum", "--out", "~nobody_here"], r"^~nobody_here: there is no such user nobody_here"),
    ],
)
def test_where_the_result_cannot_be_written_is_said_before_the_work(
    main: Callable[[Sequence[str]], None],
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "set_up_jax", lambda *_: pytest.fail("work begins"))
    Image.new("RGB", (40, 40)).save("1.png")
    with pytest.raises(UserError, match=message):
        main(words)
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def main(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main)


@pytest.mark.parametrize(
    "argv",
    [
        ["--train.epoch", "3"],
        ["--nonsense"],
        ["--config", "broken.toml"],
        ["--config", "hw3"],
        ["--data.root", "nowhere", "--train.epochs", "0"],
    ],
)
def test_a_mistake_leaves_with_2_and_one_line(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[train\n", encoding="utf-8")
    done = leave(*argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "broken.toml"]


def test_help_names_every_setting_and_its_default(tmp_path: Path) -> None:
    done = leave("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.split()
    for section in SECTIONS:
        for field in (field for variant in variants_of(section) for field in dataclasses.fields(variant)):
            assert f"--{section}.{field.name}" in words
    text = " ".join(words)
    for default in (
        *("default: 0.001; 0.0003 for adam", "0.01 for adagrad, rmsprop", "1e-10 for adagrad"),
        *("default: 6666", "at least 32, at most 2048, a multiple of 32; default: 128"),
    ):
        assert default in text
    for flag in ("--config", "--workdir", "--resume", "--overwrite"):
        assert flag in words


def test_help_spells_values_as_flags_take_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(true or false; default: false)" in text
    assert "below 2147483648" in text


def test_the_command_line_loads_neither_jax_nor_torch(tmp_path: Path) -> None:
    program = """
        import sys
        import jaxfood, jaxfood.predict, jaxfood.serve, jaxfood.train
        for command in (jaxfood.train, jaxfood.predict, jaxfood.serve):
            try:
                command.main(["--help"])
            except SystemExit as left:
                assert left.code == 0
        assert jaxfood.UserError and jaxfood.load_config("hw3")
        heavy = {"jax", "flax", "torch", "tensorboardX", "matplotlib", "tensorflow_datasets", "orbax", "numpy"}
        heavy |= {"starlette", "uvicorn", "wandb", "mlflow"}
        print("loaded:", *sorted(heavy & sys.modules.keys()))
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.slow
def test_a_training_imports_orbax_while_it_compiles(tmp_path: Path) -> None:
    """Importing it takes a quarter of a second, and nothing before the run's folder needs it."""
    program = """
        import sys
        import jaxfood.training.start
        print("loaded:", *sorted({"orbax", "torch", "matplotlib", "sklearn", "pandas"} & sys.modules.keys()))
        with jaxfood.training.start._importing("jaxfood.runs.manager"):
            pass
        assert "orbax" in sys.modules
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_commands_look_for_garbage_seldom(tmp_path: Path) -> None:
    program = """
        import gc
        from jaxfood import cli
        def main(_):
            print(gc.get_threshold()[0])
        main.__module__ = "__main__"
        cli.run(main)
    """
    assert int(python("-c", textwrap.dedent(program), cwd=tmp_path).stdout) == 100_000


def test_small_programs_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}
    setting = "jax_persistent_cache_min_compile_time_secs"
    monkeypatch.setattr(type(jax.config), "update", lambda self, name, value: told.update({name: value}))
    for name in ("JAX_COMPILATION_CACHE_DIR", setting.upper()):
        monkeypatch.delenv(name, raising=False)
    cli.set_up_jax(DeviceConfig())
    assert told[setting] == 0.02
    monkeypatch.setenv(setting.upper(), "1")
    told.clear()
    cli.set_up_jax(DeviceConfig())
    assert setting not in told


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_a_platform_that_is_not_there(platform: str, tmp_path: Path) -> None:
    program = f"""
        from jaxfood import cli
        from jaxfood.config.sections import DeviceConfig
        cli.run(lambda _: cli.set_up_jax(DeviceConfig(platform={platform!r})))
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    if done.returncode == 0:
        pytest.skip(f"this machine has a {platform}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert platform in done.stderr
    assert "device.platform" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="needs POSIX pipes")
def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    program = """
        import os
        from jaxfood import cli
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(reading)
        cli.run(lambda _: print("a line", flush=True))
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
