"""What every tracker is, and what it is told of a run."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from jaxfood.errors import UserError, bounded
from jaxfood.files import read_bytes, write_whole
from jaxfood.runs.directory import TRACKERS
from jaxfood.runs.folds import is_fold

PROJECT = "jaxfood"  # where neither WANDB_PROJECT nor MLFLOW_EXPERIMENT_NAME says otherwise

Outcome = Literal["finished", "interrupted", "failed"]
Scalars = Mapping[str, float]


class TrackerError(Exception):
    """A tracker takes no more, in the middle of a run; the text is one line."""


class Writer(Protocol):
    """A tracker of one run. Its methods raise TrackerError where it takes no more."""

    def add_scalars(self, values: Scalars, step: int) -> None:
        """The numbers of an epoch, which ended with update `step`."""
        ...

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture, uint8 [H, W, 3]."""
        ...

    def close(self, outcome: Outcome) -> None: ...


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run when it begins or goes on.

    Attributes:
        workdir: the run.
        settings: `section.field` and the value of each.
        step: updates done by now.
        epochs: the numbers of the epochs so far, by the step each ended with, for a tracker that is asked for only now.
        say: takes a line for the user.
    """

    workdir: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    epochs: Mapping[int, Scalars] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None

    @property
    def name(self) -> str:
        """The run's name, a fold's with that of the whole."""
        return f"{self.group}/{self.workdir.name}" if self.group else self.workdir.name

    @property
    def group(self) -> str:
        """The name of the directory of folds that it belongs to, if any."""
        return self.workdir.parent.name if is_fold(self.workdir) else ""

    def stored(self, tracker: str) -> str:
        """The id under which a tracker has this run; "" where it has none yet."""
        return str(_read_ids(self.workdir).get(tracker, ""))

    def store(self, tracker: str, name: str) -> None:
        """Keep the id under which a tracker has this run from now on."""
        ids = {**_read_ids(self.workdir), tracker: name}
        write_whole(self.workdir / TRACKERS, json.dumps(ids, indent=2) + "\n")


def _read_ids(workdir: Path) -> dict[str, Any]:
    try:
        ids = json.loads(read_bytes(workdir / TRACKERS))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{workdir / TRACKERS} is damaged: restore it, or remove it and trackers begin anew") from None
    return ids if isinstance(ids, dict) else {}


@contextmanager
def going_on(tracker: str) -> Iterator[None]:
    """What goes wrong in the middle of a run ends the tracker, not the run."""
    try:
        yield
    except Exception as error:  # of whatever lies below: sockets, databases, disks
        raise TrackerError(f"{tracker} takes no more ({in_one_line(error)})") from error


def in_one_line(error: object) -> str:
    """What an error says, for a message."""
    return bounded(" ".join(str(error).split()) or type(error).__name__, 300)
