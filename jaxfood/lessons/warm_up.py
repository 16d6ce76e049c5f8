"""Why warm-up: it lowers the sharpness on the way, so that a larger rate is stable."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config.landscape import SpectrumSettings
from jaxfood.landscape import Objective, Point, largest_eigenvalue
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.pictures_to_fit import Task, init_params, load_task, squared_error
from jaxfood.report.page import COLOURS, LINES, Page

SEEDS, FULL_SEEDS = (1,), (1, 2, 3)
STEPS, WARM_UPS = 600, (0, 100, 300)
START = 3.0  # PyTorch's weights times this: a start in a sharp place
RATES = 2.0 ** np.arange(0, 8.25, 0.25)  # times 1 / the sharpness at the start
LEARNT = 0.5  # of the loss of answers that are all 0, which is 1/2: a training that ends above it has failed
LAST = 50  # steps whose mean loss is the end's
LOOKS = 30  # at the sharpness on the way
SURVEY = SpectrumSettings(max_products=40, accuracy=0.01)
GILMER = "Gilmer et al. 2021, arXiv 2110.04369"
KALRA = "Kalra and Barkeshli 2024, arXiv 2406.09405"
CATAPULT = "Lewkowycz et al. 2020, arXiv 2003.02218"


def measure(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Gradient descent at many rates, from a sharp start, with a linear warm-up of the rate and without.

    Returns:
        `steps`, `warm_ups` (how many steps each takes); for each of `seeds`: `sharpness` at the start, `rates` times
        that, `ends` (the mean loss of the last steps for each warm-up and rate, None where it is not finite), `largest`
        (the largest rate times the first sharpness up to which trainings learn, for each warm-up), and the `ways`
        at the largest rate that needs no warm-up: the sharpness times that rate at `looks`, for each warm-up; `claims`.
    """
    task = load_task(images)
    runs = [_seed(task, seed) for seed in (FULL_SEEDS if full else SEEDS)]
    return {
        "steps": STEPS,
        "warm_ups": WARM_UPS,
        "rates": RATES,
        "looks": _looks(),
        "seeds": runs,
        "claims": [claim.as_json() for claim in _claims(runs)],
    }


def _claims(runs: list[dict[str, Any]]) -> list[Claim]:
    alone, warmed = (tuple(run["largest"][number] for run in runs) for number in (0, -1))
    gains = tuple(b / a for a, b in zip(alone, warmed, strict=True))
    after = tuple(float(np.mean(run["ways"][-1][_looks().index(WARM_UPS[-1]) :])) for run in runs)
    return [
        Claim(
            "largest rate without warm-up x first sharpness: the loss leaps, and comes down",
            CATAPULT,
            4.0,
            alone,
            0.0,
            "at least",
        ),
        Claim("largest rate with warm-up by that without", KALRA, 1.5, gains, 0.0, "at least"),
        Claim("sharpness x rate after warm-up, mean", GILMER, 2.0, after, 0.25, "at most"),
    ]


