"""What a report tells of a run, read from its directory."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxfood.config.sections import Config, DataConfig
from jaxfood.errors import UserError
from jaxfood.files import read_bytes, reason
from jaxfood.places import entries, is_file
from jaxfood.report.html.numbers import plain
from jaxfood.runs.directory import FORMAT_FILE, LANDSCAPE, LOG, METRICS, is_folds, is_run, read_config
from jaxfood.runs.folds import FOLDS, folders_of_folds, is_fold, read_folds
from jaxfood.runs.progress import Progress
from jaxfood.training.logbook import read_metrics

Remark = tuple[str, tuple[object, ...]]  # a key of `words`, and what is filled in
Record = dict[str, Any]  # a line of metrics.jsonl

_START = re.compile(
    r": (\d+) training(?:, \d+ unlabelled)? and (\d+) validation pictures of (\d+) classes, (\d+) px; "
    r"jaxfood (\S+), jax (\S+) on (.+)$"
)


@dataclass(frozen=True)
class Start:
    """What the first line of a start in log.txt tells."""

    train: int
    valid: int
    classes: int
    pixels: int
    jaxfood: str
    jax: str
    devices: str


@dataclass(frozen=True)
class Log:
    """What log.txt tells: each start of the training, the seconds of each kind of work, and the lines themselves."""

    starts: tuple[Start, ...] = ()
    seconds: Mapping[str, float] | None = None  # of the starts that came to the training's end; None: of none yet
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Landscape:
    """RUN/landscape: the content of landscape.json, and its pictures by the names of their files."""

    numbers: Mapping[str, Any]
    pictures: Mapping[str, bytes]


@dataclass(frozen=True)
class RunRecord:
    """A run as a report shows it.

    Attributes:
        name: told apart from the other runs of the report.
        workdir: its directory.
        config: its settings.
        records: its epochs, in order.
        progress: after the last of them: the best epoch, and whether the run is over.
        parameters: numbers that its network learns.
        made_by: the version of jaxfood that began it; "" where it does not tell.
        log: log.txt.
        landscape: where it was measured.
        remarks: what could not be read.
    """

    name: str
    workdir: Path
    config: Config
    records: list[Record]
    progress: Progress
    parameters: int
    made_by: str
    log: Log
    landscape: Landscape | None
    remarks: tuple[Remark, ...]

    @property
    def best(self) -> Record | None:
        """The record of the best epoch."""
        return next((record for record in self.records if record.get("epoch") == self.progress.best_epoch), None)

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return int(self.records[-1].get("epoch", 0)) if self.records else 0

    @property
    def is_stopped_early(self) -> bool:
        return self.progress.is_stale(self.config.train) and self.epochs < self.config.train.epochs

    @property
    def is_over(self) -> bool:
        return self.is_stopped_early or self.epochs >= self.config.train.epochs


def read_runs(workdirs: Iterable[Path]) -> list[RunRecord]:
    """What is to be shown of runs; a directory of folds stands for those of its folds that have begun.

    Raises:
        UserError: one of them is no run, or its settings or records cannot be read.
    """
    found: list[Path] = []
    for workdir in workdirs:
        found += [fold for fold in folders_of_folds(workdir) if is_run(fold)] if is_folds(workdir) else [workdir]
    return [_read_run(workdir, name) for workdir, name in zip(found, _names(found), strict=True)]


def read_known_folds(workdir: Path) -> dict[str, Any] | None:
    """What folds.json tells of a directory of folds; None of a run.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    if not is_folds(workdir):
        return None
    read_folds(workdir)  # refuses what is damaged
    return json.loads(read_bytes(workdir / FOLDS))


def _names(workdirs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are told apart; that of a fold names whose it is."""
    for parts in range(1, 1 + max((len(path.parts) for path in workdirs), default=0)):
        names = ["/".join(path.parts[-max(parts, 1 + is_fold(path)) :]) for path in workdirs]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in workdirs]  # the same run twice


def _read_run(workdir: Path, name: str) -> RunRecord:
    config = read_config(workdir)
    remarks: list[Remark] = []
    try:
        records = [record for record in read_metrics(workdir / METRICS) if type(record.get("epoch")) is int]
        damaged = len(read_bytes(workdir / METRICS).splitlines()) - len(records) if records else 0
    except OSError as error:
        raise UserError(f"cannot read {workdir / METRICS} ({reason(error)}): make it readable") from error
    if damaged:
        remarks.append(("metrics_damaged", (name, damaged)))
    return RunRecord(
        name=name,
        workdir=workdir,
        config=config,
        records=records,
        progress=_replayed(config, records),
        parameters=count_parameters(config),
        made_by=_made_by(workdir),
        log=_or_remark(lambda: _read_log(workdir), Log(), "log_unreadable", name, remarks),
        landscape=_or_remark(lambda: _read_landscape(workdir), None, "landscape_damaged", name, remarks),
        remarks=tuple(remarks),
    )


def _or_remark(read: Callable[[], Any], otherwise: Any, key: str, name: str, remarks: list[Remark]) -> Any:
    try:
        return read()
    except OSError as error:
        remarks.append((key, (name, reason(error))))
    except ValueError as error:
        remarks.append((key, (name, error)))
    return otherwise


def _replayed(config: Config, records: Iterable[Record]) -> Progress:
    """The best epoch, and how many have passed since: as the training itself counts them."""
    progress = Progress(num_train=0, steps_per_epoch=1)
    for record in records:
        accuracy, loss = plain(record.get("valid_accuracy")), plain(record.get("valid_loss"))
        if accuracy is not None and loss is not None:
            progress = progress.after_epoch(record["epoch"], accuracy, loss, config.train.monitor)
    return progress


@lru_cache(maxsize=64)
def _parameters_of(config: Config) -> int:
    import jax

    from jaxfood.model.networks import init_variables

    shapes = jax.eval_shape(lambda: init_variables(config))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def count_parameters(config: Config) -> int:
    """How many numbers a network learns; nothing is computed."""
    return _parameters_of(Config(data=DataConfig(image_size=config.data.image_size), model=config.model))


def _made_by(workdir: Path) -> str:
    try:
        return str(json.loads(read_bytes(workdir / FORMAT_FILE)).get("jaxfood", ""))
    except FileNotFoundError:  # the first versions did not tell
        return ""


def _read_log(workdir: Path) -> Log:
    try:
        lines = read_bytes(workdir / LOG).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:  # nothing has been told yet; weights that came from elsewhere
        return Log()
    starts, seconds = [], dict[str, float]()
    for line in lines:
        if found := _START.search(line):
            train, valid, classes, pixels = map(int, found.groups()[:4])
            starts.append(Start(train, valid, classes, pixels, *found.groups()[4:]))
        elif line.startswith("time: "):
            for work, spent in re.findall(r"(?:^|, )(\w+) (\d+\.\d) s", line.removeprefix("time: ")):
                seconds[work] = seconds.get(work, 0.0) + float(spent)
    return Log(tuple(starts), seconds or None, tuple(lines))


def _read_landscape(workdir: Path) -> Landscape | None:
    folder = workdir / LANDSCAPE
    if not is_file(folder / "landscape.json"):
        return None
    numbers = json.loads(read_bytes(folder / "landscape.json"))
    if not isinstance(numbers, dict):
        raise ValueError("it is no table of numbers")
    names = sorted(path.name for path in entries(folder) if re.fullmatch(r"landscape-\w+\.png", path.name))
    return Landscape(numbers, {name: read_bytes(folder / name) for name in names})
