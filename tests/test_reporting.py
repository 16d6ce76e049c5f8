"""logging.report: when RUN/report.html is written while a run is trained, and what happens where it cannot be."""

import dataclasses
import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_run

from jaxfood import processes
from jaxfood.config import Config, load_config
from jaxfood.config.sections import LoggingConfig
from jaxfood.errors import UserError
from jaxfood.files import write_whole
from jaxfood.runs.directory import begin
from jaxfood.train import train_and_evaluate
from jaxfood.training import reporting as subject
from jaxfood.training.logbook import Logbook, Stopwatch
from jaxfood.training.reporting import no_report, reporting

QUIET = LoggingConfig(progress=False)


def line(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "step": epoch * 3, "train_loss": 1.0}


class Pages:
    """Stands for `write_training_report`: how many lines of metrics.jsonl there were, and whether it was the end."""

    def __init__(self, *errors: Exception | None) -> None:
        self.written: list[tuple[int, bool]] = []
        self._errors = list(errors)

    def __call__(self, workdir: Path, seconds: Mapping[str, float] | None) -> None:
        self.written.append((len((workdir / "metrics.jsonl").read_text().splitlines()), seconds is None))
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error


def test_at_once_after_each_line_and_at_the_end(tmp_path: Path) -> None:
    pages, watch = Pages(), Stopwatch()
    book = Logbook(tmp_path, QUIET)
    with reporting(book, tmp_path, pages, watch):
        book.metrics(line(1))
        book.metrics(line(1))  # known already: nothing new to show
        book.metrics(line(2))
    assert pages.written == [(0, False), (1, False), (2, False), (2, True)]
    assert watch.seconds["report"] > 0


def test_the_last_page_is_written_however_the_training_ends(tmp_path: Path) -> None:
    pages = Pages()
    with pytest.raises(KeyboardInterrupt), reporting(Logbook(tmp_path, QUIET), tmp_path, pages, Stopwatch()):
        raise KeyboardInterrupt
    assert pages.written == [(0, False), (0, True)]


def test_a_page_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    full = [OSError(errno.ENOSPC, "No space left on device")] * 2
    pages = Pages(*full, UserError("config.toml is damaged"), None)
    book = Logbook(tmp_path, QUIET)
    with reporting(book, tmp_path, pages, Stopwatch()):
        book.metrics(line(1))
        book.metrics(line(2))
    assert (tmp_path / "log.txt").read_text().splitlines() == [
        "report.html not written: the disk is full",
        "report.html not written: config.toml is damaged",
    ]
    assert len(pages.written) == 4


def test_other_processes_write_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_first", lambda: False)
    pages, book = Pages(), Logbook(tmp_path, QUIET)
    with reporting(book, tmp_path, pages, Stopwatch()):
        book.metrics(line(1))
    assert pages.written == []


def test_in_a_bucket_not_more_than_every_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(subject, "is_remote", lambda path: True)
    monkeypatch.setattr(subject.time, "monotonic", lambda: now)
    pages, book = Pages(), Logbook(tmp_path, QUIET)
    with reporting(book, tmp_path, pages, Stopwatch()):
        book.metrics(line(1))  # in the same second
        now += subject.SECONDS_BETWEEN_WRITES
        book.metrics(line(2))
    assert pages.written == [(0, False), (2, False), (2, True)]


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path) -> None:
    book, watch = Logbook(tmp_path, QUIET), Stopwatch()
    with reporting(book, tmp_path, no_report, watch):
        book.metrics(line(1))
    assert watch.seconds == {}


# In a training.


def with_(config: Config, **sections: dict[str, Any]) -> Config:
    new = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(config, **new)


@pytest.fixture(scope="module")
def config(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    small = ("model.name=resnet", "model.width=8", "model.blocks=1", "data.image_size=32")
    settings = (*small, "train.batch_size=8", "train.epochs=2", "device.count=1", "logging.progress=false")
    cache = f"data.cache_dir={tmp_path_factory.mktemp('cache')}"
    return load_config(None, (f"data.root={tiny_food}", *settings, cache, "logging.report=true"))


def shown(page: Path) -> str:
    return re.sub("<[^>]*>", "\n", page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_training_and_its_resumption(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    states = []

    def write(path: Path, content: str) -> None:
        if path.name == "report.html":
            states.append(re.search(r"(training: epoch|finished:|not finished:) \d", content)[0])  # type: ignore[index]
        write_whole(path, content)

    monkeypatch.setattr("jaxfood.report.html.write_whole", write)
    train_and_evaluate(config, run)
    training = "training: epoch"
    assert states == [f"{training} 0", f"{training} 1", f"{training} 2", "finished: 2"] or states == [
        f"{training} 0",
        f"{training} 1",
        "finished: 2",
        "finished: 2",
    ]
    page = shown(run / "report.html")
    assert "21 training and 9 validation pictures of 3 classes, 32 px" in page
    assert "logging.\nreport" in page
    states.clear()
    longer = with_(config, train={"epochs": 3})
    train_and_evaluate(longer, run, resume=True)
    assert states[-1] == "finished: 3"
    assert "report.html not written" not in capsys.readouterr().out


def test_a_run_that_is_replaced_takes_its_page_with_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "report.html").touch()
    begin(run, ["a", "b"], overwrite=True)
    assert not (run / "report.html").exists()


@pytest.mark.slow
def test_folds_have_a_page_each_and_one_together(config: Config, tmp_path: Path) -> None:
    folds = with_(config, train={"epochs": 1, "folds": 2})
    train_and_evaluate(folds, tmp_path / "whole")
    assert "fold1" in shown(tmp_path / "whole" / "fold1" / "report.html")
    together = shown(tmp_path / "whole" / "report.html")
    assert "2 runs compared" in together
    assert "Cross-validation, 2 of 2 folds" in together
