"""Very unequal curvature: one rate for all parameters, or one for each."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config.optimizer import Adam, NotesRMSprop
from jaxfood.lessons.descent import descend_batches, first_step, optimizer_settings, steps_in_words
from jaxfood.report.page import COLOURS, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The bowl (0.01 b^2 + 199.9 w^2) / 2, flat along b, steep along w: there a rate of 2 / 199.9 would diverge.
CURVATURES = np.array([0.01, 199.9])
START = (-40.0, 0.5)  # b has a long way along the valley, w a short one down its wall
NOISE, SEED = 1e-6, 0  # how far each step's bowl lies from the others, as that of a batch of pictures does
NEAR = 0.01  # arrived: b is at this share of its start
RATE, STEPS = 0.1, 5_000
BEST_RATE = 2 / float(CURVATURES.sum())  # of gradient descent: shrinks b and w by the same factor
GRADIENT_DESCENT = {  # rate, steps; the first two rates are the notes'
    "gradient descent, 1e-2": (1e-2, 1_000),
    "gradient descent, 1e-7": (1e-7, 300_000),
    "gradient descent, best rate": (BEST_RATE, 50_000),
}
ADAPTIVE = {  # optimizer, rate
    "adagrad": ("adagrad", RATE),
    "adagrad, 10 x rate": ("adagrad", 10 * RATE),
    **{name: (name, RATE) for name in ("rmsprop", "adam", "notes_adagrad", "notes_rmsprop", "notes_adam")},
}
TURNED: dict[str, tuple[Any, ...]] = {  # optimizer, rate, other settings
    "gradient descent": ("sgd", 1e-2),
    **ADAPTIVE,
    "adam without momentum": ("adam", RATE, "optimizer.beta1=0"),
}
BURSTING = ("notes_adagrad", "notes_rmsprop", "rmsprop", "adam")


def _exponential(gamma: float) -> tuple[str, ...]:
    return "schedule.name=exponential", f"schedule.gamma={gamma}"


SCHEDULES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "warm-up alone": ("schedule.warmup_ratio=0.1",),
    "exponential, 0.999": _exponential(0.999),
    "exponential, 0.998": _exponential(0.998),
    "inverse_sqrt": ("schedule.name=inverse_sqrt",),
    "warmup_cosine": ("schedule.name=warmup_cosine",),
}
DRAWN = ("constant", "warm-up alone", "exponential, 0.998", "inverse_sqrt")
GAMMAS = (1.0, 0.999, 0.998, 0.996, 0.994, 0.99)
ALONG, ACROSS = np.eye(2), np.array([[1, -1], [1, 1]]) / np.sqrt(2)  # columns: the directions of b and w
LATE = 200  # by then w has come down to the valley's floor
WINDOW, PATH_POINTS = 10, 1_500  # one number is kept for so many steps; points kept of a path


def measure(*, full: bool = False) -> dict[str, Any]:
    """Gradient descent and the adaptive optimizers in the bowl. `full` changes nothing.

    Returns:
        `curvatures`, `start`; `gradient_descent` and `adaptive`: for each run its `rate`, `steps`, outcome (see
        `_outcome`) and up to 1,500 `points` (b, w) of its path; `schedules`: for each optimizer and schedule the
        outcome, and of every 10 steps the largest |w|, `largest_w`, and w's rate times its curvature, `sharpness`;
        `decays`: the outcome of notes_rmsprop, its rate multiplied by a factor every step; `turned`: how far b ends
        from 0, and how far in a bowl turned by 45 degrees.
    """
    paths = {label: _descend(*run) for label, run in TURNED.items()}
    return {
        "curvatures": CURVATURES,
        "start": START,
        "gradient_descent": {
            label: _run(rate, _descend("sgd", rate, steps=steps), stride=steps // 1_000)
            for label, (rate, steps) in GRADIENT_DESCENT.items()
        },
        "adaptive": {label: _run(rate, paths[label], stride=1) for label, (_, rate) in ADAPTIVE.items()},
        "schedules": {
            name: {label: _scheduled(name, schedule, paths[name]) for label, schedule in SCHEDULES.items()}
            for name in BURSTING
        },
        "decays": {f"{gamma:g}": _outcome(_descend("notes_rmsprop", RATE, *_exponential(gamma))) for gamma in GAMMAS},
        "turned": {
            label: {
                "along_axes": abs(paths[label][-1, 0]),
                "turned": abs(_descend(*run, axes=ACROSS)[-1, 0]),
            }
            for label, run in TURNED.items()
        },
    }


def _descend(name: str, rate: float, *settings: str, steps: int = STEPS, axes: np.ndarray = ALONG) -> np.ndarray:
    """The path of (b, w), `[steps + 1, 2]`, which lie along the columns of `axes` in the parameters' plane."""

    def loss(parameters: jax.Array, centre: jax.Array) -> jax.Array:
        return jnp.sum(CURVATURES * (parameters @ axes - centre) ** 2) / 2

    optimizer = optimizer_settings(name, rate, *settings)
    return descend_batches(loss, (axes @ START).tolist(), optimizer, _centres(steps)) @ axes


