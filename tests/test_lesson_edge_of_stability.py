"""The lesson edge-of-stability: the pictures it fits, where the edge is read, and a short run of gradient descent."""

from pathlib import Path

import numpy as np
import pytest
from lesson_pages import read_lesson
from PIL import Image

from jaxfood.errors import UserError
from jaxfood.lessons import edge_of_stability as lesson
from jaxfood.lessons import run_lesson
from jaxfood.lessons.pictures_to_fit import load_task


def test_the_edge_is_the_median_from_the_arrival_until_all_is_fitted() -> None:
    sharpness = np.array([0.5, 1.0, 1.95, 2.3, 2.0, 2.1, 2.2, 9.0])
    losses = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 1e-3])
    assert lesson._edge(sharpness, losses, 2.0) == {"arrival": 2, "edge": 2.1}


def test_who_never_arrives_is_told_by_the_largest_sharpness() -> None:
    assert lesson._edge(np.array([0.5, 1.5, 1.0]), np.ones(3), 2.0) == {"arrival": 2, "edge": 1.5}


def test_photographs_become_means_of_squares_around_0(tiny_food: Path) -> None:
    """All training pictures, in an order of its own: the same rows as by hand, but for that."""
    count = len(list((tiny_food / "train").iterdir()))
    task = load_task(tiny_food, pictures=count)
    rows = []
    for path in (tiny_food / "train").iterdir():
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR), np.float64) / 255
        rows.append((int(path.name.partition("_")[0]), *pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).ravel()))
    expected = np.array(sorted(rows))
    values = expected[:, 1:] - expected[:, 1:].mean(axis=0)
    found = np.column_stack([task.labels, task.inputs])
    order = np.lexsort(np.round(found, 3).T[1::-1])
    by_hand = np.column_stack([expected[:, 0], values / values.std()])
    np.testing.assert_allclose(found[order], by_hand[np.lexsort(np.round(by_hand, 3).T[1::-1])], atol=1e-4)


def test_too_few_photographs_are_refused(tiny_food: Path) -> None:
    with pytest.raises(UserError, match=r"^--images: .*tiny_food\S* has \d+ training pictures; the lesson takes 200$"):
        load_task(tiny_food)


@pytest.mark.slow
def test_gradient_descent_comes_to_its_edge_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lesson.PLANS["gradient descent"]._replace(rate=0.1, steps=1200)
    monkeypatch.setattr(lesson, "PLANS", {"gradient descent": plan})
    monkeypatch.setattr(lesson, "SURVEYS", 12)
    run_lesson("edge-of-stability", tmp_path)
    page, numbers = read_lesson(tmp_path, "edge-of-stability", {"sharpness": (1080, 540), "losses": (960, 540)})
    assert [claim["holds"] for claim in numbers["claims"]] == [True, True]
    run = numbers["runs"]["gradient descent"]["seeds"][0]
    assert run["sharpness"][0] < 1.8 < run["edge"] < 2.2
    assert "| gradient descent: sharpness x rate at the edge | Cohen et al. 2021, arXiv 2103.00065 | 2 |" in page
