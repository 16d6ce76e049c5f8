"""The lesson warm-up: its schedule, the largest rate that learns, and a short run of the whole."""

from pathlib import Path

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import run_lesson
from jaxfood.lessons import warm_up as lesson


def test_the_rate_rises_in_even_steps_to_its_value() -> None:
    rates = lesson._schedule(2.0, 100)
    np.testing.assert_allclose(rates[[0, 49, 99, 100, -1]], [0.02, 1, 2, 2, 2])
    assert set(lesson._schedule(2.0, 0)) == {2.0}


@pytest.mark.parametrize(
    ("failed", "largest"),
    [([], -1), ([5], 4), ([5, 7], 4), ([0], -1), ([0, 1, 5], 4), (list(range(len(lesson.RATES))), 0)],
)
def test_the_largest_rate_is_that_before_the_first_that_fails(failed: list[int], largest: int) -> None:
    """Rates at the low end that have not learnt yet are slow, not unstable."""
    ends = np.full(len(lesson.RATES), 0.1)
    ends[failed] = np.resize([0.4, np.nan], len(failed))
    assert lesson._largest(ends) == lesson.RATES[largest]


@pytest.mark.slow
def test_warm_up_makes_larger_rates_stable_and_ends_at_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "RATES", 2.0 ** np.arange(1, 7))
    monkeypatch.setattr(lesson, "LOOKS", 6)
    run_lesson("warm-up", tmp_path)
    page, numbers = read_lesson(tmp_path, "warm-up", {"rates": (960, 540), "ways": (960, 540)})
    assert [claim["holds"] for claim in numbers["claims"]] == [True, True, True]
    alone, _, long = numbers["seeds"][0]["largest"]
    assert 4 <= alone < long
    assert "## Claims" in page