def _centres(steps: int) -> np.ndarray:
    """The lowest point of each step's bowl, `[steps, 2]`."""
    return np.random.default_rng(SEED).normal(scale=NOISE, size=(steps, 2))


def _loss(points: np.ndarray) -> Any:
    """The loss without noise, `[..., 2]` -> `[...]`."""
    return (CURVATURES * points**2).sum(axis=-1) / 2


def _outcome(points: np.ndarray) -> dict[str, Any]:
    """Where it ends and with which loss, when b was near its goal, and the largest |w| once it had come down."""
    b, w = np.abs(points).T
    late = LATE + int(w[LATE:].argmax())
    return {
        "end": points[-1],
        "loss": _loss(points[-1]),
        "arrived": first_step(b <= NEAR * abs(START[0])),
        "late_excursion": w[late],
        "late_step": late,
    }


def _run(rate: float, points: np.ndarray, stride: int) -> dict[str, Any]:
    return {"rate": rate, "steps": len(points) - 1, **_outcome(points), "points": points[::stride][:PATH_POINTS]}


def _scheduled(name: str, schedule: tuple[str, ...], constant: np.ndarray) -> dict[str, Any]:
    points = _descend(name, RATE, *schedule) if schedule else constant
    w = points[:, 1]
    # Without momentum a step is -rate / sigma * curvature * (w - centre): what multiplies the distance is read off it.
    sharpness = (w[:-1] - w[1:]) / (w[:-1] - _centres(STEPS)[:, 1])
    return {
        **_outcome(points),
        "largest_w": np.abs(w[1:]).reshape(-1, WINDOW).max(axis=1),
        "sharpness": None if name == "adam" else sharpness[::WINDOW],
    }


def write(numbers: dict[str, Any], page: Page) -> None:
    """The two rates of the notes; a rate for each parameter; the late bursts and what decay does; a limit."""
    _write_ways(numbers, page)
    _write_bursts(numbers, page)
    _write_turned(numbers, page)


