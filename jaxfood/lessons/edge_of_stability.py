"""The edge of stability: sharpness rises until the learning rate is just too large for it, and stays there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxfood.config import load_config
from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape import Objective, Point, largest_eigenvalue, rescaled
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.descent import optimizer_settings, unclipped_optimizer
from jaxfood.lessons.pictures_to_fit import Task, init_params, load_task, squared_error
from jaxfood.optim.stability import stability
from jaxfood.report.page import COLOURS, LINES, Page

SEEDS, FULL_SEEDS = (1,), (1, 2, 3)
SURVEYS = 60  # a training is looked at so often
AT_EDGE = 0.95  # of the limit: from there on sharpness is at the edge
FITTED = 2e-3  # a loss so small drives nothing any more: sharpness stays wherever it is
GRADIENT_DESCENT = "Cohen et al. 2021, arXiv 2103.00065"
ADAPTIVE = "Cohen et al. 2022, arXiv 2207.14484"
SURVEY = SpectrumSettings(max_products=40, accuracy=0.01)


class Plan(NamedTuple):
    """An optimizer, and where its source says that sharpness stays.

    Attributes:
        optimizer: a name of `jaxfood.config.OPTIMIZERS`.
        rate: its learning rate.
        steps: of the whole batch.
        limit: sharpness times rate, of the source.
        tolerance: a share of it.
        source: who says so.
        settings: more settings.
    """

    optimizer: str
    rate: float
    steps: int
    limit: float
    tolerance: float
    source: str
    settings: tuple[str, ...] = ()


PLANS = {
    "gradient descent": Plan("sgd", 0.05, 3000, 2.0, 0.1, GRADIENT_DESCENT),
    "momentum 0.9": Plan("momentum", 0.1, 1500, 3.8, 0.1, GRADIENT_DESCENT),
    "Nesterov 0.9": Plan("nesterov", 0.03, 1500, 3.8 / 2.8, 0.1, GRADIENT_DESCENT),
    "RMSProp": Plan("rmsprop", 5e-4, 1500, 2.0, 0.25, ADAPTIVE),
    "Adam": Plan("adam", 1e-3, 1500, 38.0, 0.1, ADAPTIVE),
}


def measure(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Fit the same pictures with each optimizer, all of them in every step, and watch the sharpness.

    Returns:
        `pictures`, `classes`, `parameters`, `seeds`; `runs`: for each optimizer its `rate`, `limit` (sharpness times
        rate, of the source) and for each seed the `steps` that were looked at, the `losses` there, `highest` (the
        highest loss since the look before), `sharpness` (for RMSProp and Adam the preconditioned one) times rate, and
        `edge`, its median from where it reaches the limit on; `claims`.
    """
    task = load_task(images)
    seeds = FULL_SEEDS if full else SEEDS
    runs = {
        name: {"rate": plan.rate, "limit": plan.limit, "seeds": [_train(task, plan, seed) for seed in seeds]}
        for name, plan in PLANS.items()
    }
    return {
        "pictures": len(task.labels),
        "classes": task.classes,
        "parameters": ravel_pytree(init_params(task, 0))[0].size,
        "seeds": seeds,
        "runs": runs,
        "claims": [claim.as_json() for name, run in runs.items() for claim in _claims(name, run)],
    }


def _claims(name: str, run: dict[str, Any]) -> Iterator[Claim]:
    plan, seeds = PLANS[name], run["seeds"]
    what = "preconditioned sharpness" if plan.source == ADAPTIVE else "sharpness"
    edges = tuple(seed["edge"] for seed in seeds)
    yield Claim(f"{name}: {what} x rate at the edge", plan.source, plan.limit, edges, plan.tolerance * plan.limit)
    if name == "gradient descent":  # the others' losses are at their end when they arrive, or rise and fall
        falls = tuple(seed["losses"][-1] / seed["losses"][seed["arrival"]] for seed in seeds)
        yield Claim(f"{name}: last loss by that on arrival at the edge", plan.source, 0.5, falls, 0.0, "at most")


def _train(task: Task, plan: Plan, seed: int) -> dict[str, Any]:
    """A training, looked at every so many steps."""
    settings = optimizer_settings(plan.optimizer, plan.rate, *plan.settings)
    config = load_config(None, settings)
    loss, every = squared_error(task), plan.steps // SURVEYS
    objective = Objective.of(loss)
    advance, params = _advancing(unclipped_optimizer(settings, plan.steps), loss, every), init_params(task, seed)
    opt_state = unclipped_optimizer(settings, plan.steps).init(params)
    losses, highest, sharpness = list[float](), list[float](), list[float]()
    for _ in range(SURVEYS):
        params, opt_state, values = advance(params, opt_state)
        scales = ravel_pytree(stability(config, opt_state, params).inverse)[0]
        here = rescaled(Point(objective, params), np.sqrt(np.asarray(scales)))
        sharpness.append(plan.rate * largest_eigenvalue(here, SURVEY).value)
        losses.append(float(values[-1]))
        highest.append(float(values.max()))
    return {
        "seed": seed,
        "steps": [every * (number + 1) for number in range(SURVEYS)],
        "losses": losses,
        "highest": highest,
        "sharpness": sharpness,
        **_edge(np.array(sharpness), np.array(losses), plan.limit),
    }


