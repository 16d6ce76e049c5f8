"""Seconds for an update and for an epoch, against the batch size: the notes' figure of the cost in time."""

import os
import time
from typing import Any

import jax
import numpy as np

from jaxfood.config import Config, load_config
from jaxfood.data.batches import steps_per_epoch
from jaxfood.model.networks import init_variables
from jaxfood.report.page import COLOURS, Page
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step

EPOCH = 10_000  # pictures in an epoch, about what the homework has
KNEE = 1.5  # an update is called longer when it takes so many times as long as that of one picture
ENOUGH = 0.9  # and images per second are called the best from this share of the best on

BUDGET, FULL_BUDGET = 45.0, 200.0  # seconds in all, compiling included
ALWAYS = 16  # sizes up to this are timed whatever the budget: a busy machine compiles slowly
LEAST_SECONDS = 0.1  # in one timing: short updates are timed by the dozen


def measure(*, full: bool = False, largest: int = 4096, budget: float | None = None, runs: int = 5) -> dict[str, Any]:
    """Time the update of the homework's recipe on this device, for random pictures that lie there already.

    Args:
        full: 128 px, and more time, instead of 32 px.
        largest: the largest batch that is tried.
        budget: seconds in all; no batch size beyond 16 is begun that would not fit. By default 45, with `full` 200.
        runs: timings of each batch size, of which the median counts; compiling and a warm-up come first.

    Returns:
        `batch_sizes` and `seconds` an update, `epoch_seconds`, `images_per_second`, `knee` (None: not reached),
        `enough`, why it ended (`stopped_by`: time, memory or largest), and on which `device`.
    """
    config = load_config(None, (f"data.image_size={128 if full else 32}", "model.num_classes=11"))
    budget = budget or (FULL_BUDGET if full else BUDGET)
    sizes, seconds, stopped_by = _time_all(config, largest, budget, runs)
    updates = np.array([steps_per_epoch(EPOCH, size) for size in sizes])
    device = jax.devices()[0]
    return {
        "device": f"a CPU of {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind,
        "image_size": config.data.image_size,
        "batch_sizes": sizes,
        "seconds": seconds,
        "epoch_seconds": updates * seconds,
        "images_per_second": sizes / seconds,
        "knee": knee(sizes, seconds),
        "enough": enough(sizes, seconds),
        "stopped_by": stopped_by,
    }


def write(numbers: dict[str, Any], page: Page) -> None:
    """The two curves of the notes, and where they turn."""
    sizes, seconds, epochs = numbers["batch_sizes"], numbers["seconds"], numbers["epoch_seconds"]
    turn, best = numbers["knee"], numbers["enough"]
    page.text(f"""A larger batch is more work for one update, but a device does many pictures side by side. The notes
        show that on a GPU an update takes the same time for 1 to 1,000 pictures. Measured here: {numbers["device"]},
        the homework's network and Adam, {numbers["image_size"]} px, random pictures that lie on the device already, the
        median of several timings after compiling and a warm-up. An epoch is {EPOCH:,} pictures: its updates times their
        seconds, not run.""")
    with page.figure("curves", "Seconds for an update and for an epoch, against the batch size", (10, 4)) as figure:
        _draw(figure.subplots(1, 2), numbers)
    page.table(
        ("batch size", "seconds an update", "seconds an epoch", "pictures a second"),
        zip(sizes, seconds, epochs, numbers["images_per_second"], strict=True),
    )
    page.text(f"""**The knee** is the first batch whose update takes over {KNEE} times as long as that of one picture:
        {turn or f"none up to {sizes[-1]}"}. Before it more pictures cost next to nothing: the device has room, or is
        busy with what any update costs (Adam goes over every parameter). The few cores of a CPU are soon full; a GPU
        has room for many pictures.""")
    end = "the last tried: larger ones may be faster still" if best == sizes[-1] else "larger ones save no time"
    between = "Between the two an update takes longer, and an epoch still gets shorter." if turn and turn < best else ""
    page.text(f"""**Enough** is the smallest batch within 10 % of the most pictures a second: {best} ({end}).
        {between}""")
    why = {"time": "the lesson's time was up", "memory": "memory was full", "largest": "no larger one was asked for"}
    page.text(f"""The row ends at {sizes[-1]} because {why[numbers["stopped_by"]]}. What to change: as far as time
        goes, a `train.batch_size` of about enough; the lesson `batch-size` shows what else it does. For other pictures
        the curves turn elsewhere: `--full` takes 128 px. Other work on the machine bends them too.""")


