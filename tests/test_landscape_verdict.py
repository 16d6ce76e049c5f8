"""The verdict: the notes' example, the rule's table and its edges, and what Lanczos may have missed."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.landscape import (
    Eigenpairs,
    Expansion,
    Kind,
    Objective,
    Point,
    SpectrumSettings,
    Tolerances,
    Verdict,
    expand_downhill,
    extreme_eigenvalues,
    judge,
)

pytestmark = pytest.mark.smoke

CRITICAL = Expansion(loss=1.0, slope=0.0, curvature=0.0)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def verdict(loss: Callable[[jax.Array], jax.Array], start: Any, settings: SpectrumSettings | None = None) -> Verdict:
    point = Point(Objective.of(loss), jnp.asarray(start))
    return judge(expand_downhill(point), extreme_eigenvalues(point, settings or SpectrumSettings()), Tolerances())


def found(smallest: float, largest: float, residual: float = 0.0, unseen: float = 0.0) -> Eigenpairs:
    values = np.array([smallest, largest])
    return Eigenpairs(values, np.eye(2), np.full(2, residual), unseen == 0, True, unseen, 2)


def notes_loss(w: jax.Array) -> jax.Array:
    """(y - w1 w2 x)^2 with x = y = 1."""
    return (1 - w[0] * w[1]) ** 2


def bowl(values: Any) -> Callable[[jax.Array], jax.Array]:
    curvatures = jnp.asarray(values, jnp.float64)
    return lambda x: 1 + jnp.sum(curvatures * x**2) / 2


# The notes' example.


def test_the_notes_example_has_a_saddle_at_the_origin() -> None:
    there = verdict(notes_loss, [0.0, 0.0])
    assert there.kind == Kind.SADDLE == "saddle"
    assert there.smallest.value == pytest.approx(-2)
    assert there.largest.value == pytest.approx(2)
    assert there.downhill == Expansion(1.0, 0.0, 0.0)
    assert "-2" in there.reason
    assert there.remedy == "a zero tolerance of 1"


@pytest.mark.parametrize("w1", [1.0, -1.0, 2.0, -0.5])
def test_the_notes_example_has_a_flat_valley_of_perfect_minima(w1: float) -> None:
    """The Hessian 2 (w2, w1)(w2, w1)^T has one eigenvalue 0: along the valley w1 w2 = 1."""
    there = verdict(notes_loss, [w1, 1 / w1])
    assert there.kind == Kind.DEGENERATE
    assert there.downhill.loss == 0
    assert there.smallest.value == pytest.approx(0, abs=1e-12)
    assert there.largest.value == pytest.approx(2 * (w1**2 + w1**-2))
    assert "no negative eigenvalue below -" in there.reason
    assert "to precision" in there.reason
    assert "slices" in there.remedy


def test_elsewhere_the_notes_example_is_not_critical() -> None:
    slope = verdict(notes_loss, [1.0, 0.0])
    assert slope.kind == Kind.NOT_CRITICAL
    assert slope.downhill.decrease == pytest.approx(1.0)
    assert "100 %" in slope.reason
    assert "or a decrease tolerance of 1" in slope.remedy
    uphill = verdict(notes_loss, [0.3, 0.3])
    assert uphill.kind == Kind.NOT_CRITICAL
    assert math.isinf(uphill.downhill.decrease)
    assert "-1.46, not positive" in uphill.reason


# The table.


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([2.0], Kind.LOCAL_MINIMUM),
        ([-2.0], Kind.LOCAL_MAXIMUM),
        ([0.0], Kind.DEGENERATE),
        ([1.0, 3.0], Kind.LOCAL_MINIMUM),
        ([-1.0, 3.0], Kind.SADDLE),
        ([0.0, 0.0], Kind.DEGENERATE),
        ([-1.0, 0.0], Kind.DEGENERATE),
        ([-1.0, 0.0, 0.0, 3.0], Kind.SADDLE),
        (np.zeros(50), Kind.DEGENERATE),
        (np.full(50, 2.0), Kind.LOCAL_MINIMUM),
        (-np.linspace(1, 2, 50), Kind.LOCAL_MAXIMUM),
        (np.r_[-1e-3, np.linspace(0.1, 1, 50)], Kind.SADDLE),
        (np.r_[-5e-5, np.linspace(0.1, 1, 50)], Kind.DEGENERATE),
        (np.r_[5e-5, np.linspace(0.1, 1, 50)], Kind.DEGENERATE),
        (np.r_[1e-3, np.linspace(0.1, 1, 50)], Kind.LOCAL_MINIMUM),
        (np.r_[-np.linspace(0.1, 1, 50), 5e-5], Kind.DEGENERATE),
    ],
)
def test_kinds_of_bowls(values: Any, kind: Kind) -> None:
    point = Point(Objective.of(bowl(values)), jnp.zeros(len(values)))
    for settings in (SpectrumSettings(), SpectrumSettings(dense_size=0)):
        there = judge(expand_downhill(point), extreme_eigenvalues(point, settings), Tolerances())
        assert there.kind == kind
        assert there.reason
        assert there.remedy


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("stretch", [1e-6, 1.0, 1e6])
def test_no_unit_of_loss_or_parameters_matters(scale: float, stretch: float) -> None:
    def loss(x: jax.Array) -> jax.Array:
        return scale * (1 + jnp.sum(jnp.array([2.0, -1.0]) * (x * stretch) ** 2))

    assert verdict(loss, np.zeros(2)).kind == Kind.SADDLE
    assert verdict(loss, np.array([1e-3, 0]) / stretch).kind == Kind.SADDLE
    assert verdict(loss, np.array([0.1, 0]) / stretch).kind == Kind.NOT_CRITICAL


@pytest.mark.parametrize(
    ("downhill", "critical"),
    [
        (Expansion(1.0, 0.0, 0.0), True),
        (Expansion(0.0, 0.0, 0.0), True),
        (Expansion(1.0, -0.01, 0.51), True),  # promises 0.98e-4
        (Expansion(1.0, -0.01, 0.49), False),  # 1.02e-4
        (Expansion(-1.0, -0.01, 0.51), True),
        (Expansion(0.0, -1e-9, 1.0), False),
        (Expansion(1.0, -1e-9, 0.0), False),
        (Expansion(1.0, -1e-9, -1.0), False),
    ],
    ids=str,
)
def test_critical_is_where_little_is_promised(downhill: Expansion, critical: bool) -> None:
    there = judge(downhill, found(1.0, 2.0), Tolerances())
    assert there.kind == (Kind.LOCAL_MINIMUM if critical else Kind.NOT_CRITICAL)


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        (found(-1.01e-4, 1.0), Kind.SADDLE),
        (found(-0.99e-4, 1.0), Kind.DEGENERATE),
        (found(-1.5e-4, 1.0, residual=0.6e-4), Kind.DEGENERATE),
        (found(-1.5e-4, 1.0, residual=0.4e-4), Kind.SADDLE),
        (found(-1.0, 1.01e-4), Kind.SADDLE),
        (found(-1.0, 0.99e-4), Kind.DEGENERATE),
        (found(-1.0, -0.99e-4), Kind.DEGENERATE),
        (found(-1.0, -1.01e-4), Kind.LOCAL_MAXIMUM),
        (found(1.01e-4, 1.0), Kind.LOCAL_MINIMUM),
        (found(0.01, 1.0, residual=0.02), Kind.DEGENERATE),
        (found(0.01, 1.0, unseen=0.009), Kind.LOCAL_MINIMUM),
        (found(0.01, 1.0, unseen=0.011), Kind.DEGENERATE),
        (found(-1.0, -0.01, unseen=0.011), Kind.DEGENERATE),
        (found(-1.0, -0.01, unseen=math.inf), Kind.DEGENERATE),
        (found(-0.01, 1.0, unseen=math.inf), Kind.SADDLE),  # one of each sign is certain, whatever is unseen
    ],
)
def test_the_edges_of_the_rule(pairs: Eigenpairs, kind: Kind) -> None:
    assert judge(CRITICAL, pairs, Tolerances()).kind == kind


# What would change it.


@pytest.mark.parametrize(
    ("pairs", "other"),
    [
        (found(-0.03, 1.0, residual=0.01), Kind.DEGENERATE),
        (found(0.03, 1.0, residual=0.01), Kind.DEGENERATE),
        (found(-1.0, -0.03), Kind.DEGENERATE),
        (found(3e-5, 1.0), Kind.LOCAL_MINIMUM),
        (found(-3e-5, 1.0), Kind.SADDLE),
        (found(-1.0, 3e-5), Kind.SADDLE),
        (found(-1.0, -3e-5), Kind.LOCAL_MAXIMUM),
    ],
)
def test_the_zero_tolerance_that_is_named_is_where_the_kind_changes(pairs: Eigenpairs, other: Kind) -> None:
    there = judge(CRITICAL, pairs, Tolerances())
    named = float(there.remedy.split()[-1])
    assert "zero tolerance" in there.remedy
    grows = there.kind != Kind.DEGENERATE
    beyond, before = (named * 1.01, named * 0.99) if grows else (named * 0.99, named * 1.01)
    assert judge(CRITICAL, pairs, Tolerances(zero_tolerance=beyond)).kind == other
    assert judge(CRITICAL, pairs, Tolerances(zero_tolerance=before)).kind == there.kind


def test_the_decrease_tolerance_that_is_named_is_where_the_kind_changes() -> None:
    downhill, pairs = Expansion(2.0, -0.3, 0.5), found(1.0, 2.0)
    there = judge(downhill, pairs, Tolerances())
    named = float(there.remedy.split()[-1])
    assert judge(downhill, pairs, Tolerances(decrease_tolerance=named * 1.1)).kind == Kind.LOCAL_MINIMUM
    assert judge(downhill, pairs, Tolerances(decrease_tolerance=named * 0.9)).kind == Kind.NOT_CRITICAL


def test_words_that_tell_of_the_numbers() -> None:
    missed = judge(CRITICAL, found(0.01, 1.0, residual=2e-3, unseen=0.5), Tolerances())
    assert "no negative eigenvalue below -0.0001 found to precision 0.002" in missed.reason
    assert "one not found may lie up to 0.5 beyond" in missed.reason
    assert "more Lanczos vectors" in missed.remedy
    maximum = judge(CRITICAL, found(-1.0, 5e-5, residual=1e-6), Tolerances())
    assert "no positive eigenvalue above 0.0001 found to precision 1e-06" in maximum.reason
    assert judge(CRITICAL, found(0.0, 0.0), Tolerances()).reason == "every eigenvalue found is 0"
    assert "from a loss of 0" in judge(Expansion(0.0, -1.0, 1.0), found(0.0, 1.0), Tolerances()).reason


# A small negative eigenvalue that Lanczos may miss.


def test_a_saddle_is_never_called_a_minimum_for_want_of_products() -> None:
    """One eigenvalue of 2,000 is slightly negative, next to many slightly positive ones."""
    point = Point(Objective.of(bowl(np.r_[-3e-3, np.geomspace(1e-3, 1, 1999)])), jnp.zeros(2000))
    kinds = set()
    for seed, max_products in itertools.product(range(4), (1, 3, 10, 20, 40, 80)):
        settings = SpectrumSettings(memory_gib=0, seed=seed, max_products=max_products, accuracy=0.5, floor=0.1)
        there = judge(expand_downhill(point), extreme_eigenvalues(point, settings), Tolerances())
        kinds.add(there.kind)
        assert ("may lie up to" in there.reason) == (there.kind is Kind.DEGENERATE)
    assert kinds <= {Kind.DEGENERATE, Kind.SADDLE}
    assert Kind.DEGENERATE in kinds


def test_enough_lanczos_vectors_tell_a_minimum_and_a_saddle_apart() -> None:
    positive = np.geomspace(0.02, 1, 1999)
    kinds = [verdict(bowl(np.r_[first, positive]), np.zeros(2000)).kind for first in (0.02, -3e-3)]
    assert kinds == [Kind.LOCAL_MINIMUM, Kind.SADDLE]
    few = verdict(bowl(np.r_[0.02, positive]), np.zeros(2000), SpectrumSettings(memory_gib=0))
    assert few.kind == Kind.DEGENERATE
