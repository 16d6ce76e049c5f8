"""How good answers are: accuracy and its interval, loss, calibration, and each class's part in it."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # of equal width, as Guo et al. 2017 took them
TOP = 3
CONFIDENCE = 0.95  # of intervals

_SMALLEST = float(np.finfo(np.float32).tiny)  # a probability that softmax in float32 rounded to 0 counts as this


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence is in (low, high].

    Attributes:
        low: lower end.
        high: upper end.
        pictures: how many answers.
        confidence: the mean of their probabilities; None where there are none.
        accuracy: the share of them that is right; None where there are none.
    """

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class ClassScore:
    """One class's part. What would be 0 / 0 is None.

    Attributes:
        name: the class.
        precision: the share of the pictures answered so that are so; None where none was answered so.
        recall: the share of the pictures that are so that were answered so; None where none is so.
        f1: 2 TP / (2 TP + FP + FN); None where none is so and none was answered so.
        support: how many pictures are so.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, eq=False)
class Scores:
    """What N answers are worth.

    Attributes:
        pictures: N.
        accuracy: the share of right answers, the first of equally probable classes being the answer.
        accuracy_low: lower end of its 95 % interval, Wilson's.
        accuracy_high: upper end.
        top3_accuracy: the share of pictures whose class is among the three most probable (all, if there are fewer).
        loss: mean cross entropy in nats; a probability below 1.2e-38, float32's least, counts as that.
        expected_calibration_error: Guo et al. 2017, over `bins`.
        balanced_accuracy: the mean recall of the classes that appear.
        macro_f1: the mean F1 of the classes that appear.
        classes: in label order.
        bins: by the probability of the answer, ascending.
        confusion: int [num_classes, num_classes]; rows: truth, columns: answer.
    """

    pictures: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top3_accuracy: float
    loss: float
    expected_calibration_error: float
    balanced_accuracy: float
    macro_f1: float
    classes: tuple[ClassScore, ...]
    bins: tuple[Bin, ...]
    confusion: np.ndarray


def score(truth: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """Score the answers to N pictures, one at least.

    Args:
        truth: int [N], labels.
        probabilities: [N, num_classes].
        names: of the classes, in label order.
    """
    from sklearn.metrics import confusion_matrix

    answers = probabilities.argmax(axis=1)
    right = answers == truth
    low, high = wilson_interval(int(right.sum()), len(right))
    bins = reliability(probabilities.max(axis=1), right)
    confusion = confusion_matrix(truth, answers, labels=np.arange(len(names)))
    classes = score_classes(truth, answers, names)
    present = [each for each in classes if each.support]
    return Scores(
        pictures=len(truth),
        accuracy=float(right.mean()),
        accuracy_low=low,
        accuracy_high=high,
        top3_accuracy=float((rank_of_truth(truth, probabilities) < TOP).mean()),
        loss=cross_entropy(truth, probabilities),
        expected_calibration_error=expected_calibration_error(bins),
        balanced_accuracy=float(np.mean([each.recall for each in present])),
        macro_f1=float(np.mean([each.f1 for each in present])),
        classes=classes,
        bins=bins,
        confusion=confusion,
    )


def wilson_interval(right: int, pictures: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (1927), without continuity correction.

    It stays within [0, 1] and holds its level for few pictures and shares near 0 and 1, where the usual p +- 2 s does
    not. It takes the pictures for independent draws: copies of one picture are not.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, pictures).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def rank_of_truth(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes come before the true one, int [N]; of equal probabilities the lower label, as in `argmax`."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    return ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)


def cross_entropy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of -log p(truth), in nats."""
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.maximum(own, _SMALLEST)).mean())


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """The answers in bins by their confidence, [N] each; a bin takes its upper end, and the first takes 0 too."""
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    found = []
    for number in range(BINS):
        chosen = bins == number
        count = int(chosen.sum())
        mean = float(confidence[chosen].mean(dtype=np.float64)) if count else None
        share = float(right[chosen].mean()) if count else None
        found.append(Bin(float(edges[number]), float(edges[number + 1]), count, mean, share))
    return tuple(found)


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """The mean over the answers of their bin's |accuracy - confidence|: Guo et al. 2017, "On Calibration", eq. 3."""
    gaps = [
        each.pictures * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    ]
    return sum(gaps) / sum(each.pictures for each in bins)


def score_classes(truth: np.ndarray, answers: np.ndarray, names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of each class, by labels int [N]; of those too that never appear."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(len(names))
    columns = precision_recall_fscore_support(truth, answers, labels=labels, zero_division=np.nan)
    return tuple(
        ClassScore(name, _number(precision), _number(recall), _number(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
