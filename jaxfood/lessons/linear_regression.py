"""The notes' seven points: all of them, one or a few at each step of gradient descent."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.lessons.descent import descend_batches, optimizer_settings, take_step, unclipped_optimizer
from jaxfood.report.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREAS = np.array([150, 200, 250, 300, 350, 400, 600], np.float64)
PRICES = np.array([6450, 7450, 8450, 9450, 11450, 15450, 18450], np.float64)
POINTS = len(AREAS)
ALPHA, TOLERANCE = 1e-5, 1e-5  # the listings' alpha and epsilon
STEPS = 1000  # of the SGD listing
BATCH, SEED = 2, 0
STANDARDIZED_RATE = 0.5
# What the notes' BGD listing gives in CPython, unchanged but for its plots.
LISTING = {"theta": [1769.3942309765616, 28.782930597372612], "steps": 4213465}
# The steps after which BGD's line is kept; it gives up at the last of them.
MARKS = np.union1d(np.geomspace(1, 1e7, 200).round(), STEPS).astype(np.int64)
NAMES = {"bgd": "all seven (BGD)", "sgd": "one (SGD)", "mini_batch": "two (mini-batch)"}


def measure(*, full: bool = False) -> dict[str, Any]:
    """Lines price = theta0 + theta1 * area through the seven points. `full` changes nothing.

    Returns:
        `areas`, `prices`; `listing`, the notes' own result; `least_squares`, the exact line: its `theta` and its
        `error`, the sum of squares / 2; `through_origin`, the best line with theta0 = 0; `curvatures` of the mean loss,
        flat and steep; the runs `bgd`, `sgd`, `mini_batch` and `sgd_at_alpha`, each with `rate`, and for every step
        kept `steps`, `points_seen`, `theta`, `excess` (its error above the least); `standardized`, BGD again on areas
        of mean 0 and variance 1.
    """
    rows = _rows(AREAS)
    rng = np.random.default_rng(SEED)
    singles = np.eye(POINTS)[rng.integers(POINTS, size=STEPS)]
    best = _least_squares(rows)
    through_origin = np.array([0, AREAS @ PRICES / (AREAS @ AREAS)])
    return {
        "areas": AREAS,
        "prices": PRICES,
        "listing": LISTING,
        "least_squares": {"theta": best, "error": _errors(rows, best)},
        "through_origin": {"theta": through_origin, "excess": _excess(rows, through_origin)},
        "curvatures": np.linalg.eigvalsh(rows.T @ rows / POINTS),
        "bgd": _batch_gradient_descent(rows, ALPHA),
        "sgd": _on_batches(ALPHA / POINTS, singles),
        "mini_batch": _on_batches(ALPHA / POINTS, _small_batches(rng)),
        "sgd_at_alpha": _on_batches(ALPHA, singles),
        "standardized": _standardized(),
    }


def _rows(inputs: np.ndarray) -> np.ndarray:
    """What theta multiplies: `[inputs, 2]`, 1 and the input."""
    return np.stack([np.ones_like(inputs), inputs], axis=1)


def _errors(rows: Any, theta: Any) -> Any:
    """The listings' error, sum of squares / 2, for one or many `theta` `[..., 2]`."""
    return ((theta @ rows.T - PRICES) ** 2).sum(axis=-1) / 2


