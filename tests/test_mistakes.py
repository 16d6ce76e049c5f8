"""Pictures worth a look: which they are, and what copies and pictures of the training do to the accuracy."""

from pathlib import Path

import numpy as np
import pytest

from jaxfood.data.records import PictureRecord
from jaxfood.evaluation.mistakes import confident_mistakes, least_certain, suspected_labels, worth_a_look
from jaxfood.evaluation.repeats import find_repeats, find_seen
from jaxfood.runs.pictures import write_pictures

TRUTH = np.array([0, 0, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.9, 0.05, 0.05], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.35, 0.33, 0.32]], np.float32
)


def test_the_surest_mistake_and_the_least_sure_answer_come_first() -> None:
    assert confident_mistakes(TRUTH, PROBABILITIES).tolist() == [2, 1, 4]
    assert least_certain(PROBABILITIES).tolist() == [4, 3, 1, 2, 0]


def test_mistakes_are_explained_before_uncertain_answers_and_none_twice() -> None:
    assert worth_a_look(TRUTH, PROBABILITIES, 2) == [2, 1]
    assert worth_a_look(TRUTH, PROBABILITIES, 4) == [2, 1, 4, 3]
    assert worth_a_look(TRUTH, PROBABILITIES, 99) == [2, 1, 4, 3, 0]


def by_definition(truth: np.ndarray, probabilities: np.ndarray) -> list[tuple[float, int, int]]:
    """Northcutt et al. 2021, equations 1 and 2, picture by picture; sorted by the normalized margin."""
    classes = range(probabilities.shape[1])
    thresholds = [probabilities[truth == each, each].mean() if (truth == each).any() else np.inf for each in classes]
    found = []
    for row, (label, own) in enumerate(zip(truth, probabilities, strict=True)):
        reached = [each for each in classes if own[each] >= thresholds[each]]
        if reached and (best := max(reached, key=lambda each: own[each])) != label:
            found.append((own[label] - max(own[each] for each in classes if each != label), row, best))
    return sorted(found)


def test_suspected_labels_are_those_of_confident_learning() -> None:
    rng = np.random.default_rng(1)
    real = rng.integers(0, 4, 400)
    logits = rng.normal(size=(400, 5))  # no picture is of class 4
    logits[np.arange(400), real] += 4
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    truth = real.copy()
    wrong = rng.choice(400, 12, replace=False)
    truth[wrong] = (truth[wrong] + 1) % 4
    found = suspected_labels(truth, probabilities)
    expected = by_definition(truth, probabilities)
    assert [(each.row, each.suggested) for each in found] == [(row, best) for _, row, best in expected]
    np.testing.assert_allclose([each.normalized_margin for each in found], [margin for margin, _, _ in expected])
    assert {each.row for each in found[:10]} <= set(wrong.tolist())  # the planted ones lead
    assert all(each.suggested == real[each.row] for each in found[:10])
    assert found[0].self_confidence == probabilities[found[0].row, truth[found[0].row]]
    assert all(each.suggested != 4 for each in found)


def test_equal_answers_are_no_suspects() -> None:
    """A network that answers all pictures alike: each probability is its class's threshold, and argmax is one class."""
    alike = np.tile(np.float32([0.2, 0.5, 0.3]), (30, 1))
    found = suspected_labels(np.repeat([0, 1, 2], 10), alike)
    assert {each.suggested for each in found} == {1}
    assert suspected_labels(np.array([1]), alike[:1]) == []


def test_a_content_that_stands_several_times_counts_once() -> None:
    digests = ["a", "b", "a", "c", "a", "b"]
    truth = np.array([0, 1, 0, 2, 1, 1])
    right = np.array([True, False, True, True, False, False])
    found = find_repeats(digests, truth, right)
    assert found.groups == ((0, 2, 4), (1, 5))
    assert found.surplus == 3
    assert found.under_two_labels == 1
    assert found.accuracy_each_once == pytest.approx((2 / 3 + 0 + 1) / 3)
    alone = find_repeats(["a", "b"], truth[:2], right[:2])
    assert (alone.groups, alone.surplus, alone.accuracy_each_once) == ((), 0, 0.5)


def test_pictures_of_the_training_are_found_by_content(tmp_path: Path) -> None:
    records = [("train", "x.jpg", 0, "a"), ("valid", "y.jpg", 1, "b"), ("unlabeled", "z.jpg", -1, "c")]
    write_pictures(tmp_path, tuple(PictureRecord(*record) for record in records))
    seen = find_seen(tmp_path, ["c", "b", "new", "a"])
    assert seen is not None
    assert seen.splits["valid"].tolist() == [False, True, False, False]
    assert seen.trained_on.tolist() == [True, False, False, True]


def test_a_run_that_does_not_tell_its_pictures(tmp_path: Path) -> None:
    assert find_seen(tmp_path, ["a"]) is None  # of weights from elsewhere
    write_pictures(tmp_path, (PictureRecord("train", "food11 train", -1, "a"),))
    assert find_seen(tmp_path, ["a"]) is None  # of TFDS: one record for all
