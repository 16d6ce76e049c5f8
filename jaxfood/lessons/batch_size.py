"""Small against large batches for equal work: losses, and how sharp the minimum is. The notes: basins and canyons."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxfood.config import Config, load_config
from jaxfood.data.batches import Batches, epoch_order, make_batches, steps_per_epoch
from jaxfood.data.splits import Splits, load_splits
from jaxfood.devices import make_mesh
from jaxfood.landscape import Point, filter_normalised, loss_slice
from jaxfood.model.networks import init_variables, make_model
from jaxfood.optim.losses import make_loss
from jaxfood.report.page import COLOURS, LINES, Page
from jaxfood.run_landscape.objective import make_point
from jaxfood.training.metrics import means, zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_evaluation, add_update, loss_fn

RADII = (0.1, 0.2)  # of each filter's own length
COMPARED = 0.1  # the radius that the table and the text speak of
SETTLING = 40  # batches at least, after which BatchNorm's running statistics keep 1.5 % of what they were

_update = jax.jit(add_update, donate_argnums=(0, 1))


def measure(
    *,
    full: bool = False,
    small: int = 12,
    large: int = 44,
    epochs: int = 8,
    fraction: float = 0.4,
    seeds: Sequence[int] = (6666,),
    directions: int = 6,
    equal_updates: bool = False,
) -> dict[str, Any]:
    """Train on the demo pictures in small and in large batches, and look at the training loss around each end.

    Args:
        full: 128 px, all pictures, two seeds, ten directions and `equal_updates`, whatever is said below.
        small: pictures in a small batch.
        large: pictures in a large batch.
        epochs: passes over the training pictures.
        fraction: share of the training pictures that is used.
        seeds: of first weights and order; each is a run of its own.
        directions: random ones around each end, at least two.
        equal_updates: also train in large batches for as many updates as the small ones made.

    Returns:
        What was trained on, `radii`, and for each plan ("small", "large", "large, equal updates") its `runs`, one a
        seed, and their `means` (see `summary`). A run has batch size, epochs, updates and seed, the `history`
        of losses and accuracies epoch by epoch, those at the `end` by settled running statistics, and the `rises` of
        the training loss `[directions, radii]` around it.
    """
    if full:
        fraction, seeds, directions, equal_updates = 1.0, (6666, 6667), 10, True
    settings = (f"data.image_size={128 if full else 32}", f"data.fraction={fraction}", "device.count=1")
    config = load_config("demo", settings)
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=False)
    config = splits.completed(config)
    mesh = make_mesh(config.device)
    train, valid = make_batches(splits.train, mesh), make_batches(splits.valid, mesh)
    plans = {"small": (small, epochs), "large": (large, epochs)}
    if equal_updates:
        updates = epochs * steps_per_epoch(train.size, small)
        plans["large, equal updates"] = large, round(updates / steps_per_epoch(train.size, large))
    trial = _Trial(config, splits, train, valid, directions, evaluated=large)
    runs = {plan: [trial.run(*of_plan, seed) for seed in seeds] for plan, of_plan in plans.items()}
    return {
        "image_size": config.data.image_size,
        "pictures": {"train": train.size, "valid": valid.size},
        "radii": RADII,
        "runs": runs,
        "means": {plan: summary(of_plan) for plan, of_plan in runs.items()},
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over a plan's runs of what the page compares.

    `rise` is the mean over all their directions, `rise_error` its standard error, `worst_rise` the highest of them.
    """
    rises = np.array([run["rises"] for run in runs])[..., RADII.index(COMPARED)]
    ends = [run["end"] for run in runs]
    return {
        **{name: runs[0][name] for name in ("batch_size", "epochs", "updates")},
        "unsettled_valid_loss": float(np.mean([run["history"][-1]["valid"]["loss"] for run in runs])),
        "train_loss": float(np.mean([end["train"]["loss"] for end in ends])),
        "valid_loss": float(np.mean([end["valid"]["loss"] for end in ends])),
        "valid_accuracy": float(np.mean([end["valid"]["accuracy"] for end in ends])),
        "rise": float(rises.mean()),
        "rise_error": float(rises.std(ddof=1) / math.sqrt(rises.size)),
        "worst_rise": float(rises.max()),
    }


