"""Small against large batches: losses for equal work, and how sharp the ends are. The notes: basins and canyons."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfood.config import Config
from jaxfood.data.batches import Batches, epoch_order, make_batches, steps_per_epoch
from jaxfood.devices import make_mesh
from jaxfood.lessons.batch_sharpness import measure_sharpness, sharpness_claims, write_sharpness
from jaxfood.lessons.trainings import as_floats, load_data, train_epochs
from jaxfood.model.networks import make_model
from jaxfood.optim.losses import make_loss
from jaxfood.report.page import COLOURS, LINES, Page
from jaxfood.training.metrics import means, zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_evaluation, loss_fn

PICTURES = 264
SETTLING = 40  # batches at least, after which BatchNorm's running statistics keep 1.5 % of what they were


def measure(
    *,
    full: bool = False,
    images: Path | None = None,
    small: int = 12,
    large: int = 44,
    epochs: int = 8,
    seeds: Sequence[int] = (6666,),
    equal_updates: bool = False,
) -> dict[str, Any]:
    """Train the homework's network for equal work, and a small one from many seeds until it has arrived.

    Args:
        full: 128 px, all pictures, two seeds and `equal_updates`, whatever is said below; more of the many seeds.
        images: a data folder; None: the drawn demo pictures.
        small: pictures in a small batch.
        large: pictures in a large batch.
        epochs: passes over the training pictures.
        seeds: of first weights and order; each is a run of its own.
        equal_updates: also train in large batches for as many updates as the small ones made.

    Returns:
        What was trained on; for each plan ("small", "large", "large, equal updates") its `runs`, one a seed, and their
        `means` (see `summary`). A run has batch size, epochs, updates and seed, the `history` of losses and accuracies
        epoch by epoch, and those at the `end` by settled running statistics. `many_seeds` is of
        `batch_sharpness.measure_sharpness`, and `claims` of its sharpness.
    """
    if full:
        seeds, equal_updates = (6666, 6667), True
    data = load_data([f"data.image_size={128 if full else 32}"], images, None if full else PICTURES)
    mesh = make_mesh(data.config.device)
    train, valid = make_batches(data.train, mesh), make_batches(data.valid, mesh)
    plans = {"small": (small, epochs), "large": (large, epochs)}
    if equal_updates:
        updates = epochs * steps_per_epoch(train.size, small)
        plans["large, equal updates"] = large, round(updates / steps_per_epoch(train.size, large))
    trial = _Trial(data.config, train, valid, evaluated=large)
    runs = {plan: [trial.run(*of_plan, seed) for seed in seeds] for plan, of_plan in plans.items()}
    many_seeds = measure_sharpness(full=full, images=images)
    return {
        "image_size": data.config.data.image_size,
        "pictures": {"train": train.size, "valid": valid.size},
        "runs": runs,
        "means": {plan: summary(of_plan) for plan, of_plan in runs.items()},
        "many_seeds": many_seeds,
        "claims": [claim.as_json() for claim in sharpness_claims(many_seeds)],
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over a plan's runs of what the page compares; `unsettled_valid_loss` is as training leaves a run."""
    ends = [run["end"] for run in runs]
    return {
        **{name: runs[0][name] for name in ("batch_size", "epochs", "updates")},
        "unsettled_valid_loss": float(np.mean([run["history"][-1]["valid"]["loss"] for run in runs])),
        "train_loss": float(np.mean([end["train"]["loss"] for end in ends])),
        "valid_loss": float(np.mean([end["valid"]["loss"] for end in ends])),
        "valid_accuracy": float(np.mean([end["valid"]["accuracy"] for end in ends])),
    }


