"""The notes' example (1 - w1 w2)^2: its critical points, their eigenvalues, and the escape from the saddle."""

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxfood.config.landscape import SpectrumSettings, Tolerances
from jaxfood.landscape import (
    Eigenpairs,
    LineSearch,
    Objective,
    Point,
    compare,
    escape,
    expand_downhill,
    extreme_eigenvalues,
    judge,
)
from jaxfood.lessons.descent import descend, first_step, optimizer_settings, steps_in_words
from jaxfood.lessons.momentum import saddle as notes_loss
from jaxfood.report.page import COLOURS, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SADDLE, MINIMUM = (0.0, 0.0), (1.0, 1.0)
MINIMA = (MINIMUM, (2.0, 0.5), (0.5, 2.0), (-1.0, -1.0), (-2.0, -0.5), (-0.5, -2.0))  # some of w1 w2 = 1, both branches
RATE, STEPS = 0.05, 600
OFFSETS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)  # how far from the saddle, along w1
HALF = 0.5  # of the saddle's loss: below it gradient descent has left
SLICE = np.linspace(-2, 2, 81)


def measure(*, full: bool = False) -> dict[str, Any]:
    """The critical points, in float64. `full` changes nothing.

    Returns:
        `points`: for the saddle and six minima the gradient, Hessian and eigenvalues, each computed and by hand, the
        eigenvectors (rows), the verdict's `kind` and `reason`; `escape`: from the exact saddle along the negative
        eigenvector; `slices`: the loss and its second-order expansion along both eigenvectors of the saddle and of a
        minimum; `descents`: gradient descent from the saddle (`distance` 0) and from beside it: the highest and last
        loss, and the steps until the loss is under half of the saddle's, or None.
    """
    with jax.enable_x64(True):
        return {
            "points": [_critical_point(at) for at in (SADDLE, *MINIMA)],
            "escape": _escape(),
            "slices": {"saddle": _slices(SADDLE), "minimum": _slices(MINIMUM)},
            "rate": RATE,
            "descents": [_descent(distance) for distance in (0.0, *OFFSETS)],
        }


def gradient_by_hand(w1: float, w2: float) -> np.ndarray:
    """-2 (1 - w1 w2) (w2, w1)."""
    return -2 * (1 - w1 * w2) * np.array([w2, w1])


def hessian_by_hand(w1: float, w2: float) -> np.ndarray:
    """The second derivatives: 2 w2^2 and 2 w1^2, and 4 w1 w2 - 2 for both together."""
    mixed = 4 * w1 * w2 - 2
    return np.array([[2 * w2**2, mixed], [mixed, 2 * w1**2]])


def eigenvalues_by_hand(w1: float, w2: float) -> np.ndarray:
    """Ascending: the two roots of `x^2 - trace x + determinant`."""
    mean, mixed = w1**2 + w2**2, 4 * w1 * w2 - 2
    spread = math.hypot(w1**2 - w2**2, mixed)
    return np.array([mean - spread, mean + spread])


def _point_and_pairs(at: tuple[float, float]) -> tuple[Point, Eigenpairs]:
    point = Point(Objective.of(notes_loss), np.array(at))
    return point, extreme_eigenvalues(point, SpectrumSettings())


def _critical_point(at: tuple[float, float]) -> dict[str, Any]:
    point, pairs = _point_and_pairs(at)
    verdict = judge(expand_downhill(point), pairs, Tolerances())
    return {
        "point": at,
        "loss": point.loss,
        "gradient": point.gradient,
        "gradient_by_hand": gradient_by_hand(*at),
        "hessian": point.hessian,
        "hessian_by_hand": hessian_by_hand(*at),
        "eigenvalues": pairs.values,
        "eigenvalues_by_hand": eigenvalues_by_hand(*at),
        "eigenvectors": pairs.vectors,
        "kind": str(verdict.kind),
        "reason": verdict.reason,
    }


def _escape() -> dict[str, Any]:
    point, pairs = _point_and_pairs(SADDLE)
    out = escape(point, pairs, LineSearch())
    down, up = pairs.vectors
    return {
        **out._asdict(),
        "params": np.asarray(out.params),
        "loss_the_other_way": point.loss_at(-out.step * down),
        "losses_along_the_positive_one": [point.loss_at(sign * out.step * up) for sign in (-1, 1)],
    }


def _slices(at: tuple[float, float]) -> dict[str, Any]:
    point, pairs = _point_and_pairs(at)
    along = [compare(point, vector, SLICE)._asdict() for vector in pairs.vectors]
    return {"steps": SLICE, "eigenvalues": pairs.values, "along": along}


def _descent(distance: float) -> dict[str, Any]:
    losses = descend(notes_loss, (distance, 0.0), optimizer_settings("sgd", RATE), STEPS).losses
    return {
        "distance": distance,
        "highest_loss": losses.max(),
        "last_loss": losses[-1],
        "steps": first_step(losses < HALF),
    }


def write(numbers: dict[str, Any], page: Page) -> None:
    """Which points are critical and of which kind; the way out of the saddle; what gradient descent does there."""
    page.text("""The notes' network has one input, two weights and one picture, x = 1 with the target 1: its loss is
        `L = (1 - w1 w2)^2`. The gradient is `-2 (1 - w1 w2) (w2, w1)`. It is 0 at the origin, and wherever
        `w1 w2 = 1`: two curves on which the loss is 0. There are no other critical points. The Hessian has `2 w2^2` and
        `2 w1^2` on its diagonal and `4 w1 w2 - 2` beside it.""")
    page.table(
        ("point", "loss", "gradient norm", "Hessian", "eigenvalues", "by hand", "verdict"),
        (
            (
                _vector(point["point"]),
                float(point["loss"]),
                float(np.linalg.norm(point["gradient"])),
                ", ".join(_vector(row) for row in point["hessian"]),
                _vector(point["eigenvalues"]),
                _vector(point["eigenvalues_by_hand"]),
                point["kind"],
            )
            for point in numbers["points"]
        ),
    )
    _write_verdicts(numbers, page)
    _write_escape(numbers, page)
    _write_descents(numbers, page)


