"""Many seeds of a small network in small and in large batches: how sharp the ends are, and whether that is chance."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape import Objective, Point, largest_eigenvalue
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.pictures_to_fit import PICTURES, Task, init_params, load_task, outputs, squared_error
from jaxfood.lessons.power import LEVEL, compare_groups
from jaxfood.report.page import COLOURS, Page

SEEDS, FULL_SEEDS = 10, 30
SMALL, LARGE = 10, PICTURES  # pictures in a batch; large: all of them
SHORT, LONG = 200, 4000  # epochs: in SHORT ones small batches fit the pictures, in LONG ones large batches do, too
OTHERS = 2  # pictures that are not trained on, for each that is
RATE = 0.05
GROUPS = {
    f"{name}, {epochs:,} epochs": (size, epochs)
    for name, size in (("small", SMALL), ("large", LARGE))
    for epochs in (SHORT, LONG)
}
EQUAL_UPDATES, EQUAL_WORK, LONG_WORK = (
    f"equal updates: {SHORT * PICTURES // SMALL:,}",
    *(f"equal work: {epochs:,} epochs" for epochs in (SHORT, LONG)),
)
COMPARED = {  # the group in small batches, and that in large ones
    EQUAL_UPDATES: (f"small, {SHORT:,} epochs", f"large, {LONG:,} epochs"),
    EQUAL_WORK: (f"small, {SHORT:,} epochs", f"large, {SHORT:,} epochs"),
    LONG_WORK: (f"small, {LONG:,} epochs", f"large, {LONG:,} epochs"),
}
SURVEY = SpectrumSettings(max_products=40, accuracy=0.01)
KESKAR = "Keskar et al. 2016, arXiv 1609.04836"
COHEN = "Cohen et al. 2021, arXiv 2103.00065"
FORMULA = "n = 2 (z_a + z_b)^2 s^2 / d^2, against the seeds there were"


def measure_sharpness(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Gradient descent at one rate in small and in large batches, from the same starts.

    Returns:
        `pictures`, `others`, `rate`; `groups`: of each its `batch_size`, `epochs` and `updates`, and for each seed the
        `losses` at the end, the `sharpness` there (largest eigenvalue of the Hessian of the loss of all pictures) and
        the `accuracies` on the others; `comparisons`: `power.Comparison` of the sharpness and of the accuracies.
    """
    whole = load_task(images, PICTURES * (1 + OTHERS))
    trained = np.arange(len(whole.labels)) % (1 + OTHERS) == 0  # pictures are in the order of classes
    task, others = (Task(whole.inputs[rows], whole.labels[rows], whole.classes) for rows in (trained, ~trained))
    seeds = range(1, 1 + (FULL_SEEDS if full else SEEDS))
    groups = {name: _group(task, others, *plan, seeds) for name, plan in GROUPS.items()}
    comparisons = {
        name: {
            what: compare_groups(*(groups[group][what] for group in pair))._asdict()
            for what in ("sharpness", "accuracies")
        }
        for name, pair in COMPARED.items()
    }
    numbers = {"pictures": len(task.labels), "others": len(others.labels), "rate": RATE}
    return {**numbers, "groups": groups, "comparisons": comparisons}


def sharpness_claims(numbers: dict[str, Any]) -> Iterator[Claim]:
    """That large batches end sharper and at the edge, and how many seeds it takes to say so."""
    groups, comparisons = numbers["groups"], numbers["comparisons"]
    for name in (EQUAL_UPDATES, LONG_WORK):
        small, large = (groups[group]["sharpness"] for group in COMPARED[name])
        ratios = tuple(np.divide(large, small).tolist())
        yield Claim(f"sharpness in large batches by that in small, {name}", KESKAR, 1.0, ratios, 0.0, "at least")
    edges = tuple(numbers["rate"] * each for each in groups[COMPARED[LONG_WORK][1]]["sharpness"])
    yield Claim("sharpness x rate where all pictures are in the batch", COHEN, 2.0, edges, 0.1)
    for what in ("sharpness", "accuracies"):
        compared = comparisons[EQUAL_UPDATES][what]
        name = "sharpness" if what == "sharpness" else "accuracy on other pictures"
        needed = (compared["seeds_needed"],)
        yield Claim(f"seeds that the difference in {name} takes", FORMULA, compared["seeds"], needed, 0.0, "at most")


def _group(task: Task, others: Task, batch_size: int, epochs: int, seeds: range) -> dict[str, Any]:
    loss = squared_error(task)
    objective = Objective.of(loss)
    ends = [_train(task, batch_size, epochs, seed) for seed in seeds]
    answers = [np.argmax(outputs(params, others.inputs), axis=1) for params in ends]
    return {
        "batch_size": batch_size,
        "epochs": epochs,
        "updates": epochs * len(task.labels) // batch_size,
        "losses": [float(loss(params)) for params in ends],
        "sharpness": [largest_eigenvalue(Point(objective, params), SURVEY).value for params in ends],
        "accuracies": [float(np.mean(answer == others.labels)) for answer in answers],
    }


