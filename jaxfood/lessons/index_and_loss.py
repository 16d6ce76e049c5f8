"""Index against loss over critical points: exact in the linear autoencoder, by search in two small tanh networks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from scipy.stats import spearmanr

from jaxfood.config.landscape import SpectrumSettings, Tolerances
from jaxfood.landscape import (
    Ending,
    Kind,
    Objective,
    Point,
    Search,
    expand_downhill,
    extreme_eigenvalues,
    find_critical_point,
    inertia,
    judge,
    linear_autoencoder,
)
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.power_law import PowerLaw, fit_power_law
from jaxfood.lessons.tanh_networks import NETWORKS, survey
from jaxfood.report.page import COLOURS, Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS, FULL_SEEDS = (1,), (1, 2, 3)
VARIANCES, WIDTH = (8.0, 4.0, 2.0, 1.0, 0.5), 3  # no two choices of them have the same sum
NEAR, FAR, STARTS_FAR = 0.1, 0.5, 10  # deviation of starts from each known point, from 0, and how many of these
MOST_STEPS, TOLERANCE = 60, 1e-9  # of a search; a gradient norm up to this is 0
DECAYS, LADDER = (0.0, 0.5, 1.0), 100  # variances k^-decay of so many inputs, for the exponent by the formula
EXPONENT, APART = 1.5, 0.25  # the tolerance tells it from 1 and from 2
BALDI = "Baldi and Hornik 1989"
DAUPHIN = "Dauphin et al. 2014, arXiv 1406.2572"
PENNINGTON = "Pennington and Bahri 2017"


def measure(*, full: bool = False) -> dict[str, Any]:
    """Search critical points of three losses, and hold their index against their loss, in float64.

    Returns:
        `linear`: `families` (all there are: `kept`, `loss`, `index`), `parameters`, `found` by the search (`loss`,
        `index`, `by_formula`, `kind`) and `not_critical`, how many searches ended elsewhere; `ladder`: for each of some
        `decays` the exponent by the formula; `networks`: for each its `parameters`, `weight_decay` and `seeds`, with
        the `points` (`tanh_networks.survey`), `distinct` (loss and share of the critical ones), `correlation` and
        `fit`; `claims`.
    """
    with jax.enable_x64(True):
        linear = _search_linear()
        networks = {
            name: {
                "parameters": network.size,
                "weight_decay": network.weight_decay,
                "seeds": [_summed_up(seed, survey(network, seed)) for seed in (FULL_SEEDS if full else SEEDS)],
            }
            for name, network in NETWORKS.items()
        }
    return {
        "linear": linear,
        "ladder": {"decays": DECAYS, "exponents": [ladder_exponent(decay) for decay in DECAYS]},
        "networks": networks,
        "claims": [claim.as_json() for claim in _claims(linear, networks)],
    }


def _search_linear() -> dict[str, Any]:
    """From near each family and from anywhere; which family is found, its loss tells."""
    problem = linear_autoencoder(VARIANCES, WIDTH)
    objective, rng = Objective.of(problem.loss), np.random.default_rng(0)
    size = 2 * len(VARIANCES) * WIDTH
    starts = [Point(objective, truth.params).moved(NEAR * rng.standard_normal(size)) for truth in problem.points]
    origin = Point(objective, problem.points[0].params)  # where nothing is kept
    starts += [origin.moved(FAR * rng.standard_normal(size)) for _ in range(STARTS_FAR)]
    losses = np.array([truth.loss for truth in problem.points])
    found = list[dict[str, Any]]()
    for start in starts:
        end = find_critical_point(Point(objective, start), Search(steps=MOST_STEPS, tolerance=TOLERANCE))
        if end.ending is not Ending.CRITICAL:
            continue
        point = Point(objective, end.params)
        pairs = extreme_eigenvalues(point, SpectrumSettings())
        verdict = judge(expand_downhill(point), pairs, Tolerances(), rounding=TOLERANCE)
        truth = problem.points[int(np.abs(losses - point.loss).argmin())]
        found.append(
            {
                "loss": point.loss,
                "off": abs(point.loss - truth.loss),
                "index": inertia(point, verdict.threshold).negative,
                "by_formula": truth.index,
                "kind": str(verdict.kind),
            }
        )
    families = [{"kept": truth.kept, "loss": truth.loss, "index": truth.index} for truth in problem.points]
    return {"families": families, "parameters": size, "found": found, "not_critical": len(starts) - len(found)}


def ladder_exponent(decay: float) -> float:
    """Of the share of negative eigenvalues over the loss, where a full linear autoencoder keeps the r largest.

    Of n inputs of variances k^-decay and n hidden units it has (n - r)^2 negative eigenvalues of 2 n^2, and the loss of
    what is left out, which ends at 0.
    """
    variances = np.arange(1, LADDER + 1) ** -decay
    left_out = np.cumsum(variances[::-1])[::-1] / variances.sum()
    return fit_power_law(left_out, (np.arange(LADDER, 0, -1) / LADDER) ** 2 / 2, critical=0.0).exponent


def _summed_up(seed: int, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a seed's points, each critical one once: mirrors of a point, and itself found again, count as one."""
    critical = [(round(point["loss"], 6), point["share"]) for point in points if point["ending"] == Ending.CRITICAL]
    distinct = sorted(set(critical))
    losses, shares = np.array(distinct).T
    return {
        "seed": seed,
        "points": points,
        "critical": len(critical),
        "distinct": distinct,
        "correlation": float(spearmanr(losses, shares).statistic),
        "fit": fit_power_law(losses[shares > 0], shares[shares > 0])._asdict(),
    }


