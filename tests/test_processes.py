"""Several processes on this machine: they start, miss each other, stop together, and train what one would train."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxfood import monitor
from jaxfood.config.distributed import DistributedConfig
from jaxfood.data.decode import decode_picture
from jaxfood.errors import UserError
from jaxfood.monitor import LOST, Status, process_of, read_status
from jaxfood.processes import _check_same, _read_count, _read_told, _within
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


def join(*arguments: str, coordinator: str = "") -> list[tuple[int, str, str]]:
    """What processes end with that are given COUNT PROCESS TIMEOUT [VERSION]."""
    where = coordinator or f"localhost:{free_port()}"
    return ends([start(WORKER, "join", where, *each.split()) for each in arguments], 60)


def run_steps(*behaviours: str) -> list[tuple[int, str, str]]:
    where, count = f"localhost:{free_port()}", len(behaviours)
    return ends([start(WORKER, "steps", where, count, process, what) for process, what in enumerate(behaviours)], 90)


def lost(problem: str) -> str:
    return f"error: {problem}, so this one stops too; start all again with --resume to go on\n"


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


# What strangers who reach the coordinator's port may write into its store.

OURS = json.dumps(asdict(Status(3, 1, False, 7, "")))


def changed(**values: object) -> str:
    return json.dumps({**json.loads(OURS), **values})


def test_a_process_reads_what_another_showed() -> None:
    assert read_status(OURS) == Status(3, 1, False, 7, "")
    assert read_status(json.dumps(asdict(Status()))) == Status()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", "[" * 100_000, "9" * 5000, "\x00", OURS + " " * 10**6),
        *("{}", '{"looks": 1}', changed(more=1), json.dumps([OURS])),
        *(changed(**{name: value}) for name in ("looks", "work", "step") for value in ("1", True, 0.5, -2, 10**30)),
        *(changed(**{name: value}) for name in ("wants_stop", "end") for value in (1, None, {})),
    ],
    ids=lambda text: text[:40],
)
def test_a_strangers_value_is_no_status(text: str) -> None:
    assert read_status(text) is None


def test_a_strangers_key_is_no_process() -> None:
    for number in ("", "-1", "2", "02", "1 ", "1.0", "٣", "x", "9" * 5000, "../0x"):
        assert process_of(f"jaxfood/status/{number}", 2) is None
    assert [process_of(f"jaxfood/status/{own}", 2) for own in (0, 1)] == [0, 1]


def test_among_strangers_values_a_monitor_sees_its_own_and_misses_whom_they_replace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = {"jaxfood/status/1": json.dumps(asdict(Status(1)))}
    client = SimpleNamespace(
        key_value_set=lambda key, value, overwrite: store.__setitem__(key, value),
        key_value_dir_get=lambda folder: [*store.items(), ("jaxfood/status/7", OURS), ("jaxfood/status/x", "{")],
    )
    monkeypatch.setattr(monitor, "service", lambda: SimpleNamespace(client=client, process_id=0, num_processes=2))
    monkeypatch.setattr(monitor, "catch_abort", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    watcher, lost_ones = monitor.Monitor(), []
    monkeypatch.setattr(watcher, "lose", lambda process, *how: lost_ones.append(process))
    assert watcher._seen.keys() == {0, 1}
    store["jaxfood/status/1"] = "[" * 100_000
    for _ in range(monitor._DEAD):
        assert lost_ones == []
        watcher.status.looks += 1
        watcher._look()
        watcher._agree()
        watcher._miss()
    assert lost_ones == [1]


def test_what_no_process_told_is_one_line() -> None:
    for text in ("", "{", "[]", '["a"]', '["a", 1]', '["a", "b", "c"]', "[" * 100_000, '{"0": "a"}'):
        with pytest.raises(
            UserError, match=r"^what process 1 is to tell the others was told by somebody else"
        ) as error:
            _read_told(text, 1)
        assert "\n" not in str(error.value)
    assert _read_told('["a", ""]', 1) == ("a", "")


def test_what_is_no_count_of_processes() -> None:
    for text in ("", "0", "-1", "2.0", "x", "9" * 5000, "٣"):
        with pytest.raises(UserError, match="process 0 tells no number of processes"):
            _read_count(text)
    assert _read_count("12") == 12


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_asked() -> None:
    with pytest.raises(TimeoutError):
        _within(0.05, lambda: time.sleep(5))
    with pytest.raises(UnicodeError):
        _within(5, lambda: "a..b".encode("idna"))
    assert _within(5, lambda: 3) == 3


def test_texts_that_look_alike_are_said_to_differ() -> None:
    texts = [json.dumps({"data.train": unicodedata.normalize(form, "Café")}) for form in ("NFC", "NFD")]
    with pytest.raises(UserError, match=r"they look the same, but the accents of the first are NFC and"):
        _check_same(texts)


def test_process_0_cannot_listen_where_another_does_or_where_it_is_not() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        places = (f"localhost:{listener.getsockname()[1]}", f"192.0.2.1:{free_port()}")
        for place in places:
            [(status, _, told)] = join("2 0 60", coordinator=place)
            assert status == 2
            assert told.startswith(f"error: distributed.coordinator = {place}: process 0 cannot listen there")
            assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_process_0_waits_at_its_own_address_alone_and_until_interrupted() -> None:
    port = free_port()
    running = start(WORKER, "join", f"127.0.0.1:{port}", 2, 0, 60)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except ConnectionRefusedError:  # it has not come so far
            time.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=1)
    running.send_signal(signal.SIGINT)
    assert ends([running], 30) == [(130, "", "interrupted\n")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("3 0 3", "3 2 6"), "(not all processes came to|process 0 does not answer at) .* within [36] s"),
        (("2 1 2",), r"process 0 does not answer at localhost:\d+ within 2 s"),
        (("2 0 30", "3 1 30"), "distributed.num_processes is 2 in process 0 and 3 in process 1"),
        (("2 0 30", "2 1 30 0.0.1"), "jaxfood is .* in process 0 and 0.0.1 in process 1"),
    ],
)
def test_mistakes_at_the_start_are_one_line_in_all(arguments: tuple[str, ...], told: str) -> None:
    for status, _, said in join(*arguments):
        assert status == 2
        assert re.fullmatch(f"error: {told}.*\n", said)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("3 0 6", "3 1 6", "3 1 6"), ("2 0 6", "3 2 6")])
def test_one_that_process_0_refuses_is_told(arguments: tuple[str, ...]) -> None:
    finished = join(*arguments)
    assert {status for status, _, _ in finished} == {2}
    [refused] = [told for _, _, told in finished if "refused" in told]
    assert refused.splitlines()[-1].startswith("error: process 0 refused this one")


@pytest.mark.slow
def test_all_stop_at_one_step_that_none_has_passed() -> None:
    finished = run_steps("work", "signal", "signal")
    assert [status for status, _, _ in finished] == [0, 0, 0], finished
    stops = {out for _, out, _ in finished}
    assert len(stops) == 1
    assert int(stops.pop()) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["own", "twice", "own twice"])
def test_all_stop_where_the_program_started_jax_itself_and_in_each_of_its_trainings(how: str) -> None:
    finished = run_steps(how, f"{how} signal")
    assert [status for status, _, _ in finished] == [0, 0], finished
    assert finished[0][1] == finished[1][1]
    assert len(finished[0][1].split()) == (2 if "twice" in how else 1)


@pytest.mark.slow
def test_a_death_ends_the_others_with_one_line() -> None:
    (first, _, told_first), (died, _, _), (third, _, told_third) = run_steps("work", "die", "gloo")
    assert (first, died, third) == (LOST, -signal.SIGKILL, LOST)
    assert told_first == told_third == lost("process 1 has died or can no longer be reached")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["", "own"])
def test_the_death_of_process_0_ends_the_others_with_the_line_after_what_jax_says(how: str) -> None:
    _, *others = run_steps(f"{how} die", how, how)
    for status, _, told in others:
        assert status == LOST
        assert told.endswith(lost("process 0 has died or can no longer be reached"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviours", "statuses", "reason"),
    [
        (("work", "mistake", "mistake"), [LOST, 2, 2], "process [12] has stopped \\(error: a mistake\\)"),
        (("mistake", "work", "work"), [2, LOST, LOST], "process 0 has stopped \\(error: a mistake\\)"),
        (("work", "fault"), [LOST, 1], "process 1 has stopped \\(by a fault that its own output shows\\)"),
        (("exit", "work"), [1, LOST], "process 0 has stopped \\(by a fault that its own output shows\\)"),
        (("end and wait", "end"), [LOST, LOST], "process (1 has stopped \\(its own work was done\\)|0 has died .*)"),
    ],
)
def test_one_that_ends_early_says_why(behaviours: tuple[str, ...], statuses: list[int], reason: str) -> None:
    finished = run_steps(*behaviours)
    assert [status for status, _, _ in finished] == statuses, finished
    for status, _, told in finished:
        if status == LOST:
            assert re.fullmatch(f"error: {reason}, so this one stops too; .*", told.splitlines()[-1])


@pytest.mark.slow
def test_the_end_of_one_whose_work_is_done_is_no_death() -> None:
    finished = run_steps("end late", "end")
    assert [(status, told) for status, _, told in finished] == [(0, ""), (0, "")]


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


@pytest.mark.slow
def test_processes_know_and_tell_each_other(findings: list[dict[str, Any]]) -> None:
    assert [found["count"] for found in findings] == [2, 2]
    assert [found["first"] for found in findings] == [True, False]
    for found in findings:
        assert found["shared"] == [["from 0", "from 1"], ["", ""]]
        assert found["folders"] == [True, False]


@pytest.mark.slow
def test_a_mistake_in_one_is_raised_in_all(findings: list[dict[str, Any]]) -> None:
    for found in findings:
        assert found["mistakes"] == ["", "process 0: no such disk", "process 1: no such disk", "no such disk"]
        assert found["difference"] == "other is 0 in process 0 and 1 in process 1: start all processes with the same"


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_the_first_decoded_is_what_the_others_read(findings: list[dict[str, Any]], tmp_path: Path) -> None:
    pictures = save_pictures(tmp_path)
    expected = [decode_picture(pictures / f"0_{number}.png", 16) for number in (0, 2, 3, 4, 5)]
    np.testing.assert_array_equal(np.array(findings[1]["decoding"]["images"]), expected)


@pytest.mark.slow
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
        *("--augment.flip", "true", "--augment.mixup", 0.4, "--augment.cutmix", 1.0),
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
    finished = ends(train(workdir, tiny_food, "--train.steps_per_call", "2", processes=2, devices=2))
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
    more = ("--train.epochs", "100", "--train.steps_per_call", "2")  # of three in an epoch
    running = train(workdir, tiny_food, *more, processes=2, devices=2)
    wait_for_an_epoch(workdir, running)
    running[1].send_signal(signal.SIGINT)
    finished = ends(running)
    assert [status for status, _, _ in finished] == [130, 130]
    lines = {told.splitlines()[-1] for _, _, told in finished}
    assert len(lines) == 1
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    assert lines.pop().startswith(f"interrupted at step {step}, saved")


@pytest.mark.slow
def test_sigterm_stops_a_training_whose_program_started_jax_itself(tiny_food: Path, tmp_path: Path) -> None:
    workdir, where = tmp_path / "run", f"localhost:{free_port()}"
    running = [start(WORKER, "own_training", where, 2, process, tiny_food, workdir) for process in range(2)]
    wait_for_an_epoch(workdir, running)
    running[1].send_signal(signal.SIGTERM)
    finished = ends(running, 60)
    assert [status for status, _, _ in finished] == [0, 0], finished
    lines = {out.splitlines()[-1] for _, out, _ in finished}
    assert len(lines) == 1
    assert re.match(r" at step \d+, saved; go on with", lines.pop())
