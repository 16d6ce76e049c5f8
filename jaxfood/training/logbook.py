"""What a run tells: lines on the terminal and in log.txt, metrics.jsonl, trackers, the progress bar."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from jaxfood import processes
from jaxfood.config.sections import LoggingConfig
from jaxfood.errors import UserError, printable
from jaxfood.files import Lines, read_bytes, reason, write_whole
from jaxfood.runs.directory import LOG, METRICS
from jaxfood.training.failures import check_there
from jaxfood.training.metrics import finite_or_none
from jaxfood.training.trackers.configured import open_trackers
from jaxfood.training.trackers.writer import Outcome, Scalars, Tracked, TrackerError, Writer


class Logbook:
    """The records of one run, going on from `step`."""

    def __init__(
        self,
        workdir: Path,
        logging: LoggingConfig,
        step: int = 0,
        introduction: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Go on with the records of a run.

        Args:
            workdir: the run.
            logging: what is shown.
            step: what was recorded after it is dropped.
            introduction: lines that the terminal has shown already, for log.txt.
            settings: the run's, for trackers: `section.field` and the value of each.

        Raises:
            UserError: a tracker cannot begin.
        """
        self._progress = logging.progress
        records, damaged = _parse_metrics(workdir / METRICS)
        kept = [record for record in records if record["step"] <= step]
        write_whole(workdir / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
        self._recorded = {record["step"] for record in kept}
        self.after_record: Callable[[], None] = lambda: None  # called when a line of metrics.jsonl is written
        self._log, self._metrics = Lines(workdir / LOG), Lines(workdir / METRICS)
        for text in introduction:
            self._log.add(printable(text))
        if damaged:
            self.line(f"{workdir / METRICS}: {damaged} lines were no records and are left out")
        epochs = {record["step"]: _scalars(record) for record in kept}
        self._writers = open_trackers(logging, Tracked(workdir, settings or {}, step, epochs, self.line))
        self._draws = importlib.util.find_spec("matplotlib") is not None
        if self._writers and not self._draws:
            self.line("no confusion matrix for the trackers, as matplotlib is missing: pip install 'jaxfood[lessons]'")

    def line(self, text: str) -> None:
        """A line on standard output and in log.txt, whatever names stand in it."""
        text = printable(text)
        tqdm.write(text)
        self._log.add(text)

    def epoch(self, record: Mapping[str, Any], epochs: int, *, best: bool) -> None:
        """The line on an epoch of so many."""
        share = record.get("pseudo_label_share")
        taken = "" if share is None else f"pseudo-labels for {share:.1%} of the unlabelled, "
        self.line(
            f"epoch {record['epoch']}/{epochs}: "
            f"train loss {record['train_loss']:.4f} accuracy {record['train_accuracy']:.4f}, "
            f"valid loss {record['valid_loss']:.4f} accuracy {record['valid_accuracy']:.4f}, {taken}"
            f"{record['seconds']:.1f} s, {record['images_per_second']:.0f} images/s{', new best' if best else ''}"
        )

    def metrics(self, record: Mapping[str, Any], confusion: "Confusion | None" = None) -> None:
        """A line of metrics.jsonl and the trackers' scalars, unless that step has them; for them the confusion too."""
        if record["step"] in self._recorded:
            return
        self._recorded.add(record["step"])
        record = finite_or_none(record)
        self._metrics.add(json.dumps(record, allow_nan=False))
        self._flush()
        step = record["step"]
        self._tell(lambda writer: writer.add_scalars(_scalars(record), step))
        if confusion is not None and self._writers and self._draws:
            pixels = confusion.draw(f"validation after epoch {record['epoch']}: {record['valid_accuracy']:.1%}")
            self._tell(lambda writer: writer.add_picture("confusion", pixels, step))
        self.after_record()

    def _tell(self, what: Callable[[Writer], None]) -> None:
        for writer in list(self._writers):
            try:
                what(writer)
            except TrackerError as error:
                self._writers.remove(writer)
                self.line(f"{error}: going on without it; {METRICS} has all numbers")

    def bar(self, total: int, description: str, start: int = 0) -> "Bar":
        """A progress bar over the steps of an epoch."""
        return Bar(total, description, start, shown=self._progress)

    def close(self, outcome: Outcome = "finished") -> None:
        self._flush()
        self._tell(lambda writer: writer.close(outcome))
        self._flush()

    def _flush(self) -> None:
        self._log.flush()
        self._metrics.flush()


@contextmanager
def open_logbook(
    workdir: Path,
    logging: LoggingConfig,
    step: int,
    introduction: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Iterator["Logbook"]:
    """That of the first process, which records for all; arguments as `Logbook`; closed at the end of a `with`.

    Raises:
        UserError: what it writes cannot be written, here and within the `with`.
    """
    try:
        first = processes.is_first()
        logbook = Logbook(workdir, logging, step, introduction, settings) if first else NoLogbook()
        with _closing(logbook):
            yield logbook
    except OSError as error:
        check_there(workdir)
        raise UserError(
            f"cannot write in {workdir} ({reason(error)}): mend that, then go on with --resume; the checkpoints that "
            "are there stand"
        ) from error


@contextmanager
def _closing(logbook: "Logbook") -> Iterator[None]:
    outcome: Outcome = "failed"
    try:
        yield
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        logbook.close(outcome)


class NoLogbook(Logbook):
    """That of the other processes: it keeps nothing and shows nothing."""

    def __init__(self) -> None:
        self._progress = False

    def line(self, text: str) -> None:
        pass

    def metrics(self, record: Mapping[str, Any], confusion: "Confusion | None" = None) -> None:
        pass

    def close(self, outcome: Outcome = "finished") -> None:
        pass


class Confusion(NamedTuple):
    """How an evaluation went, class by class.

    Attributes:
        counts: pictures, [num_classes, num_classes]; rows are the truth, columns the answers.
        classes: their names.
    """

    counts: np.ndarray
    classes: Sequence[str]

    def draw(self, title: str) -> np.ndarray:
        """As a picture, uint8 [H, W, 3]."""
        from jaxfood.report.confusion import confusion_pixels

        return confusion_pixels(self.counts, self.classes, title)


def _scalars(record: Mapping[str, Any]) -> Scalars:
    """The numbers of an epoch's record that are there."""
    return {name: value for name, value in record.items() if name not in ("epoch", "step") and value is not None}


class Bar:
    """A progress bar that reads the metrics, and so waits for the device, after about a second of the device's work.

    Between readings steps queue up. Whether the bar is shown or not, the readings keep the queue short: Ctrl-C is
    heard, and its batches do not fill the memory.
    """

    def __init__(self, total: int, description: str, start: int, *, shown: bool) -> None:
        self._bar = tqdm(total=total, initial=start, desc=description, unit="step", leave=False, disable=not shown)
        self._done = start
        self._last = time.perf_counter()
        self._seconds_per_step = 1.0  # until measured: the first step is read

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, step: int, read: Callable[[], Mapping[str, float]]) -> None:
        """Step `step` was started; `read()` waits for it and gives the metrics to show."""
        queued = step - self._done
        if queued * self._seconds_per_step < 1 and time.perf_counter() - self._last < 1:
            return
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in read().items()}, refresh=False)
        self._bar.update(queued)
        now = time.perf_counter()
        self._done, self._last, self._seconds_per_step = step, now, (now - self._last) / queued


class Stopwatch:
    """Seconds spent on each kind of work; what is timed inside another is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._inner = 0.0  # seconds of finished work inside the one that is being timed

    @contextmanager
    def __call__(self, work: str) -> Iterator[None]:
        start, before = time.perf_counter(), self._inner
        self._inner = 0.0
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[work] = self.seconds.get(work, 0.0) + seconds - self._inner
            self._inner = before + seconds

    def split(self) -> str:
        """For example "decode 3.1 s, train 90.2 s, other 0.4 s"."""
        total = time.perf_counter() - self._started
        other = total - sum(self.seconds.values())
        return ", ".join(f"{work} {seconds:.1f} s" for work, seconds in (self.seconds | {"other": other}).items())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; what is no record is left out."""
    return _parse_metrics(path)[0]


def _parse_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many lines before the last are none: that may be torn, where a process died."""
    try:
        lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return [], 0
    records, damaged = [], 0
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or type(record["step"]) is not int:
                raise ValueError("no record")
            records.append(record)
        except (ValueError, KeyError, RecursionError):
            damaged += number < len(lines) - 1
    return records, damaged
