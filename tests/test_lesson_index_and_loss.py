"""The lesson index-and-loss: its fit, its losses, what counts as critical, and a short run of the whole."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.landscape import Ending, Objective, inflection
from jaxfood.lessons import index_and_loss as lesson
from jaxfood.lessons import run_lesson, tanh_networks
from jaxfood.lessons.power_law import fit_power_law
from jaxfood.lessons.tanh_networks import NETWORKS

LOSSES = np.linspace(0.3, 1.0, 25)


@pytest.mark.parametrize("exponent", [0.5, 1.5, 2.0])
def test_a_power_law_is_found_again(exponent: float) -> None:
    found = fit_power_law(LOSSES, 0.7 * (LOSSES - 0.2) ** exponent)
    assert found[:3] == (pytest.approx(0.7, rel=1e-3), pytest.approx(0.2, abs=1e-3), pytest.approx(exponent, rel=1e-2))
    assert found.rms < 1e-5
    np.testing.assert_allclose(found(LOSSES), 0.7 * (LOSSES - 0.2) ** exponent, rtol=1e-3)
    assert found(np.array([0.1])) == pytest.approx(0, abs=1e-5)


def test_what_is_given_is_not_fitted() -> None:
    found = fit_power_law(LOSSES, 0.7 * (LOSSES - 0.2) ** 2, critical=0.1, exponent=1.5)
    assert (found.critical, found.exponent) == (pytest.approx(0.1), pytest.approx(1.5))


def test_the_ladder_of_equal_variances_has_the_exponent_2_and_of_falling_ones_less() -> None:
    equal, falling = lesson.ladder_exponent(0.0), lesson.ladder_exponent(1.0)
    assert equal == pytest.approx(2, abs=1e-3)
    assert falling < 1


@pytest.mark.parametrize("name", NETWORKS)
def test_without_weights_the_loss_is_1_and_half_the_decay_times_their_squares_comes_to_it(name: str) -> None:
    network = NETWORKS[name]
    loss = jax.jit(tanh_networks.loss_of(network, seed=1))
    params = jnp.zeros(network.size).at[0].set(2.0)  # a hidden unit that no output sees
    assert float(loss(jnp.zeros(network.size))) == pytest.approx(1)
    assert float(loss(params)) == pytest.approx(1 + 2 * network.weight_decay)


def test_an_impostor_is_not_judged_critical() -> None:
    loss = inflection(0.1)
    with jax.enable_x64(True):
        end = tanh_networks._judged(Objective.of(loss), lambda _: np.diag([0.0, 1.0]), np.array([0.0, 0.0]))
    assert (end["ending"], end["share"], end["loss"]) == (Ending.GRADIENT_FLAT, 0, 1)
    assert end["gradient_norm"] == pytest.approx(0.1)


def test_a_point_found_twice_counts_once_and_only_critical_ones_do() -> None:
    def point(loss: float, share: float, ending: Ending = Ending.CRITICAL) -> dict[str, object]:
        return {"loss": loss, "share": share, "ending": str(ending)}

    points = [point(x, round(x / 2, 6)) for x in (0.2, 0.4, 0.4 + 1e-9, 0.6, 1.0)]
    summed = lesson._summed_up(3, [*points, point(0.1, 0.9, Ending.GRADIENT_FLAT)])
    assert (summed["critical"], summed["distinct"]) == (5, [(0.2, 0.1), (0.4, 0.2), (0.6, 0.3), (1.0, 0.5)])
    assert summed["correlation"] == pytest.approx(1)
    assert summed["fit"]["exponent"] == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_index_rises_with_the_loss_and_the_exact_one_is_the_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "VARIANCES", (4.0, 2.0, 1.0))
    monkeypatch.setattr(lesson, "WIDTH", 2)
    monkeypatch.setattr(lesson, "STARTS_FAR", 2)
    monkeypatch.setattr(tanh_networks, "SCALES", (0.1, 1.0))
    monkeypatch.setattr(tanh_networks, "TRAININGS", 1)
    run_lesson("index-and-loss", tmp_path)
    sizes = {"linear": (840, 540), "networks": (1200, 540)}
    page, numbers = read_lesson(tmp_path, "index-and-loss", sizes)
    assert [claim["holds"] for claim in numbers["claims"][:5]] == [True] * 5
    assert len(numbers["linear"]["families"]) == 7
    endings = {point["ending"] for network in numbers["networks"].values() for point in network["seeds"][0]["points"]}
    assert {Ending.CRITICAL, Ending.GRADIENT_FLAT} <= endings
    assert "| linear autoencoder: index off the formula, at the worst point | Baldi and Hornik 1989 | 0 | 0 |" in page
