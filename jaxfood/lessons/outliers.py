"""As many outlying Hessian eigenvalues as classes, less one: the gradient lives among them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxfood.landscape import Objective, Point, TopEigenpairs, top_of_krylov
from jaxfood.landscape.lanczos import Krylov
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.descent import optimizer_settings, unclipped_optimizer
from jaxfood.lessons.few_classes import (
    AS_THEY_ARE,
    CENTRED,
    LEAST,
    MOST,
    PICTURES,
    RANDOM,
    WIDTH,
    Pictures,
    init_params,
    load_pictures,
    mean_loss,
    outputs,
)
from jaxfood.report.page import COLOURS, LINES, Page

SEEDS, FULL_SEEDS = (1,), (1, 2, 3)
CLASSES = (LEAST, 5, MOST)
RATE, BATCH = 0.02, 64
LOOKS, CHUNK = (0, 10, 30, 100, 300, 1000), 10  # updates at which the Hessian is looked at; updates in one program
PRODUCTS, BATCHES = 60, 20  # Lanczos vectors of a look; batches whose gradients' shares are averaged
SHOWN = ("accuracy", "gap", "ratio", "share", "batch_share")
FLOOR = 1e-3  # of the largest eigenvalue: what is smaller counts as so large, or 0 would make a gap of any size
SAGUN = "Sagun et al. 2017, arXiv 1706.04454; less one by the softmax"
GUR_ARI = "Gur-Ari et al. 2018, arXiv 1812.04754"
MEAN = "the mean derivative; Fort and Ganguli 2019, arXiv 1910.05929"


def measure(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Train a network on 3, 5 and 10 classes and look at the largest eigenvalues and at the gradient on the way.

    Returns:
        `pictures` of each class, `width`, `steps` of the looks; for each of `seeds` its `runs`: `classes`, `way`
        (the last two runs change labels or inputs), `parameters` and `looks`, see `_look`; `claims`.
    """
    pictures = load_pictures(images)
    counts = [count for count in CLASSES if count <= pictures.classes]
    plans = [(count, AS_THEY_ARE) for count in counts] + [(counts[-1], way) for way in (RANDOM, CENTRED)]
    chosen = FULL_SEEDS if full else SEEDS
    runs = [[_train(pictures.of_first(count), way, seed) for count, way in plans] for seed in chosen]
    return {
        "pictures": PICTURES,
        "width": WIDTH,
        "steps": LOOKS,
        "seeds": [{"seed": seed, "runs": its_runs} for seed, its_runs in zip(chosen, runs, strict=True)],
        "claims": [claim.as_json() for claim in _claims(runs)],
    }


def _train(pictures: Pictures, way: str, seed: int) -> dict[str, Any]:
    """A training; where labels or inputs are changed, only its end is looked at."""
    task = pictures.changed(way, seed)
    params = init_params(task.inputs.shape[1], task.classes, seed)
    tx = unclipped_optimizer(optimizer_settings("sgd", RATE), LOOKS[-1])
    rng = np.random.default_rng(seed)
    batches = np.stack([rng.choice(len(task.labels), BATCH, replace=False) for _ in range(LOOKS[-1])])
    some = np.stack([rng.choice(len(task.labels), BATCH, replace=False) for _ in range(BATCHES)])
    objective = Objective(lambda params, batch: (mean_loss(params, *batch), jnp.ones([])), [(task.inputs, task.labels)])
    advance, state = jax.jit(partial(_advance, tx, task)), tx.init(params)
    looks = list[dict[str, Any]]()
    for step in range(0, LOOKS[-1] + 1, CHUNK):
        if step in (LOOKS if way == AS_THEY_ARE else LOOKS[-1:]):
            looks.append({"step": step, **_look(Point(objective, params), task, some)})
        if step < LOOKS[-1]:
            params, state = advance(params, state, batches[step : step + CHUNK])
    size = ravel_pytree(params)[0].size
    return {"classes": task.classes, "way": way, "parameters": size, "looks": looks}


def _advance(tx: optax.GradientTransformation, task: Pictures, params: Any, state: Any, batches: Any) -> Any:
    """An update on each of the batches `[updates, BATCH]`."""
    inputs, labels = jnp.asarray(task.inputs), jnp.asarray(task.labels)

    def update(carry: Any, batch: jax.Array) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(mean_loss)(params, inputs[batch], labels[batch]), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(update, (params, state), batches)[0]


