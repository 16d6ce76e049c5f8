"""Scores against hand formulas, published values and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, precision_score, recall_score

from jaxfood.evaluation.comparison import compare
from jaxfood.evaluation.scores import (
    BINS,
    cross_entropy,
    expected_calibration_error,
    rank_of_truth,
    reliability,
    score,
    wilson_interval,
)


def random_answers(pictures: int = 300, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, the last class being rare, and probabilities that lean to them."""
    rng = np.random.default_rng(0)
    truth = rng.choice(classes, pictures, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    logits = rng.normal(size=(pictures, classes)) * 2
    logits[np.arange(pictures), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth.astype(np.int32), probabilities.astype(np.float32)


@pytest.mark.parametrize(
    ("right", "pictures", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(right: int, pictures: int, low: float, high: float) -> None:
    np.testing.assert_allclose(wilson_interval(right, pictures), (low, high), atol=5e-5)


def test_one_picture_has_an_interval() -> None:
    low, high = wilson_interval(1, 1)
    np.testing.assert_allclose((low, high), (1 / (1 + 1.959964**2), 1), atol=1e-6)


@pytest.mark.smoke
def test_scores_are_scikit_learns() -> None:
    truth, probabilities = random_answers()
    found = score(truth, probabilities, tuple("abcde"))
    answers = probabilities.argmax(axis=1)
    assert found.pictures == 300
    assert found.accuracy == pytest.approx((answers == truth).mean())
    assert found.accuracy_low < found.accuracy < found.accuracy_high
    assert found.loss == pytest.approx(log_loss(truth, probabilities), abs=1e-5)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answers))
    assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))
    columns = [[each.precision, each.recall, each.f1] for each in found.classes]
    expected = [metric(truth, answers, average=None) for metric in (precision_score, recall_score, f1_score)]
    np.testing.assert_allclose(np.array(columns).T, expected)
    assert [each.support for each in found.classes] == np.bincount(truth).tolist()
    assert found.confusion.sum() == 300
    assert found.confusion[1, 2] == ((truth == 1) & (answers == 2)).sum() != found.confusion[2, 1]


def test_a_class_without_pictures_or_answers_has_no_score_and_enters_no_mean() -> None:
    eye = np.eye(4, dtype=np.float32)
    found = score(np.array([0, 0, 1]), eye[[0, 2, 1]], ("a", "b", "answered alone", "nowhere"))
    assert (found.classes[2].precision, found.classes[2].recall, found.classes[2].f1) == (0.0, None, 0.0)
    assert (found.classes[3].precision, found.classes[3].recall, found.classes[3].f1) == (None, None, None)
    assert found.balanced_accuracy == pytest.approx((0.5 + 1) / 2)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert found.confusion.shape == (4, 4)
    assert found.confusion[3].sum() == 0


def test_of_equal_probabilities_the_lower_label_comes_first() -> None:
    """So that top-1 is the answer of `argmax`, and a network that answers all alike is not right always."""
    flat = np.full((5, 5), 0.2, np.float32)
    assert rank_of_truth(np.arange(5), flat).tolist() == [0, 1, 2, 3, 4]
    assert score(np.arange(5), flat, tuple("abcde")).top3_accuracy == pytest.approx(0.6)
    truth, probabilities = random_answers()
    ordered = np.argsort(-probabilities, axis=1, kind="stable")
    expected = [row.tolist().index(label) for row, label in zip(ordered, truth, strict=True)]
    assert rank_of_truth(truth, probabilities).tolist() == expected


def test_the_loss_of_a_probability_of_nought_is_finite() -> None:
    probabilities = np.array([[1, 0], [0.25, 0.75]], np.float32)
    assert cross_entropy(np.array([1, 1]), probabilities) == pytest.approx((126 * math.log(2) - math.log(0.75)) / 2)


def test_calibration_of_known_cases() -> None:
    right = np.array([True] * 8 + [False] * 2)
    assert expected_calibration_error(reliability(np.full(10, 0.8), right)) == pytest.approx(0)
    assert expected_calibration_error(reliability(np.full(10, 1.0), right)) == pytest.approx(0.2)
    # Two bins: 10 answers of 0.8 that are too timid by 0.2, 30 of 0.5 that are too sure by 0.5.
    confidence = np.repeat([0.8, 0.5], [10, 30])
    right = np.repeat([True, False], [10, 30])
    assert expected_calibration_error(reliability(confidence, right)) == pytest.approx((10 * 0.2 + 30 * 0.5) / 40)


def test_bins_take_their_upper_ends_and_all_answers() -> None:
    bins = reliability(np.array([0.0, 0.2, 0.2000001, 1.0]), np.array([True, True, False, True]))
    assert [each.pictures for each in bins] == [1, 0, 1, 1, *[0] * 10, 1]
    assert (bins[2].accuracy, bins[3].accuracy, bins[4].accuracy) == (1.0, 0.0, None)
    truth, probabilities = random_answers()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    dense = 0.0
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            dense += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(reliability(confidence, right)) == pytest.approx(dense, abs=1e-6)
    assert dense > 0.01


def test_mcnemars_exact_test() -> None:
    first = np.array([True] * 9 + [False] + [True] * 90)
    this = np.array([False] * 9 + [True] + [True] * 90)
    found = compare(first, this)
    assert (found.only_first, found.only_this) == (9, 1)
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert compare(this, first).p_value == found.p_value
    assert compare(first, first).p_value == 1
