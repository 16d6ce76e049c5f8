"""A local minimum, a plateau and a saddle, where momentum goes through."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxfood.lessons.descent import Descent, descend, first_step, optimizer_settings, steps_in_words
from jaxfood.report.page import COLOURS, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = jax.Array | np.ndarray

RATE, STEPS = 0.01, 600
SHARE = 0.9  # of the last movement that is kept, the notes' lambda
FASTER = 10  # 1 / (1 - SHARE): how much further momentum moves on a steady slope
DECAY_AT, DECAY, DECAY_STEPS = 50, 0.1, 100
SLOW, FAST = "gradient descent", f"gradient descent, {FASTER} x rate"
RUNNERS = {  # optimizer, learning rate
    SLOW: ("sgd", RATE),
    FAST: ("sgd", FASTER * RATE),
    "momentum": ("momentum", RATE),
    "notes_momentum": ("notes_momentum", RATE),
    "nesterov": ("nesterov", RATE),
}


def two_valleys(x: Array) -> Any:
    """x^4 / 4 - x^2 / 2 - x / 5 of each element: a high valley at -0.88, a hill at -0.21, a low valley at 1.09."""
    return x**4 / 4 - x**2 / 2 - x / 5


def plateau(x: Array) -> Any:
    """x^4 / 4 - 2 x^3 / 3 of each element: the slope x^2 (x - 2) is 0 on a plateau at 0 and in the minimum at 2."""
    return x**4 / 4 - 2 * x**3 / 3


def saddle(point: Array) -> Any:
    """The notes' (1 - w1 w2)^2: a saddle at (0, 0), minima wherever w1 w2 = 1."""
    return (1 - point[0] * point[1]) ** 2


class Place(NamedTuple):
    """Where gradient descent has trouble."""

    loss: Callable[[jax.Array], jax.Array]  # of the parameters [parameters]
    start: tuple[float, ...]
    through: Callable[[Descent], np.ndarray]  # whether the trouble is passed, [steps + 1]


PLACES = {
    "local minimum": Place(lambda x: two_valleys(x).sum(), (-2.0,), lambda way: way.points[:, 0] > -0.2),
    "plateau": Place(lambda x: plateau(x).sum(), (-1.5,), lambda way: way.points[:, 0] > 0.2),
    "saddle": Place(saddle, (1.5, -1.499), lambda way: way.losses < 0.5),
    "saddle, from its ridge": Place(saddle, (1.5, -1.5), lambda way: way.losses < 0.5),
}


def measure(*, full: bool = False) -> dict[str, Any]:
    """Every runner at every place, 600 steps. `full` changes nothing.

    Returns:
        `rate`, `share`; `places`: for each place and runner `points`, `losses`, `gradient_norms` of the way, and
        `steps`, after which the trouble was passed, or None; `starts`: from which share of the starts left and right of
        the hill each runner ends in the low valley; `recursion`: the notes' first movements, summed by their formula
        from the gradients, and as the optimizer moved; `difference`: the largest between momentum and notes_momentum at
        the constant rate; `decay`: how far each moves at every step when the rate falls to a tenth.
    """
    places = {place: {runner: _way(PLACES[place], runner) for runner in RUNNERS} for place in PLACES}
    return {
        "rate": RATE,
        "share": SHARE,
        "places": places,
        "starts": _starts(),
        "recursion": _recursion(places["local minimum"]["notes_momentum"]),
        "difference": max(
            np.abs(runs["momentum"]["points"] - runs["notes_momentum"]["points"]).max() for runs in places.values()
        ),
        "decay": {name: _movements_under_decay(name) for name in ("momentum", "notes_momentum")},
    }


def _settings(runner: str) -> tuple[str, ...]:
    name, rate = RUNNERS[runner]
    return optimizer_settings(name, rate, *(() if name == "sgd" else (f"optimizer.momentum={SHARE}",)))


def _way(place: Place, runner: str) -> dict[str, Any]:
    path = descend(place.loss, place.start, _settings(runner), STEPS)
    return {**path._asdict(), "steps": first_step(place.through(path))}


def _starts() -> dict[str, Any]:
    """All starts at once: the optimizers move each element on its own."""
    starts = np.linspace(-2.5, 2.5, 501)
    hill = np.sort(np.roots((1, 0, -1, -1 / 5)))[1]  # the middle one of the three points where the slope is 0
    sides = {"left": starts < hill, "right": starts > hill}
    shares = {}
    for runner in RUNNERS:
        ends = descend(lambda x: two_valleys(x).sum(), starts.tolist(), _settings(runner), STEPS).points[-1]
        shares[runner] = {side: np.mean(ends[where] > hill) for side, where in sides.items()}
    return {"lowest": starts[0], "highest": starts[-1], "hill": hill, "in_low_valley": shares}


