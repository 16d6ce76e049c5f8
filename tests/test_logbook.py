"""What a run tells: metrics.jsonl over crashes and resumes, log.txt, TensorBoard, the bar and the stopwatch."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxfood.config.sections import LoggingConfig
from jaxfood.errors import UserError
from jaxfood.training import logbook
from jaxfood.training.logbook import Logbook, Stopwatch, read_metrics
from jaxfood.training.trackers.configured import check_trackers

QUIET = LoggingConfig(progress=False)


def record(epoch: int, **more: float) -> dict[str, Any]:
    return {"epoch": epoch, "step": epoch * 3, "train_loss": 1 / epoch, "valid_accuracy": 0.1 * epoch} | more


def stored(workdir: Path) -> list[dict[str, Any]]:
    """Strictly: every line whole."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# metrics.jsonl.


def test_a_line_an_epoch(tmp_path: Path) -> None:
    book = Logbook(tmp_path, QUIET)
    assert stored(tmp_path) == []
    for epoch in (1, 2):
        book.metrics(record(epoch))
        assert stored(tmp_path)[-1] == record(epoch)  # at once, not when it is closed
    book.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == stored(tmp_path) == [record(1), record(2)]


def test_a_step_is_never_recorded_twice(tmp_path: Path) -> None:
    book = Logbook(tmp_path, QUIET)
    book.metrics(record(1))
    book.metrics(record(1, train_loss=77.0))
    again = Logbook(tmp_path, QUIET, step=3)
    again.metrics(record(1, train_loss=77.0))
    again.metrics(record(2))
    assert stored(tmp_path) == [record(1), record(2)]


def test_going_on_drops_later_lines(tmp_path: Path) -> None:
    """Epoch 3 was recorded, but the run goes on from an earlier checkpoint and will come to it again."""
    book = Logbook(tmp_path, QUIET)
    for epoch in (1, 2, 3):
        book.metrics(record(epoch))
    again = Logbook(tmp_path, QUIET, step=7)  # inside epoch 3
    assert stored(tmp_path) == [record(1), record(2)]
    again.metrics(record(3, train_loss=5.0))
    assert stored(tmp_path) == [record(1), record(2), record(3, train_loss=5.0)]


@pytest.mark.parametrize("torn", ['{"epoch": 2, "st', '{"epoch": 2, "step": 6}garbage', "\0\0\0\0", "{", ""])
def test_going_on_drops_a_torn_line(torn: str, tmp_path: Path) -> None:
    text = json.dumps(record(1)) + "\n" + torn
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    book = Logbook(tmp_path, QUIET, step=6)
    assert stored(tmp_path) == [record(1)]
    book.metrics(record(2))
    assert stored(tmp_path) == [record(1), record(2)]


def test_a_torn_line_in_the_middle_loses_nothing_after_it(tmp_path: Path) -> None:
    lines = [json.dumps(record(1)), '{"epoch": 2, "st', json.dumps(record(3))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Logbook(tmp_path, QUIET, step=9)
    assert stored(tmp_path) == [record(1), record(3)]


def test_metrics_of_no_run_are_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


# log.txt.


def test_a_line_goes_to_the_terminal_and_to_log_txt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Logbook(tmp_path, QUIET).line("epoch 1: 食べ物")
    Logbook(tmp_path, QUIET, step=3).line("going on")
    assert capsys.readouterr().out == "epoch 1: 食べ物\ngoing on\n"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "epoch 1: 食べ物\ngoing on\n"


# TensorBoard.


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)


def test_tensorboard_is_optional(tmp_path: Path, without_tensorboard: None) -> None:
    check_trackers(QUIET)
    book = Logbook(tmp_path, QUIET)
    book.metrics(record(1))
    book.close()
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_that_is_not_installed_is_the_users_mistake(without_tensorboard: None) -> None:
    with pytest.raises(UserError, match=r"logging\.tensorboard = true needs tensorboardX: pip install 'jaxfood\["):
        check_trackers(LoggingConfig(tensorboard=True))


def test_scalars_go_to_tensorboard_at_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append(("open", Path(folder), purge_step))

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            calls.append((tag, scalar_value, global_step))

        def close(self) -> None:
            calls.append(("close",))

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    book = Logbook(tmp_path, LoggingConfig(progress=False, tensorboard=True), step=3)
    for _ in range(2):
        book.metrics(record(2))
    book.close()
    assert calls == [
        ("open", tmp_path / "tensorboard", 4),  # what an earlier attempt wrote after step 3 is dropped
        ("train_loss", 0.5, 6),
        ("valid_accuracy", 0.2, 6),
        ("close",),
    ]


def test_tensorboardx_writes_its_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="an optional extra")
    check_trackers(LoggingConfig(tensorboard=True))
    book = Logbook(tmp_path, LoggingConfig(progress=False, tensorboard=True))
    book.metrics(record(1))
    book.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"valid_accuracy" in file.read_bytes()


# The bar and the stopwatch.


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(("seconds", "expected"), [(0.1, (4, 7)), (3.0, (50, 50))])
def test_the_bar_reads_about_once_a_second_of_the_devices_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool, seconds: float, expected: tuple[int, int]
) -> None:
    """The host starts steps at once, the device takes its time for each, and a reading waits for the device."""
    clock, device = SimpleNamespace(now=100.0), SimpleNamespace(busy_until=100.0)
    monkeypatch.setattr(logbook, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    reads = []

    def read() -> dict[str, float]:
        clock.now = max(clock.now, device.busy_until)
        reads.append(clock.now)
        return {"loss": 0.5}

    with Logbook(tmp_path, LoggingConfig(progress=shown)).bar(1000, "epoch 1/8", start=100) as bar:
        for step in range(101, 151):
            clock.now += 0.001
            device.busy_until = max(device.busy_until, clock.now) + seconds
            bar.update(step, read)
    assert expected[0] <= len(reads) <= expected[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The logbook's time, told by the test."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(logbook, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_the_stopwatch_adds_up_each_kind_of_work(clock: SimpleNamespace) -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch("train"):
            clock.now += 0.25
        clock.now += 1
    with pytest.raises(ValueError, match="x"), watch("save"):
        raise ValueError("x")
    assert watch.seconds == {"train": 0.5, "save": 0}
    assert watch.split() == "train 0.5 s, save 0.0 s, other 2.0 s"


def test_work_inside_other_work_is_not_counted_twice(clock: SimpleNamespace) -> None:
    """As `save` inside `train`: the parts and the rest must add up to the whole."""
    watch = Stopwatch()
    with watch("train"):
        clock.now += 2
        with watch("save"):
            clock.now += 5
        clock.now += 1
    assert watch.seconds == {"train": 3, "save": 5}
