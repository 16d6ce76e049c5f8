"""The lesson batch-time: knee and enough on made timings, the row's end, and a tiny run of the whole."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import LESSONS
from jaxfood.lessons import batch_time as lesson
from jaxfood.report.page import Page

pytestmark = pytest.mark.slow  # the lesson takes seconds; other lessons stay in the default set

SIZES = np.array([1, 2, 4, 8, 16, 32])


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        ([1, 1, 1, 1, 1, 1], None),
        ([1, 1.1, 1.2, 1.3, 1.5, 1.5], None),
        ([1, 1, 1, 1.6, 3, 6], 8),
        ([2, 2.1, 2.9, 3.1, 2.9, 9], 8),
        ([1, 1.51, 1, 1, 1, 1], 2),
    ],
)
def test_the_knee_is_the_first_batch_that_takes_over_one_and_a_half_times_as_long(
    seconds: list[float], knee: int | None
) -> None:
    assert lesson.knee(SIZES, np.array(seconds)) == knee


@pytest.mark.parametrize(
    ("seconds", "enough"),
    [
        ([1, 1, 1, 1, 1, 1], 32),  # ever faster
        ([1, 2, 4, 8, 16, 32], 1),  # no gain from the first on
        ([1, 1, 1, 2, 4, 8], 4),
        ([1, 1, 1.1, 2, 4, 8], 4),  # 3.64 of 4 pictures a second are within 10 %
        ([1, 1, 1.12, 2, 4, 8], 8),  # 3.57 are not
        ([1, 1, 1, 2, 5, 20], 4),  # slower again at the end
    ],
)
def test_enough_is_the_smallest_batch_within_ten_percent_of_the_best_speed(seconds: list[float], enough: int) -> None:
    assert lesson.enough(SIZES, np.array(seconds)) == enough


class MadeUpdates:
    """Stands for `_Updates`: time passes on a clock of its own, and memory ends at 64 pictures."""

    now = 0.0
    compiling = 1.0

    def __init__(self, config: Any, variables: Any, batch_size: int) -> None:
        if batch_size > 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        self.batch_size = batch_size
        MadeUpdates.now += self.compiling

    def median_seconds(self, runs: int) -> float:
        seconds = 0.01 * max(8, self.batch_size)
        MadeUpdates.now += (runs + 2) * seconds
        return seconds


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUpdates, "now", 0.0)
    monkeypatch.setattr(lesson, "_Updates", MadeUpdates)
    monkeypatch.setattr(lesson, "init_variables", lambda config: {})
    monkeypatch.setattr(lesson.time, "perf_counter", lambda: MadeUpdates.now)


@pytest.mark.parametrize(
    ("options", "sizes", "stopped_by"),
    [
        ({"largest": 32}, [1, 2, 4, 8, 16, 32], "largest"),
        ({"largest": 33}, [1, 2, 4, 8, 16, 32], "largest"),
        ({"largest": 1024, "budget": 1e9}, [1, 2, 4, 8, 16, 32, 64], "memory"),
        # Each of the first four takes 1 + 0.8 s, 16 takes 1 + 1.6 s, and 32 is taken to need 1 + 3.2 s: 14 s in all.
        ({"budget": 13.9, "runs": 8}, [1, 2, 4, 8, 16], "time"),
        ({"budget": 14.1, "runs": 8}, [1, 2, 4, 8, 16, 32], "time"),
        ({"budget": 0.1}, [1, 2, 4, 8, 16], "time"),
    ],
)
def test_the_row_ends_for_time_memory_or_the_largest(
    made: None, options: dict[str, Any], sizes: list[int], stopped_by: str
) -> None:
    numbers = lesson.measure(**options)
    assert numbers["batch_sizes"].tolist() == sizes
    assert numbers["stopped_by"] == stopped_by
    seconds = 0.01 * np.maximum(8, sizes)
    np.testing.assert_allclose(numbers["seconds"], seconds)
    np.testing.assert_allclose(numbers["images_per_second"], sizes / seconds)
    np.testing.assert_allclose(numbers["epoch_seconds"], np.ceil(10_000 / np.array(sizes)) * seconds)


def test_a_fault_is_not_taken_for_a_full_memory(made: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MadeUpdates, runs: int) -> float:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(MadeUpdates, "median_seconds", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        lesson.measure()


def written(numbers: dict[str, Any], folder: Path) -> str:
    pytest.importorskip("matplotlib", reason="lessons draw with it")
    page = Page(folder, "batch-time", LESSONS["batch-time"].summary)
    lesson.write(numbers, page)
    page.save(numbers)
    return (folder / "batch-time.md").read_text()


def test_a_tiny_run_writes_its_page(tmp_path: Path) -> None:
    numbers = lesson.measure(largest=1, runs=1)
    assert numbers["batch_sizes"].tolist() == [1]
    assert (numbers["seconds"] > 0).all()
    assert numbers["image_size"] == 32
    written(numbers, tmp_path)
    _, stored = read_lesson(tmp_path, "batch-time", {"curves": (1200, 480)})
    assert stored["seconds"] == numbers["seconds"].tolist()
    assert (stored["knee"], stored["enough"]) == (None, 1)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (
            {"largest": 64},
            ["that of one picture: 16.", "a second: 8 (larger ones save no time)", "ends at 64 because no"],
        ),
        ({"largest": 8}, ["none up to 8.", "a second: 8 (the last tried", "ends at 8 because no larger"]),
        ({"budget": 1e9}, ["ends at 64 because memory was full"]),
    ],
)
def test_the_page_says_where_the_curves_turn(
    made: None, tmp_path: Path, options: dict[str, Any], texts: list[str]
) -> None:
    page = written(lesson.measure(**options), tmp_path)
    for text in texts:
        assert text in page