def _recursion(way: dict[str, Any]) -> dict[str, Any]:
    """m_{t+1} = -rate (g_t + share g_{t-1} + share^2 g_{t-2} + ...), for the first four movements."""
    positions = way["points"][:5, 0]
    with jax.enable_x64(True):
        gradients = np.asarray(jax.vmap(jax.grad(two_valleys))(positions[:4]))
    powers = np.tril(SHARE ** np.subtract.outer(np.arange(4), np.arange(4)).clip(0))
    return {
        "positions": positions[:-1],
        "gradients": gradients,
        "by_formula": -RATE * powers @ gradients,
        "moved": np.diff(positions),
    }


def _movements_under_decay(name: str) -> np.ndarray:
    """How far each step goes down a slope of 1, `[DECAY_STEPS]`."""
    schedule = ("schedule.name=step", f"schedule.step_size={DECAY_AT}", f"schedule.gamma={DECAY}")
    way = descend(lambda x: x.sum(), (0.0,), (*_settings(name), *schedule), DECAY_STEPS)
    return -np.diff(way.points[:, 0])


def write(numbers: dict[str, Any], page: Page) -> None:
    """The three places; what momentum is; where it does not help; the two forms of it under a falling rate."""
    places = numbers["places"]
    page.text(f"""Gradient descent moves by -rate * gradient, so it stops where the gradient is 0, and crawls where it
        is small. Momentum keeps a share of its last movement, here {numbers["share"]:g}, and adds the new step to it: a
        ball that rolls on. All start with a rate of {numbers["rate"]:g} and take {STEPS} steps. On a steady slope a
        share of {numbers["share"]:g} adds up to {FASTER} times the step of gradient descent, so there is a row for
        gradient descent with {FASTER} times the rate too: what it cannot do, momentum does not do by speed alone.""")
    caption = "Above: the steps of gradient descent and, on the curves raised a little, of momentum. Below: the loss"
    with page.figure("places", caption, (12, 7)) as figure:
        _draw_places(figure.subplots(2, 3), places)
    page.table(
        ("place", "optimizer", "ends at", "loss", "gradient norm", "steps until through"),
        (
            (place, runner, _position(way), way["losses"][-1], way["gradient_norms"][-1], steps_in_words(way["steps"]))
            for place, ways in places.items()
            for runner, way in ways.items()
        ),
    )
    _write_places(numbers, page)
    _write_recursion(numbers, page)
    _write_decay(numbers, page)


def _position(way: dict[str, Any]) -> str:
    return ", ".join(f"{coordinate:z.3f}" for coordinate in way["points"][-1])


def _highest_after_rise(losses: np.ndarray) -> float:
    """How high the loss goes once it rises again."""
    return float(losses[np.argmax(np.diff(losses) > 0) :].max())


def _write_places(numbers: dict[str, Any], page: Page) -> None:
    minimum, flat, pass_, ridge = numbers["places"].values()
    page.text(f"""**Local minimum** (`x^4 / 4 - x^2 / 2 - x / 5`). Gradient descent ends in the high valley at
        {_position(minimum[SLOW])}, at both rates. Momentum is over the hill after {minimum["momentum"]["steps"]} steps
        and ends at {_position(minimum["momentum"])}, where the loss is
        {minimum[SLOW]["losses"][-1] - minimum["momentum"]["losses"][-1]:.2f} lower.""")
    page.text(f"""**Plateau** (`x^4 / 4 - 2 x^3 / 3`). In front of the plateau the step shrinks with the square of the
        way left: after {STEPS} steps gradient descent is still {-flat[SLOW]["points"][-1][0]:.3f} before it, with
        {FASTER} times the rate {-flat[FAST]["points"][-1][0]:.4f}. It never arrives at the end of the plateau. Momentum
        is across after {flat["momentum"]["steps"]} steps.""")
    page.text(f"""**Saddle** (`(1 - w1 w2)^2`, the notes' example). Both come down a ridge that leads to the saddle, a
        thousandth beside it. Momentum rolls up the other side, to a loss of
        {_highest_after_rise(pass_["momentum"]["losses"]):.1f}, and back. Every step away from the ridge grows with the
        distance from it, so gradient descent leaves too, after {pass_[SLOW]["steps"]} steps, momentum after
        {pass_["momentum"]["steps"]}. But so does gradient descent with {FASTER} times the rate, after
        {pass_[FAST]["steps"]}: here momentum is no more than speed. From the ridge itself nothing leaves: momentum ends
        with a loss of {ridge["momentum"]["losses"][-1]:g} too, for no gradient has ever pointed aside. Only the
        curvature, a negative eigenvalue of the Hessian, shows that way.""")
    starts = numbers["starts"]
    shares = starts["in_low_valley"]
    page.text(f"""Going over a hill is no merit in itself. From all starts between {starts["lowest"]:g} and
        {starts["highest"]:g} on the first curve, these shares end in the low valley. Momentum loses some that began on
        the right side.""")
    page.table(
        ("optimizer", "started left of the hill", "started right of it"),
        ((runner, f"{share['left']:.0%}", f"{share['right']:.0%}") for runner, share in shares.items()),
    )