def _look(point: Point, task: Pictures, batches: np.ndarray) -> dict[str, Any]:
    """What stands at a point.

    Returns:
        `loss`, `accuracy`; the largest `eigenvalues`, with the largest `residual` of the outlying ones (of the
        last of the others so few products tell less: they come out a little low); where the
        widest `gap` of neighbours lies, and their `ratio`; the `share` of the gradient's square in the span of the
        first classes - 1 eigenvectors, and the mean of single batches' (`batch_share`); `mean_derivative`: what those
        eigenvalues are by the mean derivative alone, and the `overlap` of both spans, from 0 to 1.
    """
    outlying = task.classes - 1
    top = _largest(point, 2 * task.classes + 3)
    gap, ratio = widest_gap(top.values)
    gradients = jax.vmap(lambda batch: ravel_pytree(_gradient(point.params, task, batch))[0])(batches)
    values, vectors = mean_derivative_eigenpairs(point.params, task.inputs)
    logits = np.asarray(outputs(point.params, task.inputs))
    return {
        "loss": point.loss,
        "accuracy": float(np.mean(logits.argmax(axis=1) == task.labels)),
        "eigenvalues": top.values,
        "residual": float(top.residuals[:outlying].max()),
        "gap": gap,
        "ratio": ratio,
        "share": share_in_span(top.vectors[:outlying], point.gradient),
        "batch_share": float(np.mean([share_in_span(top.vectors[:outlying], g) for g in np.asarray(gradients)])),
        "mean_derivative": values[:outlying],
        "overlap": float(np.sum((top.vectors[:outlying] @ vectors[:outlying].T) ** 2) / outlying),
    }


def _gradient(params: Any, task: Pictures, batch: jax.Array) -> Any:
    return jax.grad(mean_loss)(params, jnp.asarray(task.inputs)[batch], jnp.asarray(task.labels)[batch])


def _largest(point: Point, count: int) -> TopEigenpairs:
    """The largest eigenvalues of so many Lanczos vectors; the smallest ones are not waited for."""
    start = np.random.default_rng(0).standard_normal(point.size, point.dtype.type)
    krylov = Krylov(point.product, start, min(PRODUCTS, point.size))
    while not krylov.full:
        krylov.extend()
    return top_of_krylov(krylov, count)


def widest_gap(values: np.ndarray) -> tuple[int, float]:
    """How many of the eigenvalues, descending, lie before the largest ratio of neighbours, and that ratio."""
    raised = np.maximum(values, FLOOR * values[0])
    ratios = raised[:-1] / raised[1:]
    return int(ratios.argmax()) + 1, float(ratios.max())


def share_in_span(vectors: np.ndarray, gradient: np.ndarray) -> float:
    """The part of a gradient's square that lies in the span of orthonormal vectors `[k, size]`."""
    return float(np.sum((vectors @ gradient) ** 2) / np.sum(gradient**2))


