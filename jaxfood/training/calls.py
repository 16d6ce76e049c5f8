"""How many updates the devices make in one call, and what a call takes for them."""

import math
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood import processes
from jaxfood.config.sections import Config
from jaxfood.data.batches import Batches, ResidentBatches, epoch_order, steps_per_epoch, unlabeled_order
from jaxfood.devices import on_every_device

# What is chosen where `train.steps_per_call` is 0. In calls of about a second Ctrl-C is heard and the bar moves as they
# do between single long updates; in one of 32 updates the host's part is hidden even where an update takes 1 ms.
_SECONDS = 1.0
_MOST = 32
_MEASURED = 3  # updates in calls of their own by which that is chosen, the first of them to warm up


class Calls:
    """The calls of each epoch, of at most `train.steps_per_call` updates.

    All are of one program (`step.add_updates`), which is told how many updates to make, so that their number changes no
    bit. Pictures that are read from disk come, and are trained on, a batch at a time.
    """

    def __init__(self, config: Config, mesh: Mesh, train: Batches, unlabeled: Batches | None = None) -> None:
        """Of batches of labelled pictures and, where there are any, of unlabelled ones."""
        self._config, self._all = config, [train] if unlabeled is None else [train, unlabeled]
        self.steps_per_epoch = steps_per_epoch(train.size, config.train.batch_size)
        self._resident = [batches for batches in self._all if isinstance(batches, ResidentBatches)]
        self.pictures: dict[str, Any] = {}  # what lies on every device and batches are gathered of
        if len(self._resident) == len(self._all):
            self.pictures = _together(*(batches.pictures for batches in self._resident))
        wanted = config.train.steps_per_call
        self._most = min(wanted or _MOST, self.steps_per_epoch) if self.pictures else 1
        self._is_automatic = not wanted and self._most > 1
        self._count = 0 if self._is_automatic else self._most  # 0: not chosen yet
        self._size = 0  # of the pictures for which it is chosen
        self._ends: list[float] = []  # of the calls by which it is chosen
        self._number = cache(lambda count: on_every_device(np.int32(count), mesh))

    @property
    def remark(self) -> str:
        """What is to be said of a setting that is not followed, if so."""
        wanted = self._config.train.steps_per_call
        if self.pictures or wanted <= 1:
            return ""
        return f"train.steps_per_call = {wanted}: pictures that are read from disk are trained on one update in a call"

    def of_epoch(self, epoch: int, start: int = 0, most: int | None = None) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The calls from update `start` of an epoch on: how many updates each makes, and its last arguments.

        `epoch` and `start` count from 0. With `most` no call makes more updates than that.
        """
        orders = self._orders(epoch)
        if not self.pictures:
            each = zip(self._all, orders, strict=True)
            for batch in zip(*(batches.batches(*order, start) for batches, order in each), strict=True):
                yield 1, (self._number(1), {}, _together(*batch))
            return
        chosen = [batches.chosen(*order, start) for batches, order in zip(self._resident, orders, strict=True)]
        while start < self.steps_per_epoch:
            count = self._updates_at(epoch * self.steps_per_epoch + start, most)
            stacks = [
                batches.stack(list(islice(positions, count)), self._most)
                for batches, positions in zip(self._resident, chosen, strict=True)
            ]
            yield count, (self._number(count), self.pictures, _together(*stacks))
            start += count

    def _orders(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """The order of an epoch's pictures and their number in an update, of the labelled and of the unlabelled."""
        train, (own, *others) = self._config.train, [batches.size for batches in self._all]
        ratio = train.unlabeled_ratio
        orders = [(epoch_order(train.seed, epoch, own), train.batch_size)]
        more = [(unlabeled_order(train.seed, epoch, size, ratio * own), ratio * train.batch_size) for size in others]
        return orders + more

    def _updates_at(self, step: int, most: int | None) -> int:
        """How many updates the call after `step` makes: it ends with the epoch, and where a checkpoint is due."""
        left = [self._count or 1, self.steps_per_epoch - step % self.steps_per_epoch, most or self._most]
        if every := self._config.checkpoint.every:
            left.append(every - step % every)
        return min(left)

    def begin_epoch(self, size: int) -> None:
        """Before an epoch of pictures of a size; of another than before, an update takes another time."""
        self._ends = []
        if self._is_automatic and size != self._size:
            self._size, self._count = size, 0

    def observe(self, sums: Any) -> str:
        """After a call, until the number of updates is chosen: wait for it, and choose. All processes together.

        Returns:
            What is to be said of the choice; mostly nothing.
        """
        if self._count:
            return ""
        jax.block_until_ready(sums)
        self._ends.append(time.perf_counter())
        if len(self._ends) < _MEASURED:
            return ""
        seconds = (self._ends[-1] - self._ends[0]) / (_MEASURED - 1)
        seconds = max(map(float, processes.share(repr(seconds))))  # one number for all: their calls are the same
        self._count = min(self._most, math.ceil(_SECONDS / seconds))
        return f"train.steps_per_call: {self._count}, as an update takes {_in_words(seconds)}"


def _together(own: dict[str, Any], unlabeled: dict[str, Any] | None = None) -> dict[str, Any]:
    return own if unlabeled is None else {**own, "unlabeled": unlabeled}


def _in_words(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"