def _write_ways(numbers: dict[str, Any], page: Page) -> None:
    flat, steep = numbers["curvatures"]
    runs = numbers["gradient_descent"] | numbers["adaptive"]
    high, low, best = numbers["gradient_descent"].values()
    page.text(f"""A convex bowl of two parameters: along b its curvature is {flat:g}, along w {steep:g},
        {steep / flat:,.0f} times as much. The contours are long ellipses. All start at b = {numbers["start"][0]:g}, w =
        {numbers["start"][1]:g}; the cross marks the lowest point. Each step sees a bowl whose centre lies a little
        elsewhere (deviation {NOISE:g}), as batches do.""")
    caption = (
        f"The ways over the contours of the loss (the adaptive ones' first {PATH_POINTS:,} steps); a cross: the goal"
    )
    with page.figure("ways", caption, (12, 8.5)) as figure:
        drawn = [(label, run) for label, run in runs.items() if run is not best]
        for axes, (label, run) in zip(figure.subplots(3, 3, sharex=True, sharey=True).flat, drawn, strict=True):
            _draw_way(axes, label, run)
    page.table(
        ("optimizer", "rate", "steps", "b ends at", "w ends at", "loss", "steps until b is near"),
        (
            (label, f"{run['rate']:.5g}", f"{run['steps']:,}", *run["end"], run["loss"], steps_in_words(run["arrived"]))
            for label, run in runs.items()
        ),
    )
    page.text(f"""One rate cannot suit both. {high["rate"]:g} is just below 2 / {steep:g} = {2 / steep:.4g}, where w
        would diverge: w jumps from wall to wall, and b is still at {high["end"][0]:.1f}. With {low["rate"]:g} w comes
        down to the valley's floor without a jump, in {low["steps"]:,} steps, and b has gone from
        {numbers["start"][0]:g} to {low["end"][0]:.3f}. Even the best rate for both, 2 / (sum of the curvatures), needs
        {best["arrived"]:,} steps until b is within {NEAR:.0%} of its start.""")
    adagrad, faster, rmsprop = runs["adagrad"], runs["adagrad, 10 x rate"], runs["rmsprop"]
    page.text(f"""The adaptive optimizers divide each parameter's gradient by the size sigma of its own past gradients,
        so that the curvature cancels: at first every parameter moves by about the rate a step, on the wall and in the
        valley. PyTorch's AdaGrad divides by the root of the *sum* of squares, which only grows: from the rate
        {adagrad["rate"]:g} its steps become too small (b ends at {adagrad["end"][0]:.1f}), from {faster["rate"]:g} they
        suffice. RMSProp and the notes' AdaGrad divide by the root of a *mean* of squares; Adam by that too, and moves
        by the mean gradient. PyTorch's RMSProp begins that mean at 0, so that its first step is 1 / sqrt(1 - alpha)
        rates long: w jumps from {rmsprop["points"][0, 1]:g} to {rmsprop["points"][1, 1]:.2f}. The notes' begins it at
        the first square.""")


def _write_bursts(numbers: dict[str, Any], page: Page) -> None:
    schedules = numbers["schedules"]
    mean, decaying, adam = schedules["notes_adagrad"], schedules["notes_rmsprop"], schedules["adam"]["constant"]
    alpha, beta1 = NotesRMSprop().alpha, Adam().beta1
    page.text("## Late bursts, and decay")
    page.text(f"""On the valley's floor the gradient of w is nearly 0, so its sigma shrinks from step to step while b
        crawls on. When rate / sigma * curvature exceeds 2, w diverges, however little of it was left: with the notes'
        AdaGrad at a constant rate it is thrown up to {mean["constant"]["late_excursion"]:.2g} (step
        {mean["constant"]["late_step"]:,}). The large gradients up there make sigma large again, w comes back, and all
        begins anew.""")
    caption = "Above: the largest |w| of every ten steps. Below: rate / sigma * curvature; above 2 (grey) w diverges"
    with page.figure("bursts", caption, (11, 7)) as figure:
        _draw_bursts(figure.subplots(2, 2, sharex=True, sharey="row"), mean, decaying)
    page.text(f"""How far w still goes after step {LATE}, and in brackets the loss after the last step:""")
    runs = {label: [runs[label] for runs in schedules.values()] for label in SCHEDULES}
    page.table(
        ("schedule", *(f"`{name}`" for name in schedules)),
        ((label, *(f"{run['late_excursion']:.2g} ({run['loss']:.1g})" for run in row)) for label, row in runs.items()),
    )
    page.text(f"""The notes' AdaGrad forgets slowly: its sigma falls with the root of the number of steps.
        `inverse_sqrt` falls just so and keeps the product below 2, the other decays overtake it, and no burst is left.
        Warm-up alone delays the first one to step {mean["warm-up alone"]["late_step"]:,}: w comes down in more and
        smaller steps, whose gradients sigma remembers longer.""")
    page.text(f"""RMSProp's sigma falls by a factor every step, sqrt(alpha), and overtakes most decays. They do not keep
        it from bursting, but the lower the rate is by then the lower is the burst, and what follows ends: at a constant
        rate w jumps from wall to wall for ever, {abs(decaying["constant"]["end"][1]):.2f} to either side, half the
        rate. See the losses. Adam moves by a mean of gradients, in which jumps from wall to wall cancel: w diverges
        above 2 (1 + beta1) / (1 - beta1) = {2 * (1 + beta1) / (1 - beta1):.0f} instead of 2, so its bursts come late,
        step {adam["late_step"]:,}, and are low.""")
    page.text(f"""`notes_rmsprop` stays quiet when its rate falls about as fast as sigma, by sqrt({alpha:g}) =
        {alpha**0.5:.4f} a step. But then all steps together reach no further than rate / (1 - factor), and b stops on
        its way: a decay must be slow enough to arrive and fast enough to end quietly.""")
    page.table(
        ("factor a step", f"largest w after step {LATE}", "b ends at"),
        ((gamma, run["late_excursion"], run["end"][0]) for gamma, run in numbers["decays"].items()),
    )


