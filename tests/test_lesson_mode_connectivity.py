"""The lesson mode-connectivity: its claims, and a short run of the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import mode_connectivity as lesson
from jaxfood.lessons import run_lesson


def made_pair(line: float, curve: float, curve_error: float) -> dict[str, Any]:
    return {
        "line": {"losses": [0.1, line, 0.2], "errors": [0.05, 0.9, 0.06], "barrier": line - 0.15},
        "curve": {"losses": [0.1, curve, 0.2], "errors": [0.05, curve_error, 0.06], "barrier": max(0, curve - 0.15)},
    }


def test_the_claims_compare_the_worst_with_the_worse_end() -> None:
    wall, rest, excess = lesson._claims([made_pair(line=1.15, curve=0.16, curve_error=0.08)])
    assert wall.measured == pytest.approx([5.75])
    assert rest.measured == pytest.approx([0.01])
    assert excess.measured == pytest.approx([0.02])
    assert wall.holds
    assert rest.holds
    assert excess.holds
    assert not any(claim.holds for claim in lesson._claims([made_pair(line=0.59, curve=0.17, curve_error=0.09)]))


@pytest.mark.slow
def test_a_short_run_has_a_wall_on_the_line_that_the_curve_goes_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "EPOCHS", 5)
    monkeypatch.setattr(lesson, "CURVE_EPOCHS", 3)
    run_lesson("mode-connectivity", tmp_path)
    page, numbers = read_lesson(tmp_path, "mode-connectivity", {"paths": (1200, 480)})
    (pair,) = numbers["pairs"]
    assert numbers["pictures"] == {"train": 660, "valid": 220}
    assert pair["curve"]["barrier"] < pair["line"]["barrier"] / 2
    for name in ("losses", "errors"):  # the curve has the line's ends
        np.testing.assert_allclose(
            np.take(pair["curve"][name], [0, -1]), np.take(pair["line"][name], [0, -1]), rtol=0.02
        )
    assert "## Claims" in page