def _looks() -> list[int]:
    return [STEPS * number // LOOKS for number in range(LOOKS + 1)]


def _seed(task: Task, seed: int) -> dict[str, Any]:
    loss = squared_error(task)
    params = jax.tree.map(lambda p: START * p, init_params(task, seed))
    objective = Objective.of(loss)
    first = largest_eigenvalue(Point(objective, params), SURVEY).value
    train = jax.jit(jax.vmap(partial(_train, loss), in_axes=(None, 0)))
    ends = []
    for warm_up in WARM_UPS:
        _, losses = train(params, jnp.asarray([_schedule(rate / first, warm_up) for rate in RATES]))
        ends.append(np.asarray(losses)[:, -LAST:].mean(axis=1))
    largest = [_largest(end) for end in ends]
    ways = [_way(objective, loss, params, _schedule(largest[0] / first, warm_up)) for warm_up in WARM_UPS]
    return {
        "seed": seed,
        "sharpness": first,
        "ends": ends,
        "largest": largest,
        "ways": [(np.array(way) * largest[0] / first).tolist() for way in ways],
    }


def _largest(ends: np.ndarray) -> float:
    """The largest rate up to which every training learns; the smallest of all where none does.

    The smallest rates may not have learnt yet: they are slow, not unstable, and count for nothing.
    """
    learnt = np.asarray(ends) < LEARNT / 2
    if not learnt.any():
        return float(RATES[0])
    first = int(learnt.argmax())
    failed = np.flatnonzero(~learnt[first:])
    return float(RATES[first + failed[0] - 1] if failed.size else RATES[-1])


def _schedule(rate: float, warm_up: int) -> np.ndarray:
    """The rate of each step: from rate / warm_up up to the rate in even steps, then the rate."""
    return rate * np.minimum(1, np.arange(1, STEPS + 1) / max(warm_up, 1))


def _train(loss: Any, params: Any, rates: jax.Array) -> tuple[Any, jax.Array]:
    """Gradient descent at these rates `[steps]`: the last parameters, and the loss before each step."""

    def step(params: Any, rate: jax.Array) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), value

    return jax.lax.scan(step, params, rates)


def _way(objective: Objective, loss: Any, params: Any, rates: np.ndarray) -> list[float]:
    """The sharpness at each look."""
    advance = jax.jit(partial(_train, loss))
    found = [largest_eigenvalue(Point(objective, params), SURVEY).value]
    for part in np.split(rates, LOOKS):
        params, _ = advance(params, part)
        found.append(largest_eigenvalue(Point(objective, params), SURVEY).value)
    return found


def write(numbers: dict[str, Any], page: Page) -> None:
    """Which rates are stable, and what the sharpness does on the way."""
    first, looks, rates = numbers["seeds"][0], np.array(numbers["looks"]), np.array(numbers["rates"])
    labels = ["no warm-up" if not steps else f"warm-up of {steps} steps" for steps in numbers["warm_ups"]]
    page.text(f"""A network that starts in a sharp place (here: the weights {START:g} times as large as usual, a
        sharpness of {first["sharpness"]:.0f}) has the strictest limit at the first step: a rate above 2 / sharpness
        throws it off. It may still land in a flatter place after a leap of the loss, and learn there; at a larger
        rate it is lost. Warm-up begins with small rates. The edge of stability (the lesson `edge-of-stability`)
        then does the rest: wherever sharpness is above 2 / rate, steps lead away to where it is below, and the
        rising rate takes the sharpness down with it.""")
    with page.figure("rates", "The loss at the end of each training, against its rate") as figure:
        axis = figure.subplots()
        for ends, label, colour, line in zip(first["ends"], labels, COLOURS, LINES, strict=False):
            shown = np.where(np.isfinite(ends) & (np.array(ends) < 10), ends, np.nan)
            axis.plot(rates, shown, color=colour, ls=line, marker="o", ms=3, label=label)
        axis.set(xscale="log", yscale="log", xlabel="rate x sharpness at the start", ylabel="loss at the end")
        axis.axvline(2, color="grey", lw=1)
        axis.legend()
    with page.figure("ways", "Sharpness at one and the same rate, the largest that needs no warm-up") as figure:
        axis = figure.subplots()
        for way, label, colour, line in zip(first["ways"], labels, COLOURS, LINES, strict=False):
            axis.semilogy(looks, way, color=colour, ls=line, label=label)
        axis.axhline(2, color="grey", lw=1)
        axis.set(xlabel="step", ylabel="sharpness x rate")
        axis.legend()
    page.table(
        ("seed", "sharpness at the start", *(f"largest rate x that, {label}" for label in labels)),
        ((run["seed"], run["sharpness"], *run["largest"]) for run in numbers["seeds"]),
    )
    page.text("""**Look at** the second picture: the lines end at 2, warm-up or not. What warm-up takes away is the leap
        on the way there, and with it the trainings that do not come back. A schedule with `schedule.warmup_ratio`
        does the same for every optimizer here.""")