def write(numbers: dict[str, Any], page: Page) -> None:
    """What equal work brings, and how sharp the ends are."""
    runs, means = numbers["runs"], numbers["means"]
    small, large, equal = means["small"], means["large"], means.get("large, equal updates")
    page.text(f"""The notes: large batches tend to minima in canyons, small ones to minima in basins, and in a basin the
        validation loss differs less from the training loss. Here the homework's network learns
        {numbers["pictures"]["train"]} of the demo pictures at {numbers["image_size"]} px by the demo recipe (Adam,
        warm-up, cosine) in batches of {small["batch_size"]} and of {large["batch_size"]}. Both see every picture
        {large["epochs"]} times: equal work, but not an equal number of updates.""")
    with page.figure("losses", "Training loss (lines) and validation loss (dots) of every epoch") as figure:
        _draw_losses(figure.subplots(), runs)
    header = ("batches", "updates", "train loss", "valid loss", "valid accuracy", f"rise at {COMPARED}", "worst rise")
    columns = ("updates", "train_loss", "valid_loss", "valid_accuracy", "rise", "worst_rise")
    page.table(header, ((plan, *(of_plan[name] for name in columns)) for plan, of_plan in means.items()))
    page.text(f"""**Losses.** For equal work the small batches make {small["updates"] / large["updates"]:.1f} times as
        many updates. As training leaves them, the small ones have a validation loss of
        {small["unsettled_valid_loss"]:.2g}, the large ones {large["unsettled_valid_loss"]:.2g} (the last dots). Part of
        that is BatchNorm: after few updates its running statistics are still those of earlier weights. So at the end
        {SETTLING} or more batches at fixed weights settle them, and the validation losses are
        {small["valid_loss"]:.2g} and {large["valid_loss"]:.2g}. The table and all below are by settled statistics.""")
    with page.figure("sharpness", "The training loss around each end: mean and range over directions") as figure:
        _draw_rises(figure.subplots(), runs, numbers["radii"])
    page.text(f"""**Sharpness.** From each end the weights move in random directions, each filter by a share of its own
        length (Li et al. 2018), BatchNorm's statistics staying; the faster the training loss rises, the narrower the
        valley. {_verdict(small, large)}""")
    if equal:
        page.text(f"""With as many updates as the small batches made, for {equal["epochs"] / small["epochs"]:.1f} times
            the work, the large ones end at a training loss of {equal["train_loss"]:.2g} and a validation loss of
            {equal["valid_loss"]:.2g}. {_verdict(small, equal)}""")
    page.text("""The notes speak of *minima*: compare rises only where training losses are alike, for a run that has not
        arrived stands on a slope and not in a valley. The tendency was reported for long trainings on many pictures
        (Keskar et al. 2017); hundreds of pictures, minutes and a seed or two are an example, no proof.""")
    page.text("""What to change: a batch that the lesson `batch-time` calls enough saves time. Where that leaves a run
        few updates, give it more epochs, and do not judge it by its first validation losses. `--full` also compares
        equal updates.""")


def _verdict(small: dict[str, float], large: dict[str, float]) -> str:
    """Which end is the sharper, where the difference of the mean rises is over twice its standard error."""
    difference = large["rise"] - small["rise"]
    if abs(difference) < 2 * math.hypot(small["rise_error"], large["rise_error"]):
        fits = "so few directions differ by chance as much, and neither end is shown to be the sharper"
    else:
        fits = "as the notes have it" if difference > 0 else "not what the notes expect"
    return f"""At a share of {COMPARED} it rises by {_with_error(small)} from a training loss of
        {small["train_loss"]:.2g} around the small batches' end, and by {_with_error(large)} from
        {large["train_loss"]:.2g} around the large ones' (mean and its standard error): {fits}."""


def _with_error(means: dict[str, float]) -> str:
    return f"{means['rise']:.2g} ± {means['rise_error']:.1g}"


def _draw_losses(axis: Any, runs: dict[str, Any]) -> None:
    for of_plan, label, colour, line in _styled(runs):
        for run in of_plan:
            train, valid = ([epoch[split]["loss"] for epoch in run["history"]] for split in ("train", "valid"))
            epochs = np.arange(1, run["epochs"] + 1)
            axis.plot(epochs, train, color=colour, ls=line, label=label if run is of_plan[0] else None)
            axis.plot(epochs, valid, color=colour, ls="", marker="o")
    axis.set(xlabel="epoch", ylabel="loss")
    axis.legend()


