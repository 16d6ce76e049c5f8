"""The line and a curve between two runs: the loss along both, BatchNorm's statistics taken anew at every place."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxfood.config.sections import Config
from jaxfood.data.batches import batches
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError, printable
from jaxfood.landscape import Curve, barrier, fit_curve, straight
from jaxfood.model.layers import MOMENTUM
from jaxfood.model.network import Network
from jaxfood.model.networks import make_model, predict_logits, to_float
from jaxfood.optim.losses import make_loss
from jaxfood.report.page import Page, escaped
from jaxfood.run_landscape.objective import choose_positions, load_labelled
from jaxfood.runs.directory import load_run, read_classes
from jaxfood.training.metrics import Sums, batch_sums, means
from jaxfood.training.step import summed_loss

PLACES = np.linspace(0, 1, 11)  # along each path
STATISTICS_BATCHES = 8  # of which BatchNorm's statistics are the mean, at most


@dataclass(frozen=True)
class PathMeasured:
    """A path at each of `PLACES`: losses `[11]` and accuracies `[11]`."""

    losses: np.ndarray
    accuracies: np.ndarray

    @property
    def barrier(self) -> float:
        """How far the loss rises above the straight line between its ends."""
        return barrier(PLACES, self.losses)


def connect_runs(
    run: Path,
    other: Path,
    config: Config,
    images: str,
    *,
    which: str,
    out: str | Path,
    cache_dir: str = "",
) -> None:
    """Write connection.md, connection.json and a picture: line and curve between two runs of one network.

    `landscape.samples` of the pictures are measured; the curve, and the statistics, are by the others, or by the same
    ones where there are no others, which the page says.

    Raises:
        UserError: a mistake in the pictures or the paths, or runs of different networks, classes or sizes.
    """
    _, start, _ = load_run(run, which)
    _, end, config_there = load_run(other, which)
    check_comparable(run, other, config, config_there)
    page = Page(out, "connection", f"from {run} to {other}")
    pictures = load_labelled(images, config, run, cache_dir)
    settings = config.landscape
    chosen = choose_positions(len(pictures), settings.samples, settings.seed)
    rest = np.setdiff1d(np.arange(len(pictures)), chosen)
    fitted_by = pictures.subset(rest if len(rest) else chosen)
    paths = Paths(config, fitted_by, pictures.subset(chosen))
    line = straight(start["params"], end["params"])
    print(
        printable(
            f"{run} and {other}: {settings.curve_updates} updates of the curve by {len(fitted_by)} pictures, then the "
            f"loss of {len(chosen)} at {len(PLACES)} places of line and curve"
        )
    )
    with tqdm(total=settings.curve_updates + 2 * len(PLACES), desc="line and curve", leave=False, delay=1) as bar:
        curve = paths.fit(line, lambda _: bar.update())
        measured = {"line": paths.measure(line, bar.update), "curve": paths.measure(curve, bar.update)}
    page.text(
        f"The loss of {len(chosen)} pictures of {escaped(images)}; the curve and BatchNorm's statistics at every place "
        f"by {len(fitted_by)} {'others' if len(rest) else 'pictures, the same ones, as there are no others'}."
    )
    numbers = {"run": str(run), "to": str(other), "images": images, "samples": len(chosen), "fitted_by": len(fitted_by)}
    page.save(numbers | write_connection(page, measured))
    for name, path in measured.items():
        print(f"{name}: {in_words(path)}")
    print(printable(page.file))


def check_comparable(run: Path, other: Path, config: Config, config_there: Config) -> None:
    """Check that two runs have one network, which sees pictures alike.

    Raises:
        UserError: they do not.
    """
    ours, theirs = (dataclasses.replace(c.model, dropout=0.0) for c in (config, config_there))
    if ours != theirs:
        raise UserError(f"{run} and {other} have different networks: take two runs of one model.* configuration")
    if read_classes(run) != read_classes(other):
        raise UserError(f"{run} and {other} have different classes: take two runs of the same ones")
    if config.data.image_size != config_there.data.image_size:
        raise UserError(
            f"{run} has data.image_size = {config.data.image_size} and {other} {config_there.data.image_size}: take "
            "two runs of one size"
        )


def write_connection(page: Page, paths: dict[str, PathMeasured]) -> dict[str, Any]:
    """The table and the picture of both paths; the numbers for connection.json."""
    page.table(
        ("", "loss at the start", "at the end", "highest", "wall above the ends", "lowest accuracy"),
        (
            (name, *map(float, path.losses[[0, -1]]), float(np.max(path.losses)), path.barrier, path.accuracies.min())
            for name, path in paths.items()
        ),
    )
    with page.figure("paths", "Loss and accuracy along the line and the curve", size=(10, 3.8)) as figure:
        axes = figure.subplots(1, 2)
        for name, path in paths.items():
            axes[0].plot(PLACES, np.where(np.isfinite(path.losses), path.losses, np.nan), marker="o", label=name)
            axes[1].plot(PLACES, path.accuracies, marker="o", label=name)
        axes[0].set(xlabel="share of the way", ylabel="loss")
        axes[1].set(xlabel="share of the way", ylabel="accuracy")
        axes[0].legend()
    return {
        "places": PLACES,
        **{
            name: {"losses": path.losses, "accuracies": path.accuracies, "barrier": path.barrier}
            for name, path in paths.items()
        },
    }


def in_words(path: PathMeasured) -> str:
    """A path in a line."""
    return (
        f"loss {path.losses[0]:.4g} and {path.losses[-1]:.4g} at the ends, at most {np.max(path.losses):.4g}, a wall "
        f"of {path.barrier:.3g}; accuracy {path.accuracies[0]:.3f} and {path.accuracies[-1]:.3f}, at least "
        f"{path.accuracies.min():.3f}"
    )


class Paths:
    """What is done along a path, with programs that are compiled once.

    Args:
        config: `model`, `loss`, `train.batch_size` and `landscape` are read.
        fitted_by: the pictures that the curve is bent by, and BatchNorm's statistics at every place.
        measured: those whose loss and accuracy are told.
    """

    def __init__(self, config: Config, fitted_by: Pictures, measured: Pictures) -> None:
        # Dropout is a noise of training, not of the loss that is compared along the path.
        self._model: Network = make_model(dataclasses.replace(config.model, dropout=0.0))
        self._loss = make_loss(config.loss, config.model.num_classes)
        self._config, self._fitted_by, self._measured = config, fitted_by, measured
        self._add_sums = jax.jit(self._sums)
        self._moments = jax.jit(self._batch_moments)

    def fit(self, line: Curve, on_update: Callable[[float], Any] | None = None) -> Curve:
        """The curve, bent by `landscape.curve_updates` updates with BatchNorm by each batch."""
        settings = self._config.landscape

        def loss(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
            _, (_, sums) = summed_loss(self._model, self._loss, params, self._no_statistics(batch), batch)
            return sums["loss"], sums["weight"]

        return fit_curve(
            loss,
            line,
            self._endless(),
            updates=settings.curve_updates,
            rate=settings.curve_rate,
            seed=settings.seed,
            on_update=on_update,
        )

    def measure(self, path: Curve, on_place: Callable[[], Any] = lambda: None) -> PathMeasured:
        """Loss and accuracy at each place, once BatchNorm's statistics there are known."""
        found = []
        for t in PLACES:
            params = path.at(float(t))
            batch_stats, total = self._statistics(params), None
            for batch in self._batches(self._measured, np.arange(len(self._measured))):
                sums = self._add_sums(params, batch_stats, batch)
                total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            assert total is not None
            found.append(jax.device_get(means(total)))
            on_place()
        return PathMeasured(*(np.array([float(place[name]) for place in found]) for name in ("loss", "accuracy")))

    def _statistics(self, params: Any) -> Any:
        """BatchNorm's at these parameters: the mean of those of a few batches, by their pictures."""
        total, count = None, 0.0
        order = np.arange(len(self._fitted_by))
        for batch in itertools.islice(self._batches(self._fitted_by, order), STATISTICS_BATCHES):
            weight = float(batch["mask"].sum())
            moments = jax.tree.map(lambda leaf, w=weight: w * leaf, self._moments(params, batch))
            total = moments if total is None else jax.tree.map(jnp.add, total, moments)
            count += weight
        return jax.tree.map(lambda leaf: leaf / count, total)

    def _batch_moments(self, params: Any, batch: Any) -> Any:
        """A batch's own: a step from 0 towards them, by its length."""
        variables = {"params": params, "batch_stats": self._no_statistics(batch)}
        images, mask = to_float(batch["image"]), batch["mask"]
        _, new = self._model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])
        return jax.tree.map(lambda leaf: leaf / MOMENTUM, new["batch_stats"])

    def _no_statistics(self, batch: Any) -> Any:
        shapes = jax.eval_shape(self._model.init, jax.random.key(0), to_float(batch["image"]))["batch_stats"]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def _sums(self, params: Any, batch_stats: Any, batch: Any) -> Sums:
        logits = predict_logits(self._model, {"params": params, "batch_stats": batch_stats}, batch["image"])
        return batch_sums(self._loss, logits, batch)

    def _batches(self, pictures: Pictures, order: np.ndarray) -> Iterator[dict[str, Any]]:
        for positions, mask in batches(order, self._config.train.batch_size):
            yield {"image": np.asarray(pictures.images[positions]), "label": pictures.labels[positions], "mask": mask}

    def _endless(self) -> Iterator[dict[str, Any]]:
        """Batches of epoch after epoch, each in an order of its own."""
        for epoch in itertools.count():
            order = np.random.default_rng((self._config.landscape.seed, epoch)).permutation(len(self._fitted_by))
            yield from self._batches(self._fitted_by, order)
