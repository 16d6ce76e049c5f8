"""Classes as one-hot, softmax, and why not mean squared error: the notes' chapter on classification."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config import OPTIMIZERS
from jaxfood.lessons.class_codes import measure_codes, write_codes
from jaxfood.lessons.descent import descend, first_step, optimizer_settings, steps_in_words
from jaxfood.optim.losses import cross_entropy, mean_squared_error
from jaxfood.report.page import COLOURS, Page

LOSSES = {"cross-entropy": cross_entropy, "MSE": mean_squared_error}
LOGITS = np.array([1.0, 2.0, 3.0])
# The right class's logit far too low, a wrong one's far too high; the third stays at 0.
CORNER = (-10.0, 10.0)
LEARNING_RATE, STEPS, ARRIVED = 0.5, 500, 0.9
DRAWN = ("sgd", "momentum", "adagrad", "rmsprop", "adam")


def measure(*, full: bool = False) -> dict[str, Any]:
    """The lesson's numbers, in float64; `full` changes nothing.

    Returns:
        `codes`: see `measure_codes`. `softmax`: logits, their shares, softmax of multiples `[81, 3]`, and from which
        multiple on the gaps are wider than the shares'. `gradients`: absolute errors `[199]` and the size of the
        right logit's gradient `[199]` of each loss. `surface`: over the axis of both logits, losses and gradient norms
        `[wrong class, right class]`. `corner`: both where the descents start. `descents`: for each loss and optimizer
        the steps to a probability over 0.9 (None: never) and the last probability; `paths` up to there, of some.
    """
    with jax.enable_x64(True):
        numbers = {
            "codes": measure_codes(),
            "softmax": _measure_softmax(),
            "gradients": _measure_gradients(),
            "surface": _measure_surface(),
            "corner": {name: _measure_corner(loss) for name, loss in LOSSES.items()},
        }
    return numbers | _descend_from_corner()


def write(numbers: dict[str, Any], page: Page) -> None:
    """From one-hot over softmax to the loss."""
    write_codes(numbers["codes"], page)
    _write_softmax(numbers["softmax"], page)
    _write_gradients(numbers["gradients"], page)
    _write_descents(numbers, page)


def right_probability(points: np.ndarray) -> np.ndarray:
    """Softmax's first output `[N]` at two logits `[N, 2]`, the third being 0."""
    return 1 / (1 + np.exp(points[:, 1] - points[:, 0]) + np.exp(-points[:, 0]))


def _measure_softmax() -> dict[str, Any]:
    multiples = np.linspace(0, 4, 81)
    shares = LOGITS / LOGITS.sum()
    outputs = np.asarray(jax.nn.softmax(multiples[:, None] * LOGITS))
    wider = multiples[np.argmax(np.ptp(outputs, axis=1) > np.ptp(shares))]
    return {"logits": LOGITS, "shares": shares, "multiples": multiples, "outputs": outputs, "wider_from": wider}


def _measure_gradients() -> dict[str, Any]:
    """With three classes; what the right one lacks is split evenly between the wrong ones, or all on one of them."""
    errors = np.linspace(0, 1, 201)[1:-1]
    evenly = np.column_stack((1 - errors, errors / 2, errors / 2))
    on_one = np.column_stack((1 - errors, errors * (1 - 1e-12), errors * 1e-12))
    labels = jnp.zeros(len(errors), int)

    def sizes(loss: Callable[..., jax.Array], probabilities: np.ndarray) -> np.ndarray:
        gradient = jax.grad(lambda logits: jnp.sum(loss(logits, labels)))(jnp.log(probabilities))
        return np.abs(gradient[:, 0])

    curves = {
        "cross-entropy": sizes(cross_entropy, evenly),
        "MSE, the rest on one wrong class": sizes(mean_squared_error, on_one),
        "MSE, the rest on both": sizes(mean_squared_error, evenly),
    }
    return {"errors": errors, "curves": curves}


