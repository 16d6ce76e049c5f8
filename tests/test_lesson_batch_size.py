"""The lesson batch-size: power against the formula, the page's words, and a tiny run of the whole."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.data.pictures import Pictures
from jaxfood.data.splits import Splits
from jaxfood.lessons import LESSONS
from jaxfood.lessons import batch_sharpness as many
from jaxfood.lessons import batch_size as lesson
from jaxfood.lessons.power import compare_groups, seeds_needed
from jaxfood.report.page import Page

Seeds = tuple[float, ...]


def made_run(seed: int, updates: int, loss: float) -> dict[str, Any]:
    metrics = {"loss": loss, "accuracy": 0.5}
    return {
        "batch_size": 4,
        "epochs": 2,
        "updates": updates,
        "seed": seed,
        "history": [{"train": metrics, "valid": {"loss": 3 * loss, "accuracy": 0.1}}] * 2,
        "end": {"train": metrics, "valid": {"loss": 2 * loss, "accuracy": 0.25}},
    }


def test_a_summary_is_the_mean_over_runs() -> None:
    means = lesson.summary([made_run(1, 8, loss=1.0), made_run(2, 8, loss=2.0)])
    assert (means["batch_size"], means["epochs"], means["updates"]) == (4, 2, 8)
    assert (means["train_loss"], means["valid_loss"]) == (1.5, 3.0)
    assert (means["unsettled_valid_loss"], means["valid_accuracy"]) == (4.5, 0.25)


def made_seeds(small: Seeds = (31, 32, 33), late: Seeds = (41, 39, 40), early: Seeds = (11, 12, 13)) -> dict[str, Any]:
    """Made sharpness of three seeds: small batches, whether trained long or not; large ones long, and not."""
    sharpness = dict(zip(many.GROUPS, (small, small, early, late), strict=True))
    groups = {
        name: {"batch_size": size, "epochs": epochs, "updates": 40, "losses": [0.1] * 3, "accuracies": [0.5, 0.6, 0.7]}
        for name, (size, epochs) in many.GROUPS.items()
    }
    compared = {
        name: {
            "sharpness": compare_groups(*(sharpness[group] for group in pair))._asdict(),
            "accuracies": compare_groups((0.5, 0.6, 0.7), (0.51, 0.61, 0.71))._asdict(),
        }
        for name, pair in many.COMPARED.items()
    }
    groups = {name: {**group, "sharpness": list(sharpness[name])} for name, group in groups.items()}
    return {"pictures": 7, "others": 14, "rate": 0.05, "groups": groups, "comparisons": compared}


def test_the_seeds_that_a_difference_needs_are_those_of_the_formula() -> None:
    """2 (1.96 + 0.8416)^2 = 15.698, times s^2 / d^2; two at least."""
    assert [seeds_needed(1.0, s) for s in (0.1, 0.5, 1.0, 3.0)] == [2, 4, 16, 142]
    assert seeds_needed(-2.0, 2.0) == 16
    assert seeds_needed(0.0, 1.0) == math.inf


def test_groups_are_compared_by_students_test() -> None:
    compared = compare_groups((1, 2, 3), (4, 5, 6))
    assert compared.difference == 3
    assert compared.deviation == 1
    assert compared.p_value == pytest.approx(0.0213, abs=1e-4)  # t = 3 / sqrt(2 / 3) of 4 degrees of freedom
    assert (compared.seeds, compared.seeds_needed) == (3, 2)
    assert compared.detectable == pytest.approx(math.sqrt(15.698 / 3), rel=1e-4)  # three seeds are needed for it


def test_the_claims_are_every_seeds_ratio_the_edge_and_the_seeds_needed() -> None:
    claims = [claim.as_json() for claim in many.sharpness_claims(made_seeds())]
    assert claims[0]["each"] == claims[1]["each"] == pytest.approx([41 / 31, 39 / 32, 40 / 33])
    assert claims[2]["each"] == pytest.approx([2.05, 1.95, 2])
    assert [claim["each"] for claim in claims[3:]] == [[2], [1570]]  # 15.698 0.1^2 / 0.01^2, rounded up
    assert [claim["holds"] for claim in claims] == [True, True, True, True, False]
    flat = [claim.as_json() for claim in many.sharpness_claims(made_seeds(late=(30, 39, 43)))]
    assert [claim["holds"] for claim in flat] == [False, False, False, False, False]


def written(numbers: dict[str, Any], folder: Path) -> str:
    pytest.importorskip("matplotlib", reason="lessons draw with it")
    page = Page(folder, "batch-size", LESSONS["batch-size"].summary)
    lesson.write(numbers, page)
    page.save(numbers)
    return (folder / "batch-size.md").read_text()


def made_numbers(*plans: str, **sharpness: Seeds) -> dict[str, Any]:
    updates = {"small": 30, "large": 8, "large, equal updates": 30}
    runs = {plan: [made_run(1, updates[plan], loss=0.2)] for plan in plans}
    means = {plan: lesson.summary(of_plan) for plan, of_plan in runs.items()}
    numbers = {"image_size": 32, "pictures": {"train": 30, "valid": 10}, "runs": runs, "means": means}
    return {**numbers, "many_seeds": made_seeds(**sharpness)}


def test_the_page_says_what_was_seen_and_how_many_seeds_it_takes(tmp_path: Path) -> None:
    page = written(made_numbers("small", "large"), tmp_path)
    assert "3.8 times as many updates" in page
    assert "With as many updates as" not in page
    assert "For as many updates, large batches end sharper" in page
    assert "equal work, 200 epochs, they end flatter" in page
    assert "when both have, they end sharper" in page
    assert "it would take 1,570 seeds, and these 3 would have shown one of 23 points" in page
    other = written(
        made_numbers("small", "large", "large, equal updates", late=(33, 32, 31), early=(32, 35, 38)), tmp_path
    )
    assert "for 1.0 times the work, the large ones end at a training loss of 0.2" in other
    assert "For as many updates, large batches cannot be told from small ones" in other
    assert "at equal updates, that is infinitely many" in other


def noise(size: int) -> Pictures:
    images = np.random.default_rng(size).integers(0, 256, (size, 32, 32, 3), np.uint8)
    return Pictures(images, np.arange(size, dtype=np.int32) % 11, (Path(),) * size)


@pytest.fixture
def tiny_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = Splits(noise(30), noise(12), tuple(map(str, range(11))))
    monkeypatch.setattr("jaxfood.lessons.trainings.load_splits", lambda data, num_classes, seed, progress: splits)
    monkeypatch.setattr(lesson, "measure_sharpness", lambda full, images: made_seeds())


def test_plans_are_equal_work_and_where_asked_for_equal_updates(
    tiny_splits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Any, batch_size: int, epochs: int, seed: int) -> dict[str, Any]:
        run = made_run(seed, epochs * math.ceil(30 / batch_size), loss=0.2)
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
    numbers = lesson.measure(small=15, large=15, epochs=2)
    (run,), (same,) = numbers["runs"]["small"], numbers["runs"]["large"]
    assert (run["updates"], len(run["history"])) == (4, 2)
    assert run["history"][0]["train"]["loss"] == pytest.approx(math.log(11), rel=0.2), "fresh weights, as by chance"
    assert run == same  # one seed, one batch size: one run

    written(numbers, tmp_path)
    page, stored = read_lesson(tmp_path, "batch-size", {"losses": (960, 540), "seeds": (960, 420)})
    assert stored["runs"]["large"][0]["end"] == run["end"]
    assert f"| {numbers['means']['small']['valid_loss']:.4g} |" in page


@pytest.mark.slow
def test_large_batches_end_sharper_and_the_whole_batch_at_two_by_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "SEEDS", 3)
    numbers = many.measure_sharpness()
    assert (numbers["pictures"], numbers["others"]) == (200, 400)
    assert [group["updates"] for group in numbers["groups"].values()] == [4000, 80_000, 200, 4000]
    assert [claim.holds for claim in many.sharpness_claims(numbers)][:4] == [True] * 4
    assert numbers["comparisons"][many.EQUAL_WORK]["sharpness"]["difference"] < 0


@pytest.mark.slow
def test_after_few_updates_the_running_statistics_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "measure_sharpness", lambda full, images: made_seeds())
    numbers = lesson.measure()
    assert numbers["pictures"] == {"train": 264, "valid": 220}
    small, large = numbers["means"]["small"], numbers["means"]["large"]
    assert (small["updates"], large["updates"]) == (176, 48)
    assert large["unsettled_valid_loss"] > 1.5 * large["valid_loss"]
    assert small["unsettled_valid_loss"] < 1.5 * small["valid_loss"]