def _write_verdicts(numbers: dict[str, Any], page: Page) -> None:
    page.text("""The origin has eigenvalues of both signs, so it is a saddle. On the curves one eigenvalue is
        `2 (w1^2 + w2^2)` and the other is 0, because along its curve the loss stays 0: these minima are a valley, not a
        bowl. Positive definite, the notes' test, does not hold there, and from second derivatives alone nobody can tell
        such a minimum from a saddle. That is why the verdict is `degenerate`. Here the loss itself tells: it is a
        square, and 0 is the least that it can be.""")
    caption = "The error surface: the saddle, the two valleys of minima, and the way out along the negative eigenvector"
    with page.figure("surface", caption, (7, 5.5)) as figure:
        _draw_surface(figure.add_subplot(), numbers)


def _write_escape(numbers: dict[str, Any], page: Page) -> None:
    out = numbers["escape"]
    down, up = numbers["points"][0]["eigenvectors"]
    page.text("## The way out")
    page.text(f"""At the saddle the eigenvector of {out["eigenvalue"]:.3g} is {_vector(down)}; its sign is arbitrary. A
        line search along it goes {abs(out["step"]):.5f} (the square root of 2) far, to {_vector(out["params"])}, and
        the loss falls from {out["loss_before"]:g} to {out["loss_after"]:.0e}. The other way it falls to
        {out["loss_the_other_way"]:.0e}. As far along the other eigenvector, {_vector(up)}, it rises to
        {out["losses_along_the_positive_one"][0]:.3g} and {out["losses_along_the_positive_one"][1]:.3g}.""")
    caption = "The loss along both eigenvectors, and its second-order Taylor expansion"
    with page.figure("slices", caption, (10, 4.2)) as figure:
        for axes, (name, slices) in zip(figure.subplots(1, 2), numbers["slices"].items(), strict=True):
            _draw_slices(axes, slices)
            axes.set_title(f"the {name} at {_vector(SADDLE if name == 'saddle' else MINIMUM)}")
    page.text("""Near the saddle the expansion `1 - t^2` falls as the loss `(1 - t^2 / 2)^2` does, which is all that the
        escape needs for a direction. How far to go it cannot say: it falls for ever. In the minimum at (1, 1) it is
        flat along the eigenvector of 0, where the loss rises as `t^4 / 4`, because a straight line leaves the curved
        valley.""")


def _write_descents(numbers: dict[str, Any], page: Page) -> None:
    stays = numbers["descents"][0]
    page.text("## Gradient descent at the saddle")
    page.text(f"""At the exact origin the gradient is exactly 0: after {STEPS} steps the loss is still
        {stays["last_loss"]:g}. Beside it the distance along the negative eigenvector grows by the factor 1 + 2 rate, so
        every start comes out, at a rate of {numbers["rate"]:g} some
        {math.log(10) / math.log1p(2 * numbers["rate"]):.0f} steps later for each digit that it is nearer.""")
    page.table(
        ("start", f"steps until the loss is under {HALF:g}", f"loss after {STEPS} steps"),
        (
            (f"({run['distance']:g}, 0)", steps_in_words(run["steps"]), float(run["last_loss"]))
            for run in numbers["descents"]
        ),
    )


def _vector(values: Any) -> str:
    return f"({', '.join(f'{value:z.4g}' for value in np.round(np.asarray(values, float), 9))})"


def _draw_surface(axes: "Axes", numbers: dict[str, Any]) -> None:
    grid = np.meshgrid(*[np.linspace(-2.5, 2.5, 250)] * 2)
    levels = (0, 0.05, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
    surface = axes.contourf(*grid, notes_loss(np.stack(grid)), levels, cmap="cividis", norm="symlog")
    axes.figure.colorbar(surface, ax=axes, label="loss", ticks=levels, format="%g")
    branch = np.linspace(0.4, 2.5, 100)
    for sign, label in ((1, "minima, w1 w2 = 1"), (-1, None)):
        axes.plot(sign * branch, sign / branch, "-", color="white", linewidth=2, label=label)
    minima = np.array([point["point"] for point in numbers["points"][1:]])
    axes.plot(*minima.T, "o", color="white", markeredgecolor="black", label="minima of the table")
    end = numbers["escape"]["params"]
    axes.annotate("", end, SADDLE, arrowprops={"arrowstyle": "-|>", "color": COLOURS[1], "linewidth": 2.5})
    axes.plot([], [], "-", color=COLOURS[1], linewidth=2.5, label="escape")
    axes.plot(*SADDLE, "X", color=COLOURS[1], markeredgecolor="black", markersize=11, label="saddle")
    axes.set(xlabel="w1", ylabel="w2", aspect="equal")
    axes.grid(False)
    figure: Any = axes.figure
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, facecolor="0.75", frameon=True
    )


def _draw_slices(axes: "Axes", slices: dict[str, Any]) -> None:
    for eigenvalue, along, colour in zip(slices["eigenvalues"], slices["along"], COLOURS, strict=False):
        axes.plot(slices["steps"], along["losses"], "-", color=colour, label=f"loss, eigenvalue {eigenvalue:z.2g}")
        axes.plot(slices["steps"], along["expansion"], "--", color=colour, label="its expansion")
    axes.set(xlabel="step along the eigenvector", ylabel="loss", ylim=(-1.5, 6))
    axes.legend(fontsize="small", loc="upper center")
