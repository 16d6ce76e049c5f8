"""Which states of a training are saved when, and the lines of metrics.jsonl that wait for it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxfood.config.sections import CheckpointConfig
from jaxfood.devices import replicated
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.progress import Progress
from jaxfood.runs.steps import metrics_of, rank
from jaxfood.training.metrics import Sums
from jaxfood.training.saved import save_state
from jaxfood.training.state import TrainState


class Snapshot(NamedTuple):
    """What a checkpoint is made of, after `step` updates; the metrics are those of an evaluation, if there was one."""

    step: int
    state: TrainState
    sums: Sums
    progress: Progress
    accuracy: float | None = None
    loss: float | None = None  # where that tells the best

    @property
    def rank(self) -> tuple[float, float]:
        return rank(metrics_of(self.step, self.accuracy, self.loss))


class Saver:
    """Saves the states that are given to it, or keeps copies of the best until the next save.

    With `checkpoint.interval` > 1 most epochs are not saved as they end. Those among them that are to be kept as the
    best wait as copies on the devices, at most `keep_best` of them, and go to the disk before the next state that is
    saved. So after each save there is on disk what saving every epoch would have left there, and the interval decides
    nothing but how much a killed process loses. (Saving each new best at once would be simpler, but at the beginning
    nearly every epoch is one; and if only saved epochs could be the best, the interval would change the result.)
    """

    def __init__(self, checkpoints: Checkpoints, settings: CheckpointConfig, mesh: Mesh) -> None:
        """Prepare to save in `checkpoints`; all processes together."""
        self._checkpoints, self._keep_best = checkpoints, settings.keep_best
        self._best = sorted(checkpoints.ranks())[-self._keep_best :]  # of all epochs so far, the ranks of those kept
        self._waiting: list[Snapshot] = []
        self._lines: list[tuple[int, Callable[[], None]]] = []
        # jnp.copy, as jit hands an argument that it returns back itself, and the next update takes that one's memory.
        self._copy = jax.jit(partial(jax.tree.map, jnp.copy), out_shardings=replicated(mesh))

    def when_safe(self, step: int, write: Callable[[], None]) -> None:
        """Have `write` called once a checkpoint of this step, or of a later one, is whole on disk."""
        self._lines.append((step, write))

    def hold(self, snapshot: Snapshot) -> None:
        """Keep a copy of an evaluated state, should it be one of the best."""
        if not self._is_kept(snapshot):
            return
        state, sums = self._copy((snapshot.state, snapshot.sums))
        self._waiting.append(snapshot._replace(state=state, sums=sums))

    def save(self, snapshot: Snapshot) -> None:
        """Save what waits, and begin to save a state."""
        if snapshot.accuracy is not None:
            self._is_kept(snapshot)
        self.save_waiting()
        self._begin(snapshot)

    def save_waiting(self) -> None:
        """Begin to save the best of the epochs that are not saved, the last of them in the background."""
        while self._waiting:
            self._begin(self._waiting[0])
            del self._waiting[0]

    def _is_kept(self, snapshot: Snapshot) -> bool:
        """Whether it is one of the best so far; those that it surpasses wait no longer."""
        self._best = sorted([*self._best, snapshot.rank])[-self._keep_best :]
        self._waiting = [each for each in self._waiting if each.rank in self._best]
        return snapshot.rank in self._best

    def _begin(self, snapshot: Snapshot) -> None:
        save_state(
            self._checkpoints,
            snapshot.state,
            snapshot.sums,
            snapshot.progress,
            accuracy=snapshot.accuracy,
            loss=snapshot.loss,
            when_safe=partial(self._write_lines, snapshot.step),
        )

    def _write_lines(self, step: int) -> None:
        lines = [write for line_step, write in self._lines if line_step <= step]
        self._lines = [line for line in self._lines if line[0] > step]
        for write in lines:
            write()