def _draw_rises(axis: Any, runs: dict[str, Any], radii: Sequence[float]) -> None:
    for of_plan, label, colour, line in _styled(runs):
        rises = np.pad(np.concatenate([run["rises"] for run in of_plan]), ((0, 0), (1, 0)))  # none at radius 0
        axis.plot((0, *radii), rises.mean(axis=0), color=colour, ls=line, marker="o", label=label)
        axis.fill_between((0, *radii), rises.min(axis=0), rises.max(axis=0), color=colour, alpha=0.15, lw=0)
    axis.set(xlabel="distance, as a share of each filter's length", ylabel="rise of the training loss")
    axis.legend(loc="upper left")


def _styled(runs: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], str, str, Any]]:
    """Each plan's runs with its label, colour and line."""
    for (plan, of_plan), colour, line in zip(runs.items(), COLOURS, LINES, strict=False):
        yield of_plan, f"{plan}: batches of {of_plan[0]['batch_size']}, {of_plan[0]['updates']} updates", colour, line


def loss_rises(point: Point, radii: Sequence[float], directions: int) -> np.ndarray:
    """By how much the loss is higher at each radius along each direction, filter-normalised: `[directions, radii]`."""
    ways = [filter_normalised(point, seed, filter_axis=-1) for seed in range(directions)]
    along = [loss_slice(point, [way], [(0.0, *radii)]) for way in ways]
    return np.array([losses[1:] - losses[0] for losses in along])


class _Trial:
    """Trains one configuration with several batch sizes and seeds, and measures what came out."""

    def __init__(
        self, config: Config, splits: Splits, train: Batches, valid: Batches, directions: int, evaluated: int
    ) -> None:
        self.config, self.train, self.valid = config, train, valid
        self.pictures = splits.train.subset(slice(None))
        self.directions, self.evaluated = directions, evaluated
        model, loss = make_model(config.model), make_loss(config.loss, config.model.num_classes)
        self.add_evaluation = jax.jit(partial(add_evaluation, model, loss))
        self.next_stats = jax.jit(lambda *arguments: loss_fn(model, loss, *arguments)[1][0])

    def run(self, batch_size: int, epochs: int, seed: int) -> dict[str, Any]:
        config = dataclasses.replace(self.config, train=dataclasses.replace(self.config.train, seed=seed))
        updates = epochs * steps_per_epoch(self.train.size, batch_size)
        state = TrainState.create(config, init_variables(config), updates)
        history = []
        for epoch in range(epochs):
            sums = zero_sums(updates=True)
            for batch in self.train.batches(epoch_order(seed, epoch, self.train.size), batch_size):
                state, sums = _update(state, sums, batch)
            history.append({"train": _plain(means(sums)), "valid": self._evaluate(state.variables, self.valid)})
        variables = {"params": state.params, "batch_stats": self._settled(state)}
        return {
            "batch_size": batch_size,
            "epochs": epochs,
            "updates": updates,
            "seed": seed,
            "history": history,
            "end": {"train": self._evaluate(variables, self.train), "valid": self._evaluate(variables, self.valid)},
            "rises": loss_rises(make_point(config, variables, self.pictures), RADII, self.directions),
        }

    def _settled(self, state: TrainState) -> Any:
        """The running statistics after whole passes at fixed weights, in batches of one size for all plans."""
        stats = state.batch_stats
        for epoch in range(math.ceil(SETTLING / steps_per_epoch(self.train.size, self.evaluated))):
            for batch in self.train.batches(epoch_order(0, epoch, self.train.size), self.evaluated):
                stats = self.next_stats(state.params, stats, batch)
        return stats

    def _evaluate(self, variables: Any, pictures: Batches) -> dict[str, float]:
        sums = zero_sums(updates=False)
        for batch in pictures.batches(np.arange(pictures.size), self.evaluated):
            sums = self.add_evaluation(variables, sums, batch)
        return _plain(means(sums))


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
