"""The lesson batch-size: rises against closed forms, the page's words, and a tiny run of the whole."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.data.pictures import Pictures
from jaxfood.data.splits import Splits
from jaxfood.landscape import Objective, Point
from jaxfood.lessons import LESSONS
from jaxfood.lessons import batch_size as lesson
from jaxfood.report.page import Page


def params() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 5), "dense": (20, 7), "bias": (7,)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_in_a_bowl_the_rise_is_curvature_times_length_squared() -> None:
    """Around the point p of the loss 3 |q - p|^2, whatever the direction: 3 r^2 |d|^2, and |d| = |p| of the kernels."""
    here = params()
    length = math.sqrt(sum(float(jnp.sum(jnp.square(here[name]))) for name in ("conv", "dense")))

    def loss(moved: dict[str, jax.Array]) -> jax.Array:
        return 5 + 3 * sum(jnp.sum(jnp.square(moved[name] - here[name])) for name in here)

    radii = (0.1, 0.5, 2.0)
    rises = lesson.loss_rises(Point(Objective.of(loss), here), radii, directions=3)
    np.testing.assert_allclose(rises, np.tile(3 * np.square(radii) * length**2, (3, 1)), rtol=1e-4)


def made_run(seed: int, updates: int, loss: float, rise: float) -> dict[str, Any]:
    metrics = {"loss": loss, "accuracy": 0.5}
    return {
        "batch_size": 4,
        "epochs": 2,
        "updates": updates,
        "seed": seed,
        "history": [{"train": metrics, "valid": {"loss": 3 * loss, "accuracy": 0.1}}] * 2,
        "end": {"train": metrics, "valid": {"loss": 2 * loss, "accuracy": 0.25}},
        "rises": np.array([[rise, 9], [1.5 * rise, 9]], float),
    }


def test_a_summary_is_the_mean_over_runs_and_directions() -> None:
    means = lesson.summary([made_run(1, 8, loss=1.0, rise=0.1), made_run(2, 8, loss=2.0, rise=0.3)])
    assert (means["batch_size"], means["epochs"], means["updates"]) == (4, 2, 8)
    assert (means["train_loss"], means["valid_loss"]) == (1.5, 3.0)
    assert (means["unsettled_valid_loss"], means["valid_accuracy"]) == (4.5, 0.25)
    assert means["rise"] == pytest.approx(0.25)  # of 0.1, 0.15, 0.3, 0.45
    assert means["rise_error"] == pytest.approx(math.sqrt((0.15**2 + 0.1**2 + 0.05**2 + 0.2**2) / 3 / 4))
    assert means["worst_rise"] == pytest.approx(0.45)


def written(numbers: dict[str, Any], folder: Path) -> str:
    pytest.importorskip("matplotlib", reason="lessons draw with it")
    page = Page(folder, "batch-size", LESSONS["batch-size"].summary)
    lesson.write(numbers, page)
    page.save(numbers)
    return (folder / "batch-size.md").read_text()


def made_numbers(rises: dict[str, float]) -> dict[str, Any]:
    updates = {"small": 30, "large": 8, "large, equal updates": 30}
    runs = {plan: [made_run(1, updates[plan], loss=0.2, rise=rise)] for plan, rise in rises.items()}
    means = {plan: lesson.summary(of_plan) for plan, of_plan in runs.items()}
    pictures = {"train": 30, "valid": 10}
    return {"image_size": 32, "pictures": pictures, "radii": lesson.RADII, "runs": runs, "means": means}


def test_the_page_says_whether_the_notes_are_confirmed(tmp_path: Path) -> None:
    flat = written(made_numbers({"small": 0.4, "large": 0.05}), tmp_path)
    assert "3.8 times as many updates" in flat
    assert "by 0.5 ± 0.1 from a training loss of 0.2 around the small" in flat
    assert "by 0.062 ± 0.01 from 0.2 around the large ones' (mean and its standard error): not what the notes" in flat
    assert "as the notes have it" not in flat
    assert "With as many updates" not in flat
    sharp = written(made_numbers({"small": 0.1, "large": 0.4, "large, equal updates": 0.11}), tmp_path)
    assert "standard error): as the notes have it." in sharp
    assert sharp.index("as the notes have it") < sharp.index("With as many updates") < sharp.index("neither end is")


def noise(size: int) -> Pictures:
    images = np.random.default_rng(size).integers(0, 256, (size, 32, 32, 3), np.uint8)
    return Pictures(images, np.arange(size, dtype=np.int32) % 11, (Path(),) * size)


@pytest.fixture
def tiny_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = Splits(noise(30), noise(12), tuple(map(str, range(11))))
    monkeypatch.setattr(lesson, "load_splits", lambda data, num_classes, seed, progress: splits)


def test_plans_are_equal_work_and_where_asked_for_equal_updates(
    tiny_splits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Any, batch_size: int, epochs: int, seed: int) -> dict[str, Any]:
        run = made_run(seed, epochs * math.ceil(30 / batch_size), loss=0.2, rise=0.1)
        return run | {"batch_size": batch_size, "epochs": epochs}

    monkeypatch.setattr(lesson._Trial, "run", run)
    numbers = lesson.measure(small=4, large=15, epochs=3, seeds=(1, 2), equal_updates=True)
    assert numbers["pictures"] == {"train": 30, "valid": 12}
    plans = {
        plan: [(run["batch_size"], run["epochs"], run["updates"], run["seed"]) for run in runs]
        for plan, runs in numbers["runs"].items()
    }
    assert plans == {
        "small": [(4, 3, 24, 1), (4, 3, 24, 2)],
        "large": [(15, 3, 6, 1), (15, 3, 6, 2)],
        "large, equal updates": [(15, 12, 24, 1), (15, 12, 24, 2)],
    }
    assert numbers["means"].keys() == plans.keys()
    assert lesson.measure()["runs"].keys() == {"small", "large"}
    full = lesson.measure(full=True)
    assert full["image_size"] == 128
    assert {plan: len(runs) for plan, runs in full["runs"].items()} == dict.fromkeys(plans, 2)


@pytest.mark.slow
def test_a_tiny_run_and_its_page(tiny_splits: None, tmp_path: Path) -> None:
    numbers = lesson.measure(small=15, large=15, epochs=2, directions=2)
    (run,), (same,) = numbers["runs"]["small"], numbers["runs"]["large"]
    assert (run["updates"], len(run["history"])) == (4, 2)
    assert run["history"][0]["train"]["loss"] == pytest.approx(math.log(11), rel=0.2), "fresh weights, as by chance"
    assert run["rises"].shape == (2, len(lesson.RADII))
    assert np.isfinite(run["rises"]).all()
    assert np.abs(run["rises"]).min() > 0
    np.testing.assert_array_equal(run["rises"], same["rises"])  # one seed, one batch size: one run

    written(numbers, tmp_path)
    page, stored = read_lesson(tmp_path, "batch-size", {"losses": (960, 540), "sharpness": (960, 540)})
    assert stored["means"]["small"]["rise"] == numbers["means"]["small"]["rise"]
    assert stored["runs"]["large"][0]["rises"] == run["rises"].tolist()
    assert f"| {numbers['means']['small']['valid_loss']:.4g} |" in page


@pytest.mark.slow
def test_small_batches_learn_more_of_the_demo_for_equal_work() -> None:
    numbers = lesson.measure(epochs=4, directions=2)
    assert numbers["pictures"] == {"train": 264, "valid": 220}
    small, large = numbers["means"]["small"], numbers["means"]["large"]
    assert (small["updates"], large["updates"]) == (88, 24)
    assert small["train_loss"] < large["train_loss"]
    assert small["valid_loss"] < large["valid_loss"]