def mean_derivative_eigenpairs(params: Any, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues, descending `[classes]`, and eigenvectors `[classes, size]` of J' A J.

    J `[classes, size]` is the derivative of the outputs' mean, A the mean of diag(p) - p p' over the pictures, the
    softmax cross-entropy's second derivative. A of `classes` outputs has rank classes - 1, as a shift of all outputs
    changes no p.
    """
    derivative, probabilities = jax.device_get(_mean_derivative(params, inputs))
    p = np.asarray(probabilities, np.float64)
    jacobian = np.concatenate([leaf.reshape(p.shape[1], -1) for leaf in jax.tree.leaves(derivative)], axis=1)
    values, axes = np.linalg.eigh(np.diag(p.mean(axis=0)) - p.T @ p / len(p))
    root = axes * np.sqrt(np.maximum(values, 0))
    _, stretches, vectors = np.linalg.svd(root.T @ jacobian.astype(np.float64), full_matrices=False)
    return stretches**2, vectors


@jax.jit
def _mean_derivative(params: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
    """The derivative of the outputs' mean, a leaf for each of the parameters' `[classes, ...]`, and all p."""
    derivative = jax.jacrev(lambda params: outputs(params, inputs).mean(axis=0))(params)
    return derivative, jax.nn.softmax(outputs(params, inputs))


def _claims(seeds: Sequence[list[dict[str, Any]]]) -> Iterator[Claim]:
    def ends(take: Callable[[dict[str, Any]], float], number: int) -> tuple[float, ...]:
        return tuple(float(take(runs[number]["looks"][-1])) for runs in seeds)

    def lowest(key: str) -> tuple[float, ...]:
        return tuple(min(run["looks"][-1][key] for run in runs if run["way"] == AS_THEY_ARE) for runs in seeds)

    counts = [run["classes"] for run in seeds[0] if run["way"] == AS_THEY_ARE]
    for number, count in enumerate(counts):
        yield Claim(f"{count} classes: outlying eigenvalues", SAGUN, count - 1, ends(lambda e: e["gap"], number), 0)
    yield Claim("gradient's share among them", GUR_ARI, 1.0, lowest("share"), 0.1)
    yield Claim("a batch's gradient's share: most of it", GUR_ARI, 0.5, lowest("batch_share"), 0.0, "at least")
    for number in range(len(counts)):
        farthest = ends(lambda e: max(_by_mean(e), key=lambda ratio: abs(ratio - 1)), number)
        name = f"{counts[number]} classes: the farthest eigenvalue by that of the mean derivative"
        yield Claim(name, MEAN, 1.0, farthest, 0.25)
    count = counts[-1]
    name = f"{count} classes, {RANDOM}: outlying eigenvalues"
    yield Claim(name, MEAN, count - 1, ends(lambda e: e["gap"], -2), 0)
    name = f"{count} classes, {CENTRED}: widest ratio of neighbours, no gap"
    yield Claim(name, MEAN, 2.0, ends(lambda e: e["ratio"], -1), 0.0, "at most")


def _by_mean(end: dict[str, Any]) -> np.ndarray:
    outlying: np.ndarray = np.asarray(end["eigenvalues"])[: len(end["mean_derivative"])]
    return outlying / np.asarray(end["mean_derivative"])


def write(numbers: dict[str, Any], page: Page) -> None:
    """The largest eigenvalues, the gradient's share on the way, and where the outliers come from."""
    runs = numbers["seeds"][0]["runs"]
    plain = [run for run in runs if run["way"] == AS_THEY_ARE]
    most, changed = plain[-1], [run for run in runs if run["way"] != AS_THEY_ARE]
    page.text(f"""A trained network's Hessian has a crowd of small eigenvalues and a few large ones apart from it: the
        outliers. There are about as many as classes (Sagun et al. 2017, Papyan 2019), and the gradient soon lies
        almost wholly in the space of their eigenvectors (Gur-Ari et al. 2018), a handful of directions among tens of
        thousands. Here a network of one hidden layer ({numbers["width"]} ReLU, {most["parameters"]:,} parameters)
        learns {_and(run["classes"] for run in plain)} classes, {numbers["pictures"]} pictures of each at 8 px, by the
        cross-entropy: {numbers["steps"][-1]:,} plain steps of gradient descent on batches, at the rate {RATE:g}.""")
    with page.figure("spectrum", "The largest eigenvalues at the end, for each number of classes", (10, 4)) as figure:
        _draw_spectra(figure, [(run, f"{run['classes']} classes") for run in plain])
    page.table(
        ("classes", "seed", "accuracy", "outlying eigenvalues", "ratio there", "gradient's share", "a batch's"),
        (
            (run["classes"], seed["seed"], *(run["looks"][-1][key] for key in SHOWN))
            for seed in numbers["seeds"]
            for run in seed["runs"]
            if run["way"] == AS_THEY_ARE
        ),
    )
    page.text(f"""Counted is up to the widest ratio of neighbours: one outlier less than classes. A softmax does not see
        a number that is added to all outputs, so K outputs have K - 1 directions that change anything. The share is the
        part of the squared gradient that lies in the span of these K - 1 eigenvectors, for all pictures and for single
        batches of {BATCH}.""")
    count = len(most["looks"][0]["eigenvalues"])
    caption = f"The {count} largest eigenvalues and the gradient's share on the way, {most['classes']} classes"
    with page.figure("way", caption, (10, 4)) as figure:
        _draw_way(figure, most)
    _write_origin(runs, page)
    first, centred = most["looks"][-1], changed[1]["looks"][-1]
    page.text(f"""So the outliers are what all pictures have in common: every pixel is 0 or more, every ReLU too, and
        what is common moves the outputs of all pictures alike. The two last rows check it. With **labels drawn at
        random** nothing in a picture tells its class, and the outliers are there all the same:
        {changed[0]["looks"][-1]["gap"]}. With **inputs of mean 0** the network learns the real classes, and faster,
        but the widest ratio of neighbours is {centred["ratio"]:.2f}: no gap. Of the squared gradient
        {centred["share"]:.0%} lies among the first {most["classes"] - 1}, of single batches'
        {centred["batch_share"]:.0%}.""")
    with page.figure("controls", f"The same network on {most['classes']} classes, changed", (10, 4)) as figure:
        _draw_spectra(figure, [(run, run["way"]) for run in (most, *changed)])
    page.text(f"""**Look at** the last picture. The number of outliers is the number of outputs less one; that they
        stand apart is the common part's doing. It is a reason for taking the mean of the pictures away
        (`model.normalize`): the largest eigenvalue, which limits the learning rate (the lesson `edge-of-stability`),
        is {first["eigenvalues"][0]:.0f} with the common part and {centred["eigenvalues"][0]:.1f} without.""")
    page.text("""What this does not show: with two hidden layers and momentum, or after a longer training, the outliers
        lie further apart from each other, and the last of ten comes near the crowd, so that counting by the widest
        ratio fails; for 3 and 5 classes it did not. The classes' own means, from which Papyan derives outliers, are
        not told apart from the common part here.""")


def _write_origin(runs: Sequence[dict[str, Any]], page: Page) -> None:
    page.text("## Where they come from")
    page.text("""With J the mean over all pictures of the outputs' derivative by the parameters, and A the mean of the
        cross-entropy's second derivative by the outputs, diag(p) - p p', the matrix J' A J has K - 1 eigenvalues that
        are not 0. It knows nothing of single pictures. Yet the Hessian's outliers by its eigenvalues, one by one, are
        nearly 1, and both spaces are nearly one (Fort and Ganguli 2019):""")
    page.table(
        ("classes", "training", "accuracy", "outlying", "ratio there", "by those of J' A J", "overlap"),
        ((run["classes"], run["way"], *_origin(run["looks"][-1])) for run in runs),
    )


def _and(counts: Iterable[int]) -> str:
    *first, last = map(str, counts)
    return f"{', '.join(first)} and {last}" if first else last


def _origin(end: dict[str, Any]) -> tuple[Any, ...]:
    by_mean = _by_mean(end)
    span = f"{by_mean.min():.2f} to {by_mean.max():.2f}"
    return end["accuracy"], end["gap"], end["ratio"], span, end["overlap"]


def _draw_spectra(figure: Any, runs: list[tuple[dict[str, Any], str]]) -> None:
    """A panel for each: the eigenvalues by their rank, and where K - 1 end."""
    panels = np.atleast_1d(figure.subplots(1, len(runs), sharey=True))
    for axis, (run, title) in zip(panels, runs, strict=True):
        values, outlying = np.array(run["looks"][-1]["eigenvalues"]), run["classes"] - 1
        ranks = np.arange(1, len(values) + 1)
        axis.semilogy(ranks[:outlying], values[:outlying], "o", color=COLOURS[1], label=f"the first {outlying}")
        axis.semilogy(ranks[outlying:], values[outlying:], "o", color=COLOURS[0], mfc="none", label="the next")
        axis.axvline(outlying + 0.5, color="grey", lw=1)
        axis.set(xlabel="rank", title=title)
        axis.legend()
    panels[0].set_ylabel("eigenvalue")


def _draw_way(figure: Any, run: dict[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    looks, outlying = run["looks"], run["classes"] - 1
    steps = np.array([look["step"] for look in looks])
    values = np.array([look["eigenvalues"] for look in looks])
    for rank in range(values.shape[1]):
        outlier = rank < outlying
        left.semilogy(steps, values[:, rank], "-", color=COLOURS[outlier], lw=1.2 if outlier else 0.6)
    left.set(xlabel="step", ylabel="eigenvalue")
    for key, label, colour, line in zip(
        ("share", "batch_share"), ("of all pictures", "of single batches, mean"), COLOURS, LINES, strict=False
    ):
        right.plot(steps, [look[key] for look in looks], color=colour, ls=line, marker="o", ms=4, label=label)
    for axis in (left, right):
        axis.set_xscale("symlog", linthresh=10)  # linear to the first look after the start
        axis.set_xlim(-0.5, 1.1 * steps[-1])
    right.set(xlabel="step", ylabel=f"gradient's share in the span of {outlying}", ylim=(0, 1.05))
    right.legend(loc="lower right")