def _claims(linear: dict[str, Any], networks: dict[str, Any]) -> Iterator[Claim]:
    wrong = max(abs(point["index"] - point["by_formula"]) for point in linear["found"])
    yield Claim("linear autoencoder: index off the formula, at the worst point", BALDI, 0.0, (float(wrong),), 0.0)
    off = max(point["off"] for point in linear["found"])
    yield Claim("linear autoencoder: loss off the nearest in the table", BALDI, 0.0, (off,), TOLERANCE)
    kinds = sum((point["kind"] == Kind.SADDLE) != (point["by_formula"] > 0) for point in linear["found"])
    yield Claim("linear autoencoder: verdicts that are wrong", BALDI, 0.0, (float(kinds),), 0.0)
    for name, network in networks.items():
        correlations = tuple(seed["correlation"] for seed in network["seeds"])
        yield Claim(f"{name}: rank correlation of loss and index", DAUPHIN, 0.9, correlations, 0.0, "at least")
    for name, network in networks.items():
        exponents = tuple(seed["fit"]["exponent"] for seed in network["seeds"])
        yield Claim(f"{name}: exponent of index over loss", PENNINGTON, EXPONENT, exponents, APART)


def write(numbers: dict[str, Any], page: Page) -> None:
    """The exact law, the measured one, and what the exponent depends on."""
    linear, networks = numbers["linear"], numbers["networks"]
    page.text("""The higher a critical point lies, the more ways lead down from it. Dauphin et al. (2014) took this from
        random functions and saw it in networks; it is why a training seldom ends in a bad minimum. The *index* is the
        number of ways down, of negative eigenvalues of the Hessian; here it is drawn as their share. The lesson
        `minimum-ratio` shows points of small gradient. This one takes only points where the gradient is 0, and asks for
        the law.""")
    page.text("## Where everything is known")
    page.text(f"""The linear autoencoder reproduces its inputs through {WIDTH} hidden units. At each critical point it
        keeps some of the {len(VARIANCES)} principal directions, and the loss is half the variance left out (Baldi and
        Hornik 1989): {len(linear["families"])} families, each of known index. The search started near each of them and
        {STARTS_FAR} times anywhere; {len(linear["found"])} searches ended in a critical point,
        {linear["not_critical"]} did not. Every index and every loss is the formula's, and the verdict is a saddle
        wherever there is a way down.""")
    with page.figure("linear", "The linear autoencoder: every family, and what the search found", (7, 4.5)) as figure:
        _draw_linear(figure.subplots(), linear)
    page.text("## Two tanh networks")
    _write_networks(networks, page)
    with page.figure("networks", "Critical points, the impostors, and the law fitted", (10, 4.5)) as figure:
        for axis, (name, network) in zip(figure.subplots(1, 2), networks.items(), strict=True):
            _draw_network(axis, name, network["seeds"][0])
    page.table(
        ("network", "seed", "starts", "critical", "distinct", "gradient-flat", "unfinished", "rank correlation",
         "loss where the index ends", "exponent"),
        (
            (name, *_row(seed))
            for name, network in networks.items()
            for seed in network["seeds"]
        ),
    )  # fmt: skip
    _write_law(numbers, page)


