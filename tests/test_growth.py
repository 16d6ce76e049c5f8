"""`scripts/benchmarks/growth.py`: what it calls growth, and that its works do what they say."""

from pathlib import Path

import growth
import numpy as np
import pytest

from jaxfood.data import shares


def test_growth_is_the_power_of_the_last_two_sizes() -> None:
    assert growth.growth((1, 10, 100), (5, 1, 10)) == pytest.approx(1)
    assert growth.growth((10, 40), (1, 16)) == pytest.approx(2)
    assert list(growth.cells((10, 100), (2, 2))) == ["2", "2", "0.00"]


def test_so_many_pictures_by_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LINKS", 2)  # of one file: the third picture of a class is another
    growth.link(30, tmp_path)
    assert len(list(tmp_path.glob("class*/*.png"))) == 30
    assert len({path.stat().st_ino for path in tmp_path.glob("class0/*.png")}) == 2


@pytest.mark.parametrize("axis", ["pictures", "classes"])
def test_an_axis(axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LABELLED", 200)
    monkeypatch.setattr(growth, "SCORED", 20)
    seconds = growth.measure(axis, 55, str(tmp_path))
    assert len(seconds) > 5
    assert all(value >= 0 for value in seconds.values())
    assert not list(tmp_path.iterdir())


def test_classes_are_found_by_one_sort() -> None:
    """In the order that a search for every class gives, by which runs were split."""
    labels = np.random.default_rng(0).integers(0, 7, 100)
    found = shares._of_each_class(labels)
    assert [positions.tolist() for positions in found] == [np.flatnonzero(labels == n).tolist() for n in range(7)]
