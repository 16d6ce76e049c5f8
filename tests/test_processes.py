"""Several processes on this machine: they meet, miss each other, stop together, and train what one would train."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxfood.config.distributed import DistributedConfig
from jaxfood.data.decode import decode_picture
from jaxfood.errors import UserError
from jaxfood.processes.links import LOST
from jaxfood.processes.meeting import Wire, connect, gather, listen
from jaxfood.runs.directory import load_run
from jaxfood.training.logbook import read_metrics

WORKER = Path(__file__).with_name("distributed_worker.py")
ROOT = Path(__file__).parents[1]
BOUND_SECONDS = 20  # in which a death ends the others, on a machine that is busy


def free_port() -> int:
    with socket.create_server(("", 0)) as listener:
        return listener.getsockname()[1]


def start(*arguments: object, devices: int = 2, **environment: str) -> subprocess.Popen[str]:
    """One process with its own virtual devices."""
    own = {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PJRT_NPROC": str(2 * devices),
    }
    words = [sys.executable, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=os.environ | own | environment, stdout=pipe, stderr=pipe, text=True)


def ends(running: Sequence[subprocess.Popen[str]], seconds: float = 600) -> list[tuple[int, str, str]]:
    """Exit status, standard output and standard error of each, once all have ended."""
    deadline = time.monotonic() + seconds
    try:
        told = [process.communicate(timeout=max(deadline - time.monotonic(), 0.1)) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(running, told, strict=True)]


def run_links(*behaviours: str) -> list[tuple[int, str, str]]:
    port, count = free_port(), len(behaviours)
    return ends([start(WORKER, "links", port, count, process, what) for process, what in enumerate(behaviours)], 60)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"coordinator": "somewhere"}, "HOST:PORT"),
        ({"coordinator": "host:70000"}, "HOST:PORT"),
        ({"coordinator": ":1234"}, "HOST:PORT"),
        ({"num_processes": 2}, "need distributed.coordinator"),
        ({"coordinator": "auto", "process_id": 0}, "need distributed.coordinator"),
        ({"coordinator": "host:1234", "num_processes": 2}, "process_id = -1"),
        ({"coordinator": "host:1234", "num_processes": 2, "process_id": 2}, "process_id = 2"),
        ({"coordinator": "host:1234", "process_id": 0}, "num_processes = 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        DistributedConfig(**settings)


def test_a_run_keeps_how_processes_are_found_but_not_the_place_of_one() -> None:
    assert DistributedConfig("auto").lasting() == DistributedConfig("auto")
    assert DistributedConfig("[::1]:1234", num_processes=2, process_id=1).lasting() == DistributedConfig()


class Meeting:
    """Process 0 in a thread, and what it ends with."""

    def __init__(self, count: int, seconds: float, **greeting: object) -> None:
        self.listener = listen(0)
        self.port = self.listener.getsockname()[1]
        self.outcome: object = None
        self.thread = threading.Thread(target=self._gather, args=(count, seconds, greeting))
        self.thread.start()

    def _gather(self, count: int, seconds: float, greeting: dict[str, object]) -> None:
        with self.listener:
            try:
                wires = gather(self.listener, count, greeting, seconds)
                for wire in wires.values():
                    wire.send("welcome", "to all")
                self.outcome = wires
            except UserError as error:
                self.outcome = str(error)

    def join(self, process: int, **greeting: object) -> str | tuple[Wire, object]:
        try:
            return connect("localhost", self.port, process, greeting, seconds=20)
        except UserError as error:
            return str(error)

    def result(self) -> Any:
        self.thread.join(30)
        return self.outcome


def test_all_meet_and_strangers_do_not_count() -> None:
    meeting = Meeting(3, seconds=20, version=1)
    with socket.create_connection(("localhost", meeting.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    came: dict[int, Any] = {}
    second = threading.Thread(target=lambda: came.update({2: meeting.join(2, version=1)}))
    second.start()
    wire, told = meeting.join(1, version=1)
    second.join(30)
    assert told == "to all"
    assert came[2][1] == "to all"
    assert set(meeting.result()) == {1, 2}
    wire.send("a word", [1, "value"])
    assert meeting.result()[1].receive() == [("a word", [1, "value"])]
    for each in (wire, came[2][0], *meeting.result().values()):
        each.close()


def test_those_who_do_not_come_are_named() -> None:
    meeting = Meeting(4, seconds=2)
    told = meeting.join(2)
    assert "process 1, 3 did not come within 2 s" in str(told)
    assert meeting.result() == told


def test_processes_must_be_alike() -> None:
    meeting = Meeting(3, seconds=20, jax="0.10")
    told = meeting.join(1, jax="0.12")
    assert "process 1 has jax 0.12 and process 0 has 0.10" in str(told)
    assert meeting.result() == told


def test_two_with_one_number() -> None:
    meeting = Meeting(3, seconds=20)
    first: list[object] = []
    waiting = threading.Thread(target=lambda: first.append(meeting.join(1)))
    waiting.start()
    time.sleep(0.5)
    told = meeting.join(1)
    waiting.join(30)
    assert "two processes have distributed.process_id = 1" in str(told)
    assert first == [told]
    assert meeting.result() == told


def test_nobody_at_the_coordinator() -> None:
    port = free_port()
    with pytest.raises(UserError, match=rf"process 0 does not answer at localhost:{port} within 0\.5 s"):
        connect("localhost", port, 1, {}, seconds=0.5)


def test_the_port_of_process_0_is_taken() -> None:
    with listen(0) as listener:
        program = (
            "from jaxfood import cli, processes; from jaxfood.config.distributed import DistributedConfig;"
            f"cli.run(lambda _: processes.start(DistributedConfig('localhost:{listener.getsockname()[1]}', 2, 0)))"
        )
        [(status, _, told)] = ends([start("-c", program)], 60)
    assert status == 2
    assert "cannot listen there" in told
    assert len(told.splitlines()) == 1


def test_all_stop_at_one_step_that_none_has_passed() -> None:
    finished = run_links("work", "ask", "ask")
    assert [status for status, _, _ in finished] == [0, 0, 0]
    stops = {out for _, out, _ in finished}
    assert len(stops) == 1
    assert int(stops.pop()) >= 20


@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_ends_the_others_with_one_line(dying: int) -> None:
    behaviours = ["work"] * 3
    behaviours[dying] = "die"
    finished = run_links(*behaviours)
    assert finished[dying][0] == -signal.SIGKILL
    for process in {0, 1, 2} - {dying}:
        status, _, told = finished[process]
        assert status == LOST
        assert told == (
            f"error: process {dying} has died or can no longer be reached, so this one stops too; start all again with "
            "--resume to go on\n"
        )


@pytest.mark.slow
def test_one_that_leaves_says_why_and_those_with_the_same_reason_keep_their_status() -> None:
    (_, _, _), (_, _, _), (status, _, told) = finished = run_links("leave", "leave", "work")
    assert [status for status, _, _ in finished[:2]] == [2, 2]
    assert status == LOST
    assert "has stopped (error: a mistake), so this one stops too" in told


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found that are started as by Slurm."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    pictures = save_pictures(tmp_path_factory.mktemp("pictures"))
    slurm = {
        "SLURM_JOB_ID": str(port - (2**16 - 2**12)) if port >= 2**16 - 2**12 else str(port),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    running = [
        start(WORKER, "api", folder, pictures, **slurm, SLURM_PROCID=str(process), SLURM_LOCALID=str(process))
        for process in range(2)
    ]
    for status, _, told in ends(running, 120):
        assert status == 0, told
    return [json.loads((folder / f"{process}.json").read_text()) for process in range(2)]


def save_pictures(folder: Path) -> Path:
    """Seven pictures of noise, of which the second and the last cannot be read."""
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"0_{number}.png")
    for number in (1, 6):
        (folder / f"0_{number}.png").write_text("no picture")
    return folder


def test_processes_know_and_tell_each_other(findings: list[dict[str, Any]]) -> None:
    assert [found["count"] for found in findings] == [2, 2]
    assert [found["first"] for found in findings] == [True, False]
    for found in findings:
        assert found["shared"] == [["from 0", "from 1"], ["", ""]]
        assert found["folders"] == [True, False]


def test_a_mistake_in_one_is_raised_in_all(findings: list[dict[str, Any]]) -> None:
    for found in findings:
        assert found["mistakes"] == ["", "process 0: no such disk", "process 1: no such disk", "no such disk"]
        assert found["difference"] == "other is 0 in process 0 and 1 in process 1: start all processes with the same"


def test_the_first_decodes_for_all_that_see_its_cache(findings: list[dict[str, Any]]) -> None:
    for found in findings:
        assert "2 of the 7 pictures" in found["strict"]
        assert found["cached"]["decoded"] == []
    whole = [f"0_{number}.png" for number in range(7)]
    assert [found["decoding"]["decoded"] for found in findings] == [whole, []]
    assert [found["own cache"]["decoded"] for found in findings] == [whole, whole]
    loaded = [found[when] for found in findings for when in ("decoding", "cached", "own cache")]
    for one in loaded:
        assert one["skipped"] == ["0_1.png", "0_6.png"]
        assert one["images"] == loaded[0]["images"]


def test_what_the_first_decoded_is_what_the_others_read(findings: list[dict[str, Any]], tmp_path: Path) -> None:
    pictures = save_pictures(tmp_path)
    expected = [decode_picture(pictures / f"0_{number}.png", 16) for number in (0, 2, 3, 4, 5)]
    np.testing.assert_array_equal(np.array(findings[1]["decoding"]["images"]), expected)


def test_a_signal_to_one_stops_both_at_one_step(findings: list[dict[str, Any]]) -> None:
    assert findings[0]["stopped"] == findings[1]["stopped"] >= 20


EPOCHS = 3


def train(workdir: Path, root: Path, *more: str, processes: int, devices: int) -> list[subprocess.Popen[str]]:
    """`jaxfood.train` under SGD, which lets rounding grow least, in so many processes of so many devices each."""
    settings = (
        *(
            "--data.root",
            root,
            "--data.image_size",
            32,
            "--model.num_classes",
            3,
            "--data.cache_dir",
            f"{root}.cache",
        ),
        *("--train.batch_size", 8, "--train.epochs", EPOCHS, "--logging.progress", "false"),
        *("--optimizer.name", "sgd", "--optimizer.learning_rate", 0.002),
    )
    where = ("--distributed.coordinator", f"127.0.0.1:{free_port()}", "--distributed.num_processes", processes)
    places = [()] if processes == 1 else [(*where, "--distributed.process_id", place) for place in range(processes)]
    command = ("-m", "jaxfood.train", "--workdir", workdir, *settings, *more)
    return [start(*command, *place, devices=devices) for place in places]


def wait_for_an_epoch(workdir: Path, running: Sequence[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 600
    while not read_metrics(workdir / "metrics.jsonl"):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)


def assert_same_run(workdir: Path, expected: Path) -> None:
    """The same metrics (but for time) and the same last weights, as far as float32 goes."""
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (workdir, expected))
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for name in our.keys() - {"seconds", "images_per_second"}:
            assert our[name] == pytest.approx(their[name], rel=1e-5), name
    weights = [load_run(run, "last")[1] for run in (workdir, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), *weights)


@pytest.fixture(scope="module")
def alone(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    [(status, _, told)] = ends(train(workdir, tiny_food, processes=1, devices=4))
    assert status == 0, told
    return workdir


@pytest.mark.slow
def test_two_processes_train_what_one_does(alone: Path, tiny_food: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    finished = ends(train(workdir, tiny_food, processes=2, devices=2))
    assert [status for status, _, _ in finished] == [0, 0], finished
    assert_same_run(workdir, alone)
    (_, first, _), (_, second, _) = finished
    lines = (workdir / "log.txt").read_text().splitlines()
    assert "4 cpu devices in 2 processes" in lines[0]
    for line in lines:
        assert line in first
        assert line not in second
    assert "127.0.0.1" not in (workdir / "config.toml").read_text()


@pytest.mark.slow
def test_a_run_survives_the_death_of_a_process(alone: Path, tiny_food: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    running = train(workdir, tiny_food, "--checkpoint.every", "1", processes=2, devices=2)
    wait_for_an_epoch(workdir, running)
    running[1].kill()
    (status, _, told), _ = ends(running, BOUND_SECONDS)
    assert status == LOST
    assert told.splitlines()[-1].startswith("error: process 1 has died or can no longer be reached")
    assert len(read_metrics(workdir / "metrics.jsonl")) < EPOCHS
    copy = shutil.copytree(workdir, tmp_path / "copy")
    resume = ("--checkpoint.every", "1", "--resume")
    for run, processes, devices in ((workdir, 2, 2), (copy, 1, 4)):
        finished = ends(train(run, tiny_food, *resume, processes=processes, devices=devices))
        assert {status for status, _, _ in finished} == {0}, finished
        assert "going on after step" in finished[0][1]
        assert_same_run(run, alone)


@pytest.mark.slow
def test_interrupting_one_process_stops_both_at_the_same_step(tiny_food: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    running = train(workdir, tiny_food, "--train.epochs", "100", processes=2, devices=2)
    wait_for_an_epoch(workdir, running)
    running[1].send_signal(signal.SIGINT)
    finished = ends(running)
    assert [status for status, _, _ in finished] == [130, 130]
    lines = {told.splitlines()[-1] for _, _, told in finished}
    assert len(lines) == 1
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    assert lines.pop().startswith(f"interrupted at step {step}, saved")
