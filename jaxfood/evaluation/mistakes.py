"""Which pictures are worth a look: the most confident mistakes, the least certain answers, suspected wrong labels."""

from typing import NamedTuple

import numpy as np


def confident_mistakes(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The rows of all wrong answers, the most probable answer first.

    Args:
        truth: int [N], labels.
        probabilities: [N, num_classes].
    """
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(answers != truth)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def least_certain(probabilities: np.ndarray) -> np.ndarray:
    """All rows of probabilities [N, num_classes], the least confident answer first (Lewis and Gale 1994)."""
    return np.argsort(probabilities.max(axis=1), kind="stable")


def worth_a_look(truth: np.ndarray, probabilities: np.ndarray, count: int) -> list[int]:
    """At most `count` rows to explain: the most confident mistakes first, then the least certain answers."""
    rows = [*confident_mistakes(truth, probabilities).tolist(), *least_certain(probabilities).tolist()]
    return list(dict.fromkeys(rows))[:count]


class Suspect(NamedTuple):
    """A picture whose label may be wrong.

    Attributes:
        row: of the picture.
        suggested: the label that it may have instead.
        self_confidence: the probability of the label that it has.
        normalized_margin: that less the largest probability of another class, from -1 (surely wrong) to 1.
    """

    row: int
    suggested: int
    self_confidence: float
    normalized_margin: float


def suspected_labels(truth: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """The pictures off the diagonal of the confident joint, the likeliest wrong label first.

    Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset
    Labels"): a picture counts for the class of highest probability among those whose probability reaches their own
    threshold, the mean probability of a class over the pictures labelled so (section 3.1); it is suspected where that
    is not its label. They are ranked by the normalized margin, of equals the lower self-confidence first. It supposes
    probabilities of runs that were not trained on these pictures.

    Args:
        truth: int [N], the labels that the pictures have.
        probabilities: [N, num_classes].
    """
    given = probabilities[np.arange(len(truth)), truth]
    sums = np.bincount(truth, given, probabilities.shape[1])
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    # Nobody can be confident of a class that no picture is labelled with: there is no threshold to reach.
    thresholds = np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)
    # 1e-6: where all pictures of a class have one probability, its mean may be rounded above it.
    reaches = probabilities >= thresholds - 1e-6
    suggested = np.where(reaches, probabilities, -1).argmax(axis=1)
    others = probabilities.copy()
    others[np.arange(len(truth)), truth] = -np.inf
    margins = given - others.max(axis=1)
    rows = np.flatnonzero(reaches.any(axis=1) & (suggested != truth))
    ranked = rows[np.lexsort((given[rows], margins[rows]))]
    return [Suspect(int(row), int(suggested[row]), float(given[row]), float(margins[row])) for row in ranked]
