"""Few minima, many saddles: loss against the share of positive eigenvalues where a network's gradient is small."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from jaxfood.config.landscape import SpectrumSettings, Tolerances
from jaxfood.landscape import Objective, Point, minimum_ratio, spectral_density
from jaxfood.lessons.descent import descend, optimizer_settings
from jaxfood.lessons.least_gradient import least_gradient
from jaxfood.report.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUTS, HIDDEN, EXAMPLES = 4, 10, 50
SIZE = (INPUTS + 2) * HIDDEN + 1  # parameters
SETTINGS = optimizer_settings("momentum", 0.05)
STEPS = 3000
STARTS = (0, 10, 30, 100, 200, 400, STEPS)  # steps of training after which the gradient is minimised
EVALUATIONS = 300  # of the gradient, at most, for each start
SMALL, STRICT = 1e-3, 1e-8  # a gradient norm up to this counts as 0; one that is 0 but for rounding
SEEDS, FULL_SEEDS = 3, 16
FROM_TRAINING, FROM_MINIMISING = "training", "minimising |g|^2"


def measure(*, full: bool = False) -> dict[str, Any]:
    """Train from several seeds, and minimise the squared gradient norm from points on the way; `full`: more seeds.

    Returns:
        `parameters`, `examples`; `points`: for each the `seed`, `step` of training, `found_by`, `loss`,
        `gradient_norm`, `ratio` and `negative` (the shares of positive and of negative eigenvalues); `correlations`:
        Spearman's rank correlations of the loss with both shares, over the `count` points whose gradient norm is at
        most `bound`, for two bounds.
    """
    points = survey(range(FULL_SEEDS if full else SEEDS))
    return {
        "parameters": SIZE,
        "examples": EXAMPLES,
        "points": points,
        "correlations": [_correlations(points, bound) for bound in (SMALL, STRICT)],
    }


def survey(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The points of these seeds, those of training and those of small gradient, in float64."""
    loss = _loss_on_noise()
    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    objective = Objective.of(loss)
    points = []
    with jax.enable_x64(True):
        for seed in seeds:
            way = descend(loss, _initial(seed).tolist(), SETTINGS, STEPS).points
            for step in STARTS:
                least = least_gradient(gradient, hessian, way[step], tolerance=1e-14, evaluations=EVALUATIONS)
                for found_by, params in ((FROM_TRAINING, way[step]), (FROM_MINIMISING, least)):
                    points.append({"seed": seed, "step": step, "found_by": found_by, **_shares(objective, params)})
    return points


def critical_points(points: Sequence[dict[str, Any]], bound: float) -> list[dict[str, Any]]:
    """Those whose gradient norm is at most so large."""
    return [point for point in points if point["gradient_norm"] <= bound]


def _loss_on_noise() -> Callable[[jax.Array], jax.Array]:
    """The mean squared error of a tanh network of parameters `[SIZE]` on noise, which it must learn by heart."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((EXAMPLES, INPUTS)), rng.standard_normal(EXAMPLES)
    targets = (targets - targets.mean()) / targets.std()  # the best constant then has a loss of 1

    def loss(params: jax.Array) -> jax.Array:
        kernel, bias, weights, offset = jnp.split(params, np.cumsum((INPUTS * HIDDEN, HIDDEN, HIDDEN)))
        hidden = jnp.tanh(inputs @ kernel.reshape(INPUTS, HIDDEN) + bias)
        return jnp.mean((hidden @ weights + offset - targets) ** 2)

    return loss


def _initial(seed: int) -> np.ndarray:
    """Normal numbers; each layer's divided by the root of how many it sums."""
    scales = np.repeat([INPUTS**-0.5, HIDDEN**-0.5], [INPUTS * HIDDEN, SIZE - INPUTS * HIDDEN])
    return np.random.default_rng([1, seed]).standard_normal(SIZE) * scales


def _shares(objective: Objective, params: np.ndarray) -> dict[str, Any]:
    point = Point(objective, params)
    density = spectral_density(point, SpectrumSettings())
    threshold = Tolerances().zero_tolerance * float(np.abs(density.nodes).max())
    return {
        "loss": point.loss,
        "gradient_norm": float(np.linalg.norm(point.gradient)),
        "ratio": minimum_ratio(density, threshold).value,
        "negative": float(np.mean(density.nodes < -threshold)),
    }


def _correlations(points: Sequence[dict[str, Any]], bound: float) -> dict[str, Any]:
    critical = critical_points(points, bound)
    losses = [point["loss"] for point in critical]
    shares = {share: [point[share] for point in critical] for share in ("ratio", "negative")}
    ranks = {share: float(spearmanr(losses, values).statistic) for share, values in shares.items()}
    return {"bound": bound, "count": len(critical), **ranks}