def write(numbers: dict[str, Any], page: Page) -> None:
    """What equal work brings, and how sharp the ends are."""
    runs, means = numbers["runs"], numbers["means"]
    small, large, equal = means["small"], means["large"], means.get("large, equal updates")
    page.text("""The notes: large batches tend to minima in canyons, small ones to minima in basins, and in a basin the
        validation loss differs less from the training loss. Two things are easily taken for one here: what a batch size
        costs in updates, and where it leads in the end.""")
    page.text(f"""**Equal work.** The homework's network learns {numbers["pictures"]["train"]} pictures at
        {numbers["image_size"]} px by the demo recipe (Adam, warm-up, cosine) in batches of {small["batch_size"]} and of
        {large["batch_size"]}. Both see every picture {large["epochs"]} times, but the small batches make
        {small["updates"] / large["updates"]:.1f} times as many updates.""")
    with page.figure("losses", "Training loss (lines) and validation loss (dots) of every epoch") as figure:
        _draw_losses(figure.subplots(), runs)
    header = ("batches", "updates", "train loss", "valid loss", "valid accuracy")
    columns = ("updates", "train_loss", "valid_loss", "valid_accuracy")
    page.table(header, ((plan, *(of_plan[name] for name in columns)) for plan, of_plan in means.items()))
    page.text(f"""**Look at** the last dots: as training leaves them, the small batches have a validation loss of
        {small["unsettled_valid_loss"]:.2g}, the large ones {large["unsettled_valid_loss"]:.2g}. Part of that is no
        learning but BatchNorm: after few updates its running statistics are still those of earlier weights. Settled by
        {SETTLING} or more batches at fixed weights, as in the table, the losses are {small["valid_loss"]:.2g} and
        {large["valid_loss"]:.2g}. Which batches are the better, a seed or two cannot say.""")
    if equal:
        page.text(f"""With as many updates as the small batches made, for {equal["epochs"] / small["epochs"]:.1f} times
            the work, the large ones end at a training loss of {equal["train_loss"]:.2g} and a validation loss of
            {equal["valid_loss"]:.2g}.""")
    write_sharpness(numbers["many_seeds"], page)
    page.text("""What to change: a batch that the lesson `batch-time` calls enough saves time. Where that leaves a run
        few updates, give it more epochs, and do not judge it by its first validation losses. `--full` takes 128 px,
        more seeds, and equal updates for the homework's network too.""")


def _draw_losses(axis: Any, runs: dict[str, Any]) -> None:
    for of_plan, label, colour, line in _styled(runs):
        for run in of_plan:
            train, valid = ([epoch[split]["loss"] for epoch in run["history"]] for split in ("train", "valid"))
            epochs = np.arange(1, run["epochs"] + 1)
            axis.plot(epochs, train, color=colour, ls=line, label=label if run is of_plan[0] else None)
            axis.plot(epochs, valid, color=colour, ls="", marker="o")
    axis.set(xlabel="epoch", ylabel="loss")
    axis.legend()


def _styled(runs: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], str, str, Any]]:
    """Each plan's runs with its label, colour and line."""
    for (plan, of_plan), colour, line in zip(runs.items(), COLOURS, LINES, strict=False):
        yield of_plan, f"{plan}: batches of {of_plan[0]['batch_size']}, {of_plan[0]['updates']} updates", colour, line


class _Trial:
    """Trains one configuration with several batch sizes and seeds, and measures what came out."""

    def __init__(self, config: Config, train: Batches, valid: Batches, evaluated: int) -> None:
        self.config, self.train, self.valid, self.evaluated = config, train, valid, evaluated
        model, loss = make_model(config.model), make_loss(config.loss, config.model.num_classes)
        self.add_evaluation = jax.jit(partial(add_evaluation, model, loss))
        self.next_stats = jax.jit(lambda *arguments: loss_fn(model, loss, *arguments)[1][0])

    def run(self, batch_size: int, epochs: int, seed: int) -> dict[str, Any]:
        train = dataclasses.replace(self.config.train, batch_size=batch_size, seed=seed)
        config = dataclasses.replace(self.config, train=train)
        history = []
        for state, metrics in train_epochs(config, self.train, epochs):
            history.append({"train": metrics, "valid": self._evaluate(state.variables, self.valid)})
        variables = {"params": state.params, "batch_stats": self._settled(state)}
        return {
            "batch_size": batch_size,
            "epochs": epochs,
            "updates": epochs * steps_per_epoch(self.train.size, batch_size),
            "seed": seed,
            "history": history,
            "end": {"train": self._evaluate(variables, self.train), "valid": self._evaluate(variables, self.valid)},
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
        return as_floats(means(sums))