def _draw(panels: Any, numbers: dict[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    sizes, seconds, turn, best = (numbers[name] for name in ("batch_sizes", "seconds", "knee", "enough"))
    update, epoch = panels
    update.plot(sizes, seconds, "o-")
    update.axhline(KNEE * seconds[0], color="0.5", ls=":", label=f"{KNEE} x the first")
    epoch.plot(sizes, numbers["epoch_seconds"], "o-")
    if turn:
        update.axvline(turn, color=COLOURS[1], ls="--", label=f"knee: {turn}")
    epoch.axvline(best, color=COLOURS[2], ls="-.", label=f"within 10 % of the best: {best}")
    for axis, what in ((update, "an update"), (epoch, f"an epoch of {EPOCH:,}")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, sizes)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # labels that do not touch, however long the row
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set(xlabel="batch size", ylabel=f"seconds for {what}")
        axis.legend()


def knee(batch_sizes: np.ndarray, seconds: np.ndarray) -> int | None:
    """The smallest batch whose update takes over 1.5 times as long as the first one's; None where none does."""
    longer = seconds > KNEE * seconds[0]
    return int(batch_sizes[np.argmax(longer)]) if longer.any() else None


def enough(batch_sizes: np.ndarray, seconds: np.ndarray) -> int:
    """The smallest batch whose images per second are within 10 % of the best."""
    speeds = batch_sizes / seconds
    return int(batch_sizes[np.argmax(speeds >= ENOUGH * speeds.max())])


def _time_all(config: Config, largest: int, budget: float, runs: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Batch sizes, the seconds of an update of each, and what ended the row: "time", "memory" or "largest"."""
    # Elsewhere than on a CPU the knee lies far out, and compiling for each size takes most of the time.
    growth = 2 if jax.devices()[0].platform == "cpu" else 4
    begun = time.perf_counter()
    variables = init_variables(config)
    seconds: dict[int, float] = {}
    size, stopped_by = 1, "largest"
    while size <= largest:
        try:
            started = time.perf_counter()
            updates = _Updates(config, variables, size)
            compiled = time.perf_counter()
            seconds[size] = updates.median_seconds(runs)
            timed = time.perf_counter()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not seconds:
                raise
            stopped_by = "memory"
            break
        if size >= ALWAYS and (timed - begun) + (compiled - started) + growth * (timed - compiled) > budget:
            stopped_by = "time"
            break
        size *= growth
    return np.array(list(seconds)), np.array(list(seconds.values())), stopped_by


class _Updates:
    """Compiled updates with one batch of random pictures that lies on the device."""

    def __init__(self, config: Config, variables: Any, batch_size: int) -> None:
        rng = np.random.default_rng(0)
        side = config.data.image_size
        self.batch = {
            "image": jax.device_put(rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)),
            "label": jax.device_put(rng.integers(0, config.model.num_classes, batch_size, np.int32)),
        }
        self.state = TrainState.create(config, variables, total_steps=1)
        self.step = train_step.lower(self.state, self.batch).compile()

    def median_seconds(self, runs: int) -> float:
        """Of an update in a row of them, after a warm-up."""
        self._seconds(1)
        updates = max(1, round(LEAST_SECONDS / self._seconds(1)))
        return float(np.median([self._seconds(updates) for _ in range(runs)]))

    def _seconds(self, updates: int) -> float:
        """As in a training, the host does not wait for one update before it asks for the next."""
        started = time.perf_counter()
        for _ in range(updates):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / updates