def _write_turned(numbers: dict[str, Any], page: Page) -> None:
    turned = numbers["turned"]
    page.text("## A limit, and what to change")
    page.text(f"""A rate for each parameter helps as far as the ellipses lie along the parameters. In the same bowl
        turned by 45 degrees both parameters have the same curvature, and so nearly the same sigma: what is left is one
        rate for both. How far b, along the valley, is from its goal after {STEPS:,} steps:""")
    page.table(
        ("optimizer", "along the axes", "turned"),
        ((label, ends["along_axes"], ends["turned"]) for label, ends in turned.items()),
    )
    page.text("""Adam comes nearest, by its momentum: the valley's walls allow it a higher product, as above. The notes'
        Adam has that too, but its sigma begins at the first gradient and is slow to forget it.""")
    page.text("""So start with Adam, whose rate is about the length of a step in every parameter, let the rate fall to 0
        by the end of the run, and make the bowl rounder where you can, by normalised inputs and layers (see the lesson
        `linear-regression`).""")


def _draw_way(axes: "Axes", label: str, run: dict[str, Any]) -> None:
    b, w = np.meshgrid(np.linspace(-44, 6, 200), np.linspace(-0.7, 0.7, 200))
    loss = _loss(np.stack([b, w], axis=-1))
    axes.contour(b, w, loss, np.geomspace(0.1, 50, 8), colors="0.75", linewidths=0.7)
    axes.plot(*run["points"].T, color=COLOURS[0], linestyle="-", linewidth=0.7, marker="o", markersize=2)
    axes.plot(0, 0, "x", color=COLOURS[1], markersize=9, markeredgewidth=2)
    axes.set(title=label, xlabel="b", ylabel="w")
    axes.label_outer()
    axes.grid(False)


def _draw_bursts(panels: Any, *runs_of: dict[str, Any]) -> None:
    for (above, below), title, runs in zip(panels.T, BURSTING, runs_of, strict=False):
        steps = np.arange(0, STEPS, WINDOW)
        for label in DRAWN:
            above.semilogy(steps, runs[label]["largest_w"], label=label, linewidth=1)
            below.plot(steps, runs[label]["sharpness"], label=label, linewidth=1)
        below.axhline(2, color="0.6", linestyle="-", linewidth=2, zorder=0)
        above.set_title(title)
        below.set_xlabel("step")
    panels[0, 0].set(ylabel="|w|", ylim=(1e-7, 30))
    panels[1, 0].set(ylabel="rate / sigma * curvature", ylim=(0, 3))
    panels[0, 0].legend(ncols=2)
