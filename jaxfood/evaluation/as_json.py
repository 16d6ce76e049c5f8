"""What evaluation.json holds; docs/evaluation.md documents its keys, which stay."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxfood.evaluation.measure import Evaluation
from jaxfood.evaluation.repeats import Seen
from jaxfood.evaluation.scores import Scores
from jaxfood.version import __version__

FORMAT = 1  # raise it when a key changes its meaning or goes
SHOWN = 20  # pictures in a list or on a sheet


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain Python values with None where a number is not defined, as strict JSON takes them."""
    scores = evaluation.scores
    return {
        "format": FORMAT,
        "jaxfood": __version__,
        "images": str(evaluation.index.root),
        "which": evaluation.which,
        "tta": evaluation.tta,
        **_figures(scores),
        "balanced_accuracy": scores.balanced_accuracy,
        "macro_f1": scores.macro_f1,
        "classes": [dataclasses.asdict(each) for each in scores.classes],
        "confusion": scores.confusion.tolist(),
        "reliability": [dataclasses.asdict(each) for each in scores.bins],
        "runs": _runs(evaluation),
        "ensemble_against_first": _against_first(evaluation, evaluation.answers) if len(evaluation.runs) > 1 else None,
        "confident_mistakes": _answers(evaluation, evaluation.confident_mistakes[:SHOWN]),
        "least_certain": _answers(evaluation, evaluation.least_certain[:SHOWN]),
        "suspected_labels": _suspects(evaluation),
        "repeats": _repeats(evaluation),
        "unreadable": [{"file": name, "reason": reason} for name, reason in evaluation.unreadable.items()],
        "remarks": list(evaluation.remarks),
    }


def _figures(scores: Scores) -> dict[str, Any]:
    """What is said of the whole and of each run."""
    return {
        "pictures": scores.pictures,
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_low,
        "accuracy_high": scores.accuracy_high,
        "top3_accuracy": scores.top3_accuracy,
        "loss": scores.loss,
        "expected_calibration_error": scores.expected_calibration_error,
    }


def _runs(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = zip(evaluation.runs, evaluation.scores_by_run, evaluation.by_run, evaluation.seen, strict=True)
    return [
        {
            "run": str(run),
            **_figures(scores),
            **_against_first(evaluation, own.argmax(axis=1) if number else None),
            **_seen(evaluation, own, seen),
        }
        for number, (run, scores, own, seen) in enumerate(rows)
    ]


def _against_first(evaluation: Evaluation, answers: np.ndarray | None) -> dict[str, Any]:
    if answers is None:
        return {"only_first_right": None, "only_this_right": None, "p_value": None}
    found = evaluation.compare(answers)
    return {"only_first_right": found.only_first, "only_this_right": found.only_this, "p_value": found.p_value}


def _seen(evaluation: Evaluation, own: np.ndarray, seen: Seen | None) -> dict[str, Any]:
    if seen is None:
        return {"trained_on": None, "validated_on": None, "accuracy_without_trained_on": None}
    rest = (own.argmax(axis=1) == evaluation.truth)[~seen.trained_on]
    return {
        "trained_on": int(seen.trained_on.sum()),
        "validated_on": int(seen.splits["valid"].sum()),
        "accuracy_without_trained_on": float(rest.mean()) if len(rest) else None,
    }


def _answers(evaluation: Evaluation, rows: Iterable[int] | np.ndarray) -> list[dict[str, Any]]:
    answers, classes = evaluation.answers, evaluation.classes
    return [
        {
            "file": evaluation.index.name(evaluation.index.paths[row]),
            "truth": classes[evaluation.truth[row]],
            "answer": classes[answers[row]],
            "probability": float(evaluation.probabilities[row, answers[row]]),
        }
        for row in rows
    ]


def _suspects(evaluation: Evaluation) -> dict[str, Any]:
    first = [
        {
            "file": evaluation.index.name(evaluation.index.paths[suspect.row]),
            "label": evaluation.classes[evaluation.truth[suspect.row]],
            "suggested": evaluation.classes[suspect.suggested],
            "self_confidence": suspect.self_confidence,
            "normalized_margin": suspect.normalized_margin,
        }
        for suspect in evaluation.suspects[:SHOWN]
    ]
    return {"count": len(evaluation.suspects), "first": first}


def _repeats(evaluation: Evaluation) -> dict[str, Any]:
    repeats, index = evaluation.repeats, evaluation.index
    return {
        "copies": repeats.surplus,
        "accuracy_each_once": repeats.accuracy_each_once,
        "under_two_labels": repeats.under_two_labels,
        "groups": [[index.name(index.paths[row]) for row in group] for group in repeats.groups],
    }