def _train(task: Task, batch_size: int, epochs: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(task.labels)) for _ in range(epochs)]).reshape(-1, batch_size)
    targets = jax.nn.one_hot(task.labels, task.classes)
    return _descend(init_params(task, seed), jnp.asarray(task.inputs), targets, orders)


@jax.jit
def _descend(params: Any, inputs: jax.Array, targets: jax.Array, orders: jax.Array) -> Any:
    """One step on each row of `orders` `[steps, batch]`, positions among the pictures."""

    def step(params: Any, chosen: jax.Array) -> tuple[Any, None]:
        def loss(params: Any) -> jax.Array:
            return jnp.mean(jnp.sum((outputs(params, inputs[chosen]) - targets[chosen]) ** 2, axis=1)) / 2

        return jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params)), None

    return jax.lax.scan(step, params, orders)[0]


def write_sharpness(numbers: dict[str, Any], page: Page) -> None:
    """The sharpness of every seed, what differs by more than chance, and how many seeds that takes."""
    groups, comparisons = numbers["groups"], numbers["comparisons"]
    seeds = comparisons[EQUAL_UPDATES]["sharpness"]["seeds"]
    page.text(f"""**How sharp are the ends?** Whether a difference is more than chance, seeds tell. So a network that
        takes seconds (tanh, squared error) learns {numbers["pictures"]} pictures from {seeds} seeds, by gradient
        descent at one rate, in batches of {SMALL} and of all {LARGE}, for {SHORT} and for {LONG:,} epochs. Sharpness is
        the largest eigenvalue of the Hessian of the loss of all pictures; accuracy is on {numbers["others"]}
        others.""")
    with page.figure("seeds", "Sharpness at the end of every seed; a bar is a mean", (8, 3.5)) as figure:
        _draw(figure.subplots(), groups)
    page.table(
        ("batches", "updates", "loss at the end", "sharpness", "accuracy on others, %"),
        (
            (
                name,
                f"{group['updates']:,}",
                float(np.mean(group["losses"])),
                _spread(group["sharpness"]),
                _spread(100 * np.array(group["accuracies"])),
            )
            for name, group in groups.items()
        ),
    )
    header = ("large less small", "sharpness", "p", "seeds it takes", "accuracy, points", "p", "seeds it takes")
    page.table(
        header,
        (
            (name, *_row(compared["sharpness"]), *_row(compared["accuracies"], 100))
            for name, compared in comparisons.items()
        ),
    )
    short, accuracy = groups[COMPARED[EQUAL_WORK][1]], comparisons[EQUAL_UPDATES]["accuracies"]
    verdicts = {name: _verdict(compared["sharpness"]) for name, compared in comparisons.items()}
    page.text(f"""For as many updates, large batches {verdicts[EQUAL_UPDATES]}: the whole batch comes to rest at 2 /
        rate = {2 / numbers["rate"]:.0f} (the lesson `edge-of-stability`), the noise of small ones keeps below it. For
        equal work, {SHORT} epochs, they {verdicts[EQUAL_WORK]}. After {short["updates"]} updates their loss is
        {np.mean(short["losses"]):.2g}: what has not arrived stands on a slope and not in a valley. After {LONG:,}
        epochs, when both have, they {verdicts[LONG_WORK]}.""")
    page.text(f"""**Is sharper worse?** The seeds that a difference d takes with a deviation s between seeds, to be
        shown at 5 % with a chance of 80 %, are n = 2 (1.96 + 0.84)^2 s^2 / d^2 of each. For the sharpness, at equal
        updates, that is {_count(comparisons[EQUAL_UPDATES]["sharpness"]["seeds_needed"])}. For the accuracy on other
        pictures the difference is {100 * accuracy["difference"]:.2g} points at a deviation of
        {100 * accuracy["deviation"]:.2g}: it would take {_count(accuracy["seeds_needed"])} seeds, and these {seeds}
        would have shown one of {100 * accuracy["detectable"]:.2g} points.""")


def _draw(axis: Any, groups: dict[str, Any]) -> None:
    for row, (group, colour) in enumerate(zip(groups.values(), COLOURS, strict=False)):
        axis.plot(group["sharpness"], np.full(len(group["sharpness"]), row), "o", color=colour, alpha=0.6)
        axis.plot(np.mean(group["sharpness"]), row, "|", color=colour, ms=30)
    axis.axvline(2 / RATE, color="grey", lw=1)
    axis.text(2 / RATE, -0.45, "2 / rate ", ha="right", va="top", color="grey")
    axis.set(xlabel="sharpness", xlim=(0, None), yticks=range(len(groups)), ylim=(len(groups) - 0.5, -0.5))
    axis.set_yticklabels(groups)


def _verdict(compared: dict[str, Any]) -> str:
    if compared["p_value"] >= LEVEL:
        return "cannot be told from small ones"
    return f"end {'sharper' if compared['difference'] > 0 else 'flatter'}"


def _row(compared: dict[str, Any], unit: float = 1) -> tuple[str, str, str]:
    return f"{unit * compared['difference']:+.2g}", f"{compared['p_value']:.1g}", _count(compared["seeds_needed"])


def _count(seeds: float) -> str:
    return "infinitely many" if np.isinf(seeds) else f"{seeds:,.0f}"


def _spread(values: Any) -> str:
    return f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g}"