def _least_squares(rows: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(rows, PRICES)[0]


def _excess(rows: np.ndarray, theta: np.ndarray) -> Any:
    """The error above the least."""
    return _errors(rows, theta) - _errors(rows, _least_squares(rows))


class _Progress(NamedTuple):
    """Batch gradient descent under way: the last update's number and error, and the error before it."""

    theta: Any
    opt_state: Any
    step: Any
    error: Any
    error_before: Any


def _batch_gradient_descent(rows: np.ndarray, rate: float) -> dict[str, Any]:
    """From (0, 0) until an update changes the error by less than TOLERANCE, as in the listing; kept at MARKS."""
    tx = unclipped_optimizer(optimizer_settings("sgd", rate), MARKS[-1])

    def update(now: _Progress) -> _Progress:
        theta, opt_state, *_ = take_step(tx, lambda theta: _errors(rows, theta) / POINTS, now.theta, now.opt_state)
        return _Progress(theta, opt_state, now.step + 1, _errors(rows, theta), now.error)

    def to_mark(now: _Progress, mark: Any) -> Any:
        now = jax.lax.while_loop(
            lambda now: (now.step < mark) & (jnp.abs(now.error - now.error_before) >= TOLERANCE), update, now
        )
        return now, (now.step, now.theta)

    @jax.jit
    def run(theta: jax.Array) -> Any:
        # The listing compares with an error of 0 before the first update, and not before that.
        return jax.lax.scan(to_mark, _Progress(theta, tx.init(theta), 0, 0.0, jnp.inf), MARKS)[1]

    with jax.enable_x64(True):
        steps, thetas = jax.device_get(run(np.zeros(2)))
    steps, kept = np.unique(steps, return_index=True)
    return _run(rate, rows, steps, steps * POINTS, thetas[kept])


def _on_batches(rate: float, shares: np.ndarray) -> dict[str, Any]:
    """An update for each step's share of each point in the mean, `[STEPS, POINTS]`."""
    rows = _rows(AREAS)
    thetas = descend_batches(
        lambda theta, share: jnp.sum(share * (rows @ theta - PRICES) ** 2) / 2,
        (0, 0),
        optimizer_settings("sgd", rate),
        shares,
    )
    points_seen = np.count_nonzero(shares, axis=1).cumsum()
    return _run(rate, rows, np.arange(1, STEPS + 1), points_seen, thetas[1:])


def _small_batches(rng: np.random.Generator) -> np.ndarray:
    """Each step's share of each point: every epoch a fresh permutation, cut into batches of BATCH and a rest."""
    shares: list[np.ndarray] = []
    while len(shares) < STEPS:
        order = rng.permutation(POINTS)
        shares += [np.eye(POINTS)[order[first : first + BATCH]].mean(axis=0) for first in range(0, POINTS, BATCH)]
    return np.stack(shares[:STEPS])


def _run(rate: float, rows: np.ndarray, steps: np.ndarray, points_seen: np.ndarray, thetas: np.ndarray) -> dict:
    excess = _excess(rows, thetas)
    return {"rate": rate, "steps": steps, "points_seen": points_seen, "theta": thetas, "excess": excess}


def _standardized() -> dict[str, Any]:
    """BGD on (area - mean) / deviation; its last line is given in areas again."""
    mean, deviation = AREAS.mean(), AREAS.std()
    run = _batch_gradient_descent(_rows((AREAS - mean) / deviation), STANDARDIZED_RATE)
    height, slope = run["theta"][-1]
    theta1 = slope / deviation
    return {"rate": STANDARDIZED_RATE, "steps": run["steps"][-1], "theta": np.array([height - theta1 * mean, theta1])}


def write(numbers: dict[str, Any], page: Page) -> None:
    """The lines, where each run ends; why BGD takes millions of steps; one or two points at a time; what to change."""
    page.text(f"""Seven flats, their areas and prices, and a line: price = theta0 + theta1 * area. The loss is the mean
        of squares / 2. For each step batch gradient descent (BGD) takes the gradient of all seven points, stochastic
        gradient descent (SGD) that of one drawn at random, mini-batch gradient descent that of {BATCH}.""")
    caption = "The points and the lines; BGD's hides the least-squares line, SGD's and mini-batch's are nearly one"
    with page.figure("lines", caption) as figure:
        _draw_lines(figure.add_subplot(), numbers)
    page.table(
        ("points at each step", "rate", "steps", "points seen", "theta0", "theta1", "error above the least"),
        (_row(label, numbers[name]) for name, label in NAMES.items()),
    )
    best = numbers["least_squares"]
    page.text(f"""The error is the listings': the sum of squares / 2. The least-squares line, solved exactly, has theta0
        = {best["theta"][0]:.6g}, theta1 = {best["theta"][1]:.6g} and the least error, {best["error"]:.6g}.""")
    _write_why_bgd_is_slow(numbers, page)
    _write_small_batches(numbers, page)
    standard, bgd = numbers["standardized"], numbers["bgd"]
    page.text("## What to change")
    page.text(f"""Not the rate, but the data. With areas of mean 0 and variance 1 both curvatures are 1, and gradient
        descent with rate {standard["rate"]:g} meets the same rule after {standard["steps"]} steps instead of
        {bgd["steps"][-1]:,}, with theta0 only {abs(standard["theta"][0] - best["theta"][0]):.1g} away. Pictures are
        scaled to [0, 1] and normalised between the layers (batch norm) for the same reason. Where a loss cannot be made
        round, a rate for each parameter helps: see the lesson `adaptive`.""")


def _row(label: str, run: dict[str, Any]) -> tuple[Any, ...]:
    theta0, theta1 = run["theta"][-1]
    counts = (f"{run[name][-1]:,}" for name in ("steps", "points_seen"))
    return label, run["rate"], *counts, f"{theta0:.6g}", f"{theta1:.6g}", run["excess"][-1]


def _write_why_bgd_is_slow(numbers: dict[str, Any], page: Page) -> None:
    listing, bgd, best = numbers["listing"], numbers["bgd"], numbers["least_squares"]
    flat, steep = numbers["curvatures"]
    theta0, theta1 = bgd["theta"][-1]
    page.text("## BGD: millions of steps, and then it stops early")
    page.text(f"""The notes' BGD listing, run unchanged, ends at theta0 = {listing["theta"][0]:.6f}, theta1 =
        {listing["theta"][1]:.6f} after {listing["steps"]:,} steps; this run at {theta0:.6f}, {theta1:.6f} after
        {bgd["steps"][-1]:,}. Both stop when a step changes the error by less than {TOLERANCE:g}, one part in
        {best["error"] / TOLERANCE:.0g} of it: the last digits of the sum decide, and another order of summation stops a
        little earlier or later.""")
    page.text(f"""Where it stops, theta0 is still {best["theta"][0] - theta0:.2f} from the least-squares line's. The
        rule asks how little a step changes, not how far the goal is. Along the flat direction, of curvature {flat:.3g},
        a step goes only rate * curvature = {bgd["rate"] * flat:.2g} of what is left, so a small step may have a long
        way before it. By theory an error of {TOLERANCE:g} / (2 * rate * curvature) =
        {TOLERANCE / (2 * bgd["rate"] * flat):.2f} is left; measured: {bgd["excess"][-1]:.2f}.""")
    with page.figure("paths", "The way of the parameters over the contours of the error", (10, 4.5)) as figure:
        whole, start = figure.subplots(1, 2)
        _draw_paths(whole, numbers, theta0=(-150, 2000), theta1=(-2, 46))
        _draw_paths(start, numbers, theta0=(-0.03, 0.56), theta1=(-2, 46))
        whole.set_title("the whole way; the star: least squares")
        start.set_title("the beginning, theta0 stretched")
        start.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    page.text(f"""Across the valley the curvature is {steep:,.0f}, along it {steep / flat:,.0f} times less. A rate above
        2 / {steep:,.0f} = {2 / steep:.2g} would throw the line from wall to wall, so {ALPHA:g} is nearly the highest
        possible, and with it the valley's floor is reached in {_valley(numbers, "bgd", "steps")} steps and its lowest
        point in millions.""")


def _write_small_batches(numbers: dict[str, Any], page: Page) -> None:
    bgd, sgd, mini_batch = (numbers[name] for name in NAMES)
    page.text("## One or two points at a time")
    caption = "How far the error is above the least, against steps and against points seen"
    with page.figure("errors", caption, (10, 4.5)) as figure:
        _draw_errors(figure.subplots(1, 2, sharey=True), numbers)
    page.text(f"""The listing of SGD divides alpha by m = {POINTS} although its step sees one point: its rate is
        {sgd["rate"]:.3g}, a seventh of BGD's. So it needs more steps to the valley's floor,
        {_valley(numbers, "sgd", "steps")} instead of {_valley(numbers, "bgd", "steps")}, but about as many points seen,
        {_valley(numbers, "sgd", "points_seen")} and {_valley(numbers, "bgd", "points_seen")}. Along the valley all are
        slow: after {STEPS:,} steps theta0 is {_at(bgd, STEPS, "theta")[0]:.2f} (BGD), {sgd["theta"][-1][0]:.2f} (SGD),
        {mini_batch["theta"][-1][0]:.2f} (mini-batch) of {numbers["least_squares"]["theta"][0]:,.0f}.""")
    page.text(f"""Small batches do not come to rest there: each point pulls the line towards itself. Over the last half
        of the {STEPS:,} steps the error is on average {_late(sgd):.3g} above the least with one point at a time and
        {_late(mini_batch):.3g} with two, the less the larger the batch; BGD after {STEPS:,} steps has
        {_at(bgd, STEPS, "excess"):.3g}. The listing's rule to stop is not met by SGD: of all its steps the smallest
        changes the error by {np.abs(np.diff(sgd["excess"])).min():.2g}.""")
    page.text(f"""The notes' formula of SGD has alpha itself. With it the point of area {AREAS[-1]:g} multiplies its own
        distance from the line by 1 - {ALPHA:g} * {AREAS[-1] ** 2 + 1:,.0f} = {1 - ALPHA * (AREAS[-1] ** 2 + 1):.2f} at
        each of its steps and throws the line over: from step {STEPS // 2} on the error still rises to
        {numbers["sgd_at_alpha"]["excess"][STEPS // 2 :].max():.2g} above the least. A rate that suits the mean of all
        points may be too high for one of them.""")
    page.text(f"""The notes describe mini-batches without a listing. Chosen here: batches of {BATCH}, a fresh
        permutation of the seven points every epoch (its last batch is one point), SGD's rate, {STEPS:,} steps. The
        random choices are those of seed {SEED}.""")


def _draw_lines(axes: "Axes", n: dict[str, Any]) -> None:
    ends = np.array([0.0, 650.0])
    for name, label in NAMES.items():
        run = n[name]
        axes.plot(ends, _rows(ends) @ run["theta"][-1], label=f"{label}, {run['steps'][-1]:,} steps")
    axes.plot(ends, _rows(ends) @ n["least_squares"]["theta"], label="least squares")
    axes.plot(n["areas"], n["prices"], "ko", label="the points")
    axes.set(xlabel="area", ylabel="price")
    axes.legend()


def _draw_paths(axes: "Axes", n: dict[str, Any], theta0: tuple[float, float], theta1: tuple[float, float]) -> None:
    grid = np.stack(np.meshgrid(np.linspace(*theta0, 300), np.linspace(*theta1, 300)), axis=-1)
    excess = _excess(_rows(AREAS), grid)
    axes.contour(grid[..., 0], grid[..., 1], excess, np.geomspace(1e5, 1e9, 13), colors="0.75", linewidths=0.7)
    for (name, label), marker in zip(NAMES.items(), "o^s", strict=True):
        path = np.concatenate([np.zeros((1, 2)), n[name]["theta"]])
        axes.plot(path[:, 0], path[:, 1], label=label, marker=marker, markersize=2.5, linewidth=0.8)
    axes.plot(*n["least_squares"]["theta"], "k*", markersize=10)
    axes.set(xlim=theta0, ylim=theta1, xlabel="theta0", ylabel="theta1")
    axes.grid(False)


def _draw_errors(panels: Any, n: dict[str, Any]) -> None:
    for axes, x in zip(panels, ("steps", "points_seen"), strict=True):
        for name, label in NAMES.items():
            axes.loglog(n[name][x], n[name]["excess"], label=label, linewidth=1)
        axes.set_xlabel(x.replace("_", " "))
    panels[0].set_ylabel("error above the least")
    panels[0].legend(loc="lower left")


def _late(run: dict[str, Any]) -> float:
    """The mean error above the least in the last half."""
    return float(np.mean(run["excess"][STEPS // 2 :]))


def _at(run: dict[str, Any], step: int, what: str) -> Any:
    """What the run had after a step that was kept."""
    return run[what][np.flatnonzero(run["steps"] == step)[0]]


def _valley(numbers: dict[str, Any], name: str, what: str) -> int:
    """Steps or points seen until the error above the least is below twice that of the best line through the origin."""
    run = numbers[name]
    return int(run[what][np.argmax(run["excess"] < 2 * numbers["through_origin"]["excess"])])