def write(numbers: dict[str, Any], page: Page) -> None:
    """How the points were found, the picture, the shares at high and low loss, and what bounds the ratio."""
    points = numbers["points"]
    critical = critical_points(points, SMALL)
    seeds = len({point["seed"] for point in points})
    page.text(f"""In a minimum every eigenvalue of the Hessian is positive; a saddle has negative ones too. The lecture
        behind the notes trains networks to points of small gradient and draws their loss against the minimum ratio, the
        share of positive eigenvalues. Here a tanh network of {numbers["parameters"]} parameters learns
        {numbers["examples"]} examples with random targets by heart, from {seeds} seeds. Training alone would
        show only points of low loss, so from {len(STARTS)} points on each way `|g|^2` is minimised, which is drawn to
        saddles as much as to minima.""")
    with page.figure("loss", "Loss against the shares of positive and of negative eigenvalues", (10, 4.5)) as figure:
        _draw(figure, points)
    _write_bands(critical, page)
    small, strict = numbers["correlations"]
    page.text(f"""Of {len(points)} points {small["count"]} have a gradient norm of at most {small["bound"]:g}. Over
        these the rank correlation of the loss with the share of negative eigenvalues is {small["negative"]:.2f}, with
        the minimum ratio {small["ratio"]:.2f}: the higher the loss, the more ways lead down, and points without any are
        found only at low loss. Minimising often stops short of 0. Over those {strict["count"]} where the gradient
        is 0 but for rounding, a norm of at most {strict["bound"]:g}, the correlations are {strict["negative"]:.2f} and
        {strict["ratio"]:.2f}. No point of small gradient has more than
        {max(point["negative"] for point in critical):.0%} negative eigenvalues; the others are positive or 0.""")
    _write_limit(critical, numbers, page)


def _write_bands(critical: Sequence[dict[str, Any]], page: Page) -> None:
    """A row for each band of the loss."""
    edges = (0, 1e-3, 0.1, 0.5, np.inf)
    rows = []
    for low, high in pairwise(edges):
        band = [point for point in critical if low <= point["loss"] < high]
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        shares = ([point[share] for point in band] for share in ("ratio", "negative"))
        without = sum(point["negative"] == 0 for point in band)
        rows.append((name, len(band), *(f"{np.mean(share):.2f}" if share else "-" for share in shares), without))
    header = ("loss", "points of small gradient", "mean minimum ratio", "mean negative share", "with no negative one")
    page.table(header, rows)


def _write_limit(critical: Sequence[dict[str, Any]], numbers: dict[str, Any], page: Page) -> None:
    highest = max(point["ratio"] for point in critical)
    page.text(f"""The ratio never reaches 1: the highest where the gradient is small is {highest:.2f}. Where
        the loss is 0 it cannot: the Hessian is then a sum of one matrix of rank 1 for each example, so at most
        {numbers["examples"]} of {numbers["parameters"]}
        eigenvalues, a ratio of {numbers["examples"] / numbers["parameters"]:.2f}, are not 0. An eigenvalue counts as 0
        up to {Tolerances().zero_tolerance:g} of the largest magnitude. So a ratio below 1 alone does not make a
        saddle: these minima have flat directions, and it is the negative share that tells.""")
    page.text("""What this does not show: it is one small network on noise, the points are those that minimising found,
        not a fair sample of all critical points, and points of one seed may lie close together.""")


def _draw(figure: Any, points: Sequence[dict[str, Any]]) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    labels = {"ratio": "minimum ratio: share of positive eigenvalues", "negative": "share of negative eigenvalues"}
    for axes, (share, label) in zip(panels, labels.items(), strict=True):
        dots = _draw_shares(axes, points, share)
        axes.set(xlabel=label)
    panels[0].set(ylabel="loss", xlim=(0, 1))
    panels[1].set(xlim=(-0.02, None))
    panels[0].legend(fontsize="small")
    figure.colorbar(dots, ax=panels, label="gradient norm", extend="both")


def _draw_shares(axes: "Axes", points: Sequence[dict[str, Any]], share: str) -> Any:
    from matplotlib.colors import LogNorm

    for found_by, marker in ((FROM_TRAINING, "^"), (FROM_MINIMISING, "o")):
        some = [point for point in points if point["found_by"] == found_by]
        dots = axes.scatter(
            [point[share] for point in some],
            [point["loss"] for point in some],
            c=[point["gradient_norm"] for point in some],
            norm=LogNorm(1e-8, 1),
            cmap="cividis",
            marker=marker,
            edgecolors="black",
            linewidths=0.5,
            label=found_by,
        )
    axes.set_yscale("symlog", linthresh=0.01)  # linear near 0
    axes.set_ylim(-0.002, None)
    return dots