def _edge(sharpness: np.ndarray, losses: np.ndarray, limit: float) -> dict[str, Any]:
    """When sharpness arrives at the edge, and its median there, while there is something left to fit.

    Where it never arrives its largest value stands for the median.
    """
    arrived = np.flatnonzero(sharpness >= AT_EDGE * limit)
    if not arrived.size:
        return {"arrival": len(losses) - 1, "edge": float(sharpness.max())}
    fitted = np.flatnonzero(losses < FITTED)
    end = max(int(fitted[0]) if fitted.size else len(losses), int(arrived[0]) + 5)
    return {"arrival": int(arrived[0]), "edge": float(np.median(sharpness[arrived[0] : end]))}


def _advancing(
    tx: optax.GradientTransformation, loss: Callable[[Any], jax.Array], steps: int
) -> Callable[[Any, Any], tuple[Any, Any, jax.Array]]:
    """So many updates as one program: new parameters, new state, and the loss before each."""

    def update(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def advance(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        (params, state), losses = jax.lax.scan(update, (params, state), length=steps)
        return params, state, losses

    return advance


def write(numbers: dict[str, Any], page: Page) -> None:
    """The sharpness of each optimizer against its limit, and the losses."""
    runs = numbers["runs"]
    page.text("""Gradient descent on a quadratic of curvature h shrinks the distance to the minimum by |1 - rate h| a
        step: up to h = 2 / rate it arrives, beyond that it flies off. A network's loss is no quadratic, and one
        would choose the rate so that 2 / rate is above its largest curvature, the *sharpness*. Yet the sharpness
        does not stay what it is: training on all pictures at once raises it until it reaches 2 / rate, whatever the
        rate, and holds it there.""")
    page.text(f"""Here a network of {numbers["parameters"]:,} parameters (tanh, squared error) fits
        {numbers["pictures"]} pictures of {numbers["classes"]} classes, all of them in each step, by the same
        optimizers that training has. The limit of each follows from its update alone: momentum 0.9 bears (2 + 2 x
        0.9) / rate, Nesterov's (2 + 2 x 0.9) / (1 + 2 x 0.9) / rate. RMSProp and Adam divide the gradient by a
        number for each parameter; what counts for them is the sharpness in parameters stretched accordingly,
        *preconditioned*: 2 / rate and, with the mean gradient of 0.9, 38 / rate.""")
    with page.figure("sharpness", "Sharpness over its limit: every optimizer comes to 1 and stays", (9, 4.5)) as figure:
        axis = figure.subplots()
        for (name, run), colour, line in zip(runs.items(), COLOURS, LINES, strict=False):
            for seed in run["seeds"]:
                ratio = np.array(seed["sharpness"]) / run["limit"]
                label = name if seed is run["seeds"][0] else None
                axis.plot(np.array(seed["steps"]) / seed["steps"][-1], ratio, color=colour, ls=line, label=label)
        axis.axhline(1, color="grey", lw=1)
        axis.set(xlabel="share of the training", ylabel="sharpness x rate / limit", ylim=(0, 1.6))
        axis.legend(ncols=2, loc="lower right")
    with page.figure("losses", "The highest loss since the look before: it falls on, in spite of the spikes") as figure:
        axis = figure.subplots()
        for (name, run), colour, line in zip(runs.items(), COLOURS, LINES, strict=False):
            seed = run["seeds"][0]
            axis.semilogy(
                np.array(seed["steps"]) / seed["steps"][-1], seed["highest"], color=colour, ls=line, label=name
            )
        axis.set(xlabel="share of the training", ylabel="training loss")
        axis.legend(ncols=2)
    page.table(
        ("optimizer", "rate", "limit of sharpness x rate", *(f"seed {seed}" for seed in numbers["seeds"])),
        ((name, run["rate"], run["limit"], *(seed["edge"] for seed in run["seeds"])) for name, run in runs.items()),
    )
    page.text("""**Look at** the first picture. Whoever halves the rate does not get away from the edge; the sharpness
        doubles instead. That is why a loss may jump in the middle of a training that went well, why warm-up helps
        (the lesson `warm-up`), and why 'the largest rate that is stable' is no property of the network but of the
        way to it.""")
    page.text("""RMSProp lies a little above its limit: its divisors follow the oscillation of the last hundred
        gradients, so that they are larger while it flies than the limit for fixed ones assumes.""")
