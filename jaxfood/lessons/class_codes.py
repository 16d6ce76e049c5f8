"""Classes as numbers and as one-hot, in linear models of the plane: the first part of the lesson cross-entropy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.lessons.descent import descend, optimizer_settings
from jaxfood.optim.losses import cross_entropy
from jaxfood.report.page import COLOURS, Page

# Classes as points: an answer is the class whose code is nearest to the output. By numbers 1 is nearer to 2 than to 3.
NUMBERS, RENUMBERED, ONE_HOT = np.array([[1.0], [2], [3]]), np.array([[1.0], [3], [2]]), np.eye(3)
CENTRES = {"triangle": ((-2.0, -1.2), (2.0, -1.2), (0.0, 2.2)), "row": ((-3.0, 0.0), (0.0, 0.0), (3.0, 0.0))}
POINTS_A_CLASS, SPREAD = 100, 0.8


def measure_codes() -> dict[str, Any]:
    """Three clusters in two arrangements, each learned by what a model may be taught that a class is.

    Returns:
        For each arrangement its `points` `[300, 2]` and `labels` `[300]`, and `models`: for each way its `codes`, the
        linear model's `weights`, its `accuracy` on these points and that of each class.
    """
    return {name: _measure_arrangement(np.array(centres)) for name, centres in CENTRES.items()}


def answers(points: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The class `[N]` whose code is nearest to the linear model's output; of one-hot codes, that of the largest output.

    Args:
        points: `[N, 2]`.
        weights: `[3, outputs]`, of 1 and the two coordinates.
        codes: `[classes, outputs]`.
    """
    outputs = _features(points) @ weights
    return np.argmin(np.sum((outputs[:, None] - codes) ** 2, axis=-1), axis=-1)


def _measure_arrangement(centres: np.ndarray) -> dict[str, Any]:
    labels = np.repeat(np.arange(3), POINTS_A_CLASS)
    points = centres[labels] + np.random.default_rng(0).normal(scale=SPREAD, size=(len(labels), 2))
    codes_of = {"numbers 1, 2, 3": NUMBERS, "numbers 1, 3, 2": RENUMBERED, "one-hot, least squares": ONE_HOT}
    weights = {name: (codes, _least_squares(points, codes[labels])) for name, codes in codes_of.items()}
    weights["one-hot, softmax, cross-entropy"] = ONE_HOT, _softmax_regression(points, labels)
    models = {}
    for name, (codes, of_model) in weights.items():
        right = answers(points, of_model, codes) == labels
        models[name] = {
            "codes": codes,
            "weights": of_model,
            "accuracy": float(right.mean()),
            "class_accuracy": [float(right[labels == label].mean()) for label in range(3)],
        }
    return {"points": points, "labels": labels, "models": models}


def _features(points: np.ndarray) -> np.ndarray:
    return np.column_stack((np.ones(len(points)), points))


def _least_squares(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(_features(points), targets)[0]


def _softmax_regression(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    features, right = jnp.asarray(_features(points)), jnp.asarray(labels)

    def loss(weights: jax.Array) -> jax.Array:
        return jnp.mean(cross_entropy(features @ weights.reshape(3, 3), right))

    return descend(loss, [0.0] * 9, optimizer_settings("adam", 0.1), steps=500).points[-1].reshape(3, 3)


def write_codes(numbers: dict[str, Any], page: Page) -> None:
    """Why a class is not a number."""
    page.text("## Classes are not numbers")
    page.text("""A network gives numbers, so a class has to become some. Calling three classes 1, 2 and 3 says that 1 is
        nearer to 2 than to 3. Here a linear model learns the classes of points in the plane, by least squares, and
        answers with the class whose code is nearest to its output. One-hot codes, (1, 0, 0), (0, 1, 0), (0, 0, 1), are
        all equally far from each other.""")
    methods = next(iter(numbers.values()))["models"]
    with page.figure("codes", "Answers (ground) and classes (points), and the share that is right", (12, 6)) as figure:
        axes = figure.subplots(len(numbers), len(methods), sharex=True, sharey=True)
        for row, (where, arrangement) in zip(axes, numbers.items(), strict=True):
            row[0].set_ylabel(where)
            for axis, (name, model) in zip(row, arrangement["models"].items(), strict=True):
                _draw_answers(axis, arrangement, model)
                axis.set_title(f"{name}: {model['accuracy']:.2f}", fontsize="medium")
        axes[0, 0].legend(ncols=3, loc="upper center", handletextpad=0, columnspacing=0.5)
    page.table(
        ("clusters", "classes as", "right", "of class 1", "of class 2", "of class 3"),
        (
            (where, name, model["accuracy"], *model["class_accuracy"])
            for where, arrangement in numbers.items()
            for name, model in arrangement["models"].items()
        ),
    )
    row = {name: f"{model['accuracy']:.2f}" for name, model in numbers["row"]["models"].items()}
    page.text(f"""Numbers cut the plane into parallel strips in their own order. Where the classes truly lie in that
        order they do well ({row["numbers 1, 2, 3"]} of the row); call the middle class 3 and the same model gets
        {row["numbers 1, 3, 2"]}. No order fits the triangle. One-hot does not care how classes are numbered. Yet least
        squares of one-hot fails on the row ({row["one-hot, least squares"]}): a straight line cannot be high in the
        middle and low on both sides, so the middle class is hidden. Softmax and cross-entropy only ask the right output
        to be the *largest*: {row["one-hot, softmax, cross-entropy"]} with the same linear model.""")


def _draw_answers(axis: Any, arrangement: dict[str, Any], model: dict[str, Any]) -> None:
    points, labels = arrangement["points"], arrangement["labels"]
    x, y = np.meshgrid(np.linspace(-6, 6, 241), np.linspace(-4.5, 6, 211))
    ground = answers(np.column_stack((x.ravel(), y.ravel())), model["weights"], model["codes"]).reshape(x.shape)
    axis.contourf(x, y, ground, levels=(-0.5, 0.5, 1.5, 2.5), colors=COLOURS[:3], alpha=0.25)
    for label, marker in enumerate("os^"):
        axis.plot(*points[labels == label].T, marker, color=COLOURS[label], ms=3, label=f"class {label + 1}")
    axis.grid(False)
    axis.set_aspect("equal")