def _of_two_logits(loss: Callable[..., jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A loss of two logits `[2]`; the third is 0, and the first class is right."""
    return lambda point: loss(jnp.append(point, 0.0)[None], jnp.zeros(1, int))[0]


def _steepness(loss: Callable[..., jax.Array]) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """The loss at two logits, and the norm of its gradient."""

    def at(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(_of_two_logits(loss))(point)
        return value, jnp.linalg.norm(gradient)

    return at


def _measure_corner(loss: Callable[..., jax.Array]) -> dict[str, float]:
    value, norm = _steepness(loss)(jnp.array(CORNER))
    return {"loss": float(value), "gradient_norm": float(norm)}


def _measure_surface() -> dict[str, Any]:
    axis = np.linspace(-12, 12, 49)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    surface: dict[str, Any] = {"axis": axis, "losses": {}, "gradient_norms": {}}
    for name, loss in LOSSES.items():
        over_grid = jax.jit(jax.vmap(jax.vmap(_steepness(loss))))
        surface["losses"][name], surface["gradient_norms"][name] = jax.device_get(over_grid(grid))
    return surface


def _descend_from_corner() -> dict[str, Any]:
    descents: dict[str, Any] = {name: {} for name in LOSSES}
    paths: dict[str, Any] = {name: {} for name in LOSSES}
    for name, loss in LOSSES.items():
        for optimizer in OPTIMIZERS:
            points = descend(_of_two_logits(loss), CORNER, optimizer_settings(optimizer, LEARNING_RATE), STEPS).points
            probabilities = right_probability(points)
            steps = first_step(probabilities > ARRIVED)
            descents[name][optimizer] = {"steps": steps, "last_probability": float(probabilities[-1])}
            if optimizer in DRAWN:
                paths[name][optimizer] = points if steps is None else points[: steps + 1]
    return {"descents": descents, "paths": paths}


def _write_softmax(numbers: dict[str, Any], page: Page) -> None:
    logits, shares, multiples, outputs = (numbers[name] for name in ("logits", "shares", "multiples", "outputs"))
    once = outputs[np.argmin(np.abs(multiples - 1))]
    page.text("## Softmax: outputs that sum to 1, with wider gaps")
    page.text("""Softmax divides exp(y) by the sum of all exp(y): each output is between 0 and 1, and they sum to 1.
        Equal steps between logits become equal *factors* between outputs (a step of 1 is a factor of e).""")
    with page.figure("softmax", "Softmax of three logits, and of their multiples", (10, 4)) as figure:
        bars, curves = figure.subplots(1, 2)
        places = np.arange(len(logits))
        bars.bar(places - 0.2, shares, 0.4, color="0.7", label="logit / sum of logits")
        bars.bar(places + 0.2, once, 0.4, color=COLOURS[0], label="softmax")
        bars.set_xticks(places, [f"logit {logit:g}" for logit in logits])
        bars.set_ylabel("output")
        bars.legend(loc="upper left")
        curves.plot(multiples, outputs, label=[f"{logit:g} x multiple" for logit in logits])
        curves.set(xlabel="multiple of the logits", ylabel="softmax")
        curves.legend(loc="center right")
    page.text(f"""The logits {_listed(logits, "g")} have the shares {_listed(shares, ".2f")} of their sum; softmax makes
        {_listed(once, ".2f")} of them. How wide the gaps get depends on the size of the logits: below
        {numbers["wider_from"]:.2g} times these, the gap between first and last is narrower than the shares', and at 0
        all outputs are equal. A network says how sure it is by the size of its logits.""")


def _listed(values: np.ndarray, spec: str) -> str:
    return ", ".join(f"{value:{spec}}" for value in values)


def _write_gradients(numbers: dict[str, Any], page: Page) -> None:
    errors, curves = numbers["errors"], numbers["curves"]
    page.text("## The gradient where the answer is wrong")
    with page.figure("gradients", "How strongly each loss pulls at the right class's logit") as figure:
        axis = figure.subplots()
        for name, sizes in curves.items():
            axis.plot(errors, sizes, label=name)
        axis.set(xlabel="absolute error 1 - p of the right class", ylabel="size of the gradient of its logit")
        axis.legend()
    mse = curves["MSE, the rest on one wrong class"]
    page.text(f"""With cross-entropy the gradient of a logit is p - y, its probability less what that should be: for the
        right class it grows in proportion to the error e = 1 - p. With the mean squared error of softmax it is a
        multiple of e²(1 - e): it rises to {mse.max():.2g} at an error of {errors[mse.argmax()]:.2g} and then *falls*,
        to nothing where the answer is as wrong as can be. The notes call this curve concave; it is so above an error of
        1/3, and what hurts is its end. The factor 1 - e is from softmax's slope, e(1 - e), which is flat where softmax
        is sure, rightly or wrongly; the logarithm in cross-entropy cancels it. MSE has two curves because it also minds
        how the rest is spread over the wrong classes; cross-entropy looks at the right class alone.""")


def _write_descents(numbers: dict[str, Any], page: Page) -> None:
    corner, descents = numbers["corner"], numbers["descents"]
    page.text("## Why not mean squared error")
    page.text(f"""Three classes, the first is right, the third logit stays at 0. The start is a far corner, {CORNER},
        where softmax is sure of a wrong class. Every optimizer gets the learning rate {LEARNING_RATE} and {STEPS}
        steps.""")
    page.table(
        ("loss", "in the corner", "norm of its gradient there"),
        ((name, at["loss"], at["gradient_norm"]) for name, at in corner.items()),
    )
    with page.figure("surface", "Over two logits: loss with paths, gradient norm, and the way to p", (15, 8)) as figure:
        axes = figure.subplots(len(LOSSES), 3)
        for (loss, norm, progress), name in zip(axes, LOSSES, strict=True):
            _draw_loss(loss, name, numbers)
            _draw_norm(norm, name, numbers)
            _draw_progress(progress, name, numbers)
    page.table(
        ("optimizer", *(f"steps to p > {ARRIVED}, {name}" for name in LOSSES)),
        (
            (f"`{optimizer}`", *(steps_in_words(descents[name][optimizer]["steps"]) for name in LOSSES))
            for optimizer in OPTIMIZERS
        ),
    )
    ratio = corner["cross-entropy"]["gradient_norm"] / corner["MSE"]["gradient_norm"]
    page.text(f"""In the corner MSE is high but flat: its gradient is {ratio:,.0f} times smaller than cross-entropy's.
        Gradient descent, with or without momentum, takes steps as long as the gradient and does not get away. The loss
        alone makes the way easy or hard. Optimizers that adapt their steps get away under either loss, some sooner
        under MSE: they compare a gradient with *earlier* ones, and those of the corner were tiny. For the same reason
        `adagrad` is slow under cross-entropy, whose first gradients were the largest. `adadelta` begins with steps of
        a thousandth or less; {STEPS} are too few for it.""")
    page.text("""On pictures: compare `python -m jaxfood.train --loss.name mse` with `--loss.name cross_entropy`, and
        both with `--optimizer.name sgd --optimizer.learning_rate 0.1`.""")


def _draw_loss(axis: Any, name: str, numbers: dict[str, Any]) -> None:
    logits, losses = numbers["surface"]["axis"], numbers["surface"]["losses"][name]
    ground = axis.pcolormesh(logits, logits, losses, cmap="Greys", shading="gouraud", vmax=3 * losses.max())
    axis.contour(logits, logits, losses, levels=12, colors="0.6", linewidths=0.5)
    axis.figure.colorbar(ground, ax=axis, label="loss").ax.set_ylim(0, losses.max())
    for optimizer, path in numbers["paths"][name].items():
        (line,) = axis.plot(*path.T, lw=2, label=optimizer)
        axis.plot(*path[-1], "o", color=line.get_color())
    axis.legend(loc="lower right")
    _label_plane(axis, f"{name}: loss and paths")


def _draw_norm(axis: Any, name: str, numbers: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    logits, norms = numbers["surface"]["axis"], numbers["surface"]["gradient_norms"][name]
    ground = axis.pcolormesh(logits, logits, norms, cmap="cividis", norm=LogNorm(1e-6, 2), shading="nearest")
    axis.figure.colorbar(ground, ax=axis, label="gradient norm", extend="min")
    _label_plane(axis, f"{name}: gradient norm")


def _label_plane(axis: Any, title: str) -> None:
    axis.plot(*CORNER, "k*", ms=12)
    axis.set(title=title, xlabel="logit of the right class", ylabel="logit of a wrong class")
    axis.grid(False)


def _draw_progress(axis: Any, name: str, numbers: dict[str, Any]) -> None:
    for optimizer, path in numbers["paths"][name].items():
        axis.plot(np.arange(1, len(path)), right_probability(path)[1:], lw=2, label=optimizer)
    axis.set(xscale="log", xlim=(1, STEPS), ylim=(-0.03, 1.03), xlabel="step", ylabel="p")
    axis.set_title(f"{name}: probability of the right class")