def _write_recursion(numbers: dict[str, Any], page: Page) -> None:
    recursion = numbers["recursion"]
    page.text("## The notes' recursion")
    page.text(f"""`m_0 = 0`, `m_1 = -eta g_0`, `m_2 = -lambda eta g_0 - eta g_1`, ...: each movement is the sum of all
        gradients so far, the older the less. `notes_momentum` on the first curve, eta = {numbers["rate"]:g}, lambda =
        {numbers["share"]:g}:""")
    formulas = (
        "`-eta g_0`",
        "`-lambda eta g_0 - eta g_1`",
        "`-lambda^2 eta g_0 - lambda eta g_1 - eta g_2`",
        "...",
    )
    columns = (recursion[name] for name in ("positions", "gradients", "by_formula", "moved"))
    page.table(
        ("t", "movement `m_{t+1}`", "position", "gradient `g_t`", "by the formula", "as the optimizer moved"),
        (
            (t, formula, *(f"{x:.5f}" for x in row))
            for t, (formula, *row) in enumerate(zip(formulas, *columns, strict=True))
        ),
    )


def _write_decay(numbers: dict[str, Any], page: Page) -> None:
    decay, rate = numbers["decay"], numbers["rate"]
    page.text("## Two forms of momentum")
    page.text(f"""PyTorch's `momentum` sums gradients and multiplies the sum by the rate; the notes' multiplies each
        gradient before it is summed. At a constant rate these are the same: over all the ways above they differ by at
        most {numbers["difference"]:.0e}. When the rate changes they differ: PyTorch's movement follows at once, the
        notes' keeps the speed that it had and loses {1 - numbers["share"]:.0%} of it a step.""")
    with page.figure("decay", f"Movement on a slope of 1; the rate falls to a tenth at step {DECAY_AT}") as figure:
        axes = figure.add_subplot()
        for name, movements in decay.items():
            axes.plot(movements, label=name)
        axes.set(xlabel="step", ylabel="movement")
        axes.legend()
    torchs, notes = (decay[name][DECAY_AT:].sum() for name in ("momentum", "notes_momentum"))
    page.text(f"""From step {DECAY_AT} on PyTorch's moves {torchs:.2f} further, the notes' {notes:.2f}: a movement of
        {rate * FASTER:g} a step dies away slowly. With the notes' form a falling rate takes effect 1 / (1 - lambda) =
        {FASTER} steps late.""")


def _draw_places(panels: Any, places: dict[str, Any]) -> None:
    minimum, flat, pass_ = ("local minimum", "plateau", "saddle")
    _draw_curve(panels[0, 0], two_valleys, (-2.1, 1.7), places[minimum])
    _draw_curve(panels[0, 1], plateau, (-1.6, 2.5), places[flat])
    _draw_surface(panels[0, 2], places[pass_])
    for axes, place in zip(panels[1], (minimum, flat, pass_), strict=True):
        for runner, way in places[place].items():
            axes.plot(np.arange(1, STEPS + 1), way["losses"][1:], label=runner)
        axes.set(xscale="log", xlabel="step", ylabel="loss")
    for axes, place in zip(panels[0], (minimum, flat, pass_), strict=True):
        axes.set_title(place)
    panels[1, 0].legend()


def _draw_curve(axes: "Axes", curve: Callable[[Any], Any], limits: tuple[float, float], ways: dict[str, Any]) -> None:
    x = np.linspace(*limits, 300)
    axes.plot(x, curve(x), color="0.6", linestyle="-")
    raised = 0.04 * np.ptp(curve(x))
    for runner, colour, marker, above in ((SLOW, COLOURS[0], "o", 0.0), ("momentum", COLOURS[2], "^", raised)):
        way = ways[runner]
        axes.plot(way["points"][:, 0], way["losses"] + above, marker, color=colour, markersize=3, label=runner)
    axes.set(xlabel="x", ylabel="loss")
    axes.legend()


def _draw_surface(axes: "Axes", ways: dict[str, Any]) -> None:
    grid = np.meshgrid(*[np.linspace(-1.8, 1.8, 200)] * 2)
    axes.contour(*grid, saddle(np.stack(grid)), np.linspace(0, 4, 9), colors="0.75", linewidths=0.7)
    for runner, colour, marker in ((SLOW, COLOURS[0], "o"), ("momentum", COLOURS[2], "^")):
        points = ways[runner]["points"]
        axes.plot(points[:, 0], points[:, 1], marker, color=colour, markersize=3, label=runner)
    axes.set(xlabel="w1", ylabel="w2", aspect="equal")
    axes.grid(False)
    axes.legend(frameon=True, framealpha=1, edgecolor="none")