def _write_networks(networks: dict[str, Any], page: Page) -> None:
    sizes = " and ".join(f"{network['parameters']} parameters ({name})" for name, network in networks.items())
    seeds = [seed for network in networks.values() for seed in network["seeds"]]
    page.text(f"""Networks of one hidden layer, {sizes}: one reproduces its inputs, of variances 1, 1/2, 1/3 and so on,
        as in Pennington and Bahri (2017); one learns random targets, as their theory assumes. Trainings are followed
        from small and from large weights, and from points on the way the gradient's norm is minimised. A little weight
        decay belongs to both losses. Without it a network comes ever nearer to a linear one, by smaller weights before
        the tanh and larger ones behind, and hardly a search ends. The loss is 1 where all weights are 0.""")
    page.text(f"""Of {sum(len(seed["points"]) for seed in seeds)} searches
        {sum(_ended(seed, Ending.GRADIENT_FLAT) for seed in seeds)} ended in **impostors**: the gradient is not 0 there
        but lies where the Hessian is 0, so that no step makes it smaller (Frye et al. 2021). Who only asks for a small
        gradient counts them in. The search of `landscape` tells them apart; they are grey in the picture.""")


def _write_law(numbers: dict[str, Any], page: Page) -> None:
    networks, ladder = numbers["networks"], numbers["ladder"]
    firsts = {name: network["seeds"][0] for name, network in networks.items()}
    exponents = " and ".join(f"{seed['fit']['exponent']:.2f} ({name})" for name, seed in firsts.items())
    page.text(f"""The order is as published: loss and index rise together, and points without a way down are found only
        at the low end. The **exponent** is not. Pennington and Bahri derive that near its end the index rises as the
        loss above it to the power of 3/2, from a Hessian of two random parts that know nothing of each other. Fitted
        here: {exponents}. Near the end, where the law is meant to hold, so small a network has only steps of one
        eigenvalue, and the fit rests on the points above.""")
    page.text("""The linear autoencoder shows that there is no one number for all heights. With as many hidden units as
        inputs, n, it has (n - r)^2 negative eigenvalues of 2 n^2 where it keeps the r largest directions. How the loss
        falls with r, the variances of the data decide, and so they decide the exponent:""")
    page.table(
        ("variance of direction k", f"exponent by the formula, {LADDER} inputs"),
        (
            (f"k^-{decay:g}" if decay else "equal", exponent)
            for decay, exponent in zip(ladder["decays"], ladder["exponents"], strict=True)
        ),
    )
    page.text("""**Look at** the second picture: the autoencoder's law bends the other way than 3/2, as a few directions
        hold most of its loss. Each one that is learned takes much loss away and few ways down. What this does not show:
        the networks are small, and the points are those that were found, near the ways of trainings, no fair sample of
        all.""")


def _ended(seed: dict[str, Any], ending: Ending) -> int:
    return sum(point["ending"] == ending for point in seed["points"])


def _row(seed: dict[str, Any]) -> tuple[Any, ...]:
    return (
        seed["seed"],
        len(seed["points"]),
        seed["critical"],
        len(seed["distinct"]),
        _ended(seed, Ending.GRADIENT_FLAT),
        _ended(seed, Ending.UNFINISHED),
        seed["correlation"],
        seed["fit"]["critical"],
        seed["fit"]["exponent"],
    )


def _draw_linear(axis: "Axes", linear: dict[str, Any]) -> None:
    styles: tuple[dict[str, Any], ...] = (
        {"marker": "o", "s": 70, "fc": "none", "ec": COLOURS[0], "label": "families, by the formula"},
        {"marker": "x", "s": 25, "color": COLOURS[1], "label": "found by the search"},
    )
    for points, style in zip((linear["families"], linear["found"]), styles, strict=True):
        shares = [point["index"] / linear["parameters"] for point in points]
        axis.scatter(shares, [point["loss"] for point in points], **style)
    axis.set(xlabel="share of negative eigenvalues", ylabel="loss")
    axis.legend()


def _draw_network(axis: "Axes", name: str, seed: dict[str, Any]) -> None:
    flat = [point for point in seed["points"] if point["ending"] == Ending.GRADIENT_FLAT]
    axis.scatter(
        [point["share"] for point in flat], [point["loss"] for point in flat], marker="x", s=20, color="0.6",
        label="gradient-flat: not critical",
    )  # fmt: skip
    losses, shares = np.array(seed["distinct"]).T
    axis.scatter(shares, losses, marker="o", s=30, fc=COLOURS[0], ec="black", lw=0.5, label="critical")
    fit = PowerLaw(**seed["fit"])
    theirs = fit_power_law(losses[shares > 0], shares[shares > 0], exponent=EXPONENT)
    heights = np.linspace(min(losses), max(losses), 200)
    axis.plot(fit(heights), heights, "-", color=COLOURS[1], label=f"fitted: exponent {fit.exponent:.2f}")
    axis.plot(theirs(heights), heights, "--", color=COLOURS[2], label="fitted with exponent 3/2")
    axis.set(xlabel="share of negative eigenvalues", ylabel="loss", title=name, ylim=(0, 1.3))
    axis.legend(fontsize="small")
