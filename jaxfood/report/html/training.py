"""The parts of a report on how the training went: summary, curves, time."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from jaxfood.report.html.curves import placeholders, time_charts, training_charts
from jaxfood.report.html.markup import Cell, Html, duration, join, labelled, name, section, table, tag, word
from jaxfood.report.html.numbers import decimals, number, percent, plain
from jaxfood.report.html.records import RunRecord
from jaxfood.report.html.words import ENGLISH


def tile(title: str, value: object, *below: object) -> Html:
    """One figure of the summary, large, with what it is and a line below it."""
    return tag(
        "div", word(title, element="dt"), tag("dd", tag("strong", value), *(tag("small", line) for line in below))
    )


def share_bar(share: float) -> Html:
    """A bar as long as a share, beside the number that says it."""
    return tag("span", class_="bar", style=f"--share:{share:.4f}", aria_hidden="true")


def tiles(*figures: Html) -> Html:
    """The figures of a summary."""
    return tag("dl", *figures, class_="tiles")


def summary(runs: Sequence[RunRecord], folds: Sequence[Mapping[str, Any]], *, live: bool) -> Html:
    """The best epoch of a run, or of each of several, side by side."""
    parts: list[Html] = []
    if len(runs) == 1:
        parts.append(_one_run(runs[0], live=live))
    elif runs:
        parts.append(_several(runs, live=live))
    parts += [line for known in folds for line in _folds(known)]
    return section("summary", "summary", *parts)


def state(run: RunRecord, *, live: bool) -> Html:
    """How far a run is, in words."""
    planned = run.config.train.epochs
    if run.is_stopped_early:
        return word("state_stopped_early", run.epochs, planned)
    if run.is_over:
        return word("state_finished", run.epochs)
    return word("state_training" if live else "state_unfinished", run.epochs, planned)


def _one_run(run: RunRecord, *, live: bool) -> Html:
    best = run.best or {}
    seconds = _seconds(run)
    figures = [
        tile(
            "best_valid_accuracy",
            percent(best.get("valid_accuracy")),
            *([word("best_in_epoch", run.progress.best_epoch)] if best else []),
        ),
        tile("valid_loss_there", decimals(best.get("valid_loss"))),
        tile("train_accuracy_last", percent(run.records[-1].get("train_accuracy") if run.records else None)),
        tile("epochs", number(run.epochs), word("of_planned", run.config.train.epochs)),
        tile(
            "epochs_time",
            duration(sum(seconds) if seconds else None),
            *([join((duration(median(seconds)), " ", word("per_epoch")))] if seconds else []),
        ),
        tile("parameters", f"{run.parameters:,}", run.config.model.name),
    ]
    bar = tag("progress", value=str(run.epochs), max=str(run.config.train.epochs), **labelled("epochs"))
    return tag("div", tag("p", state(run, live=live), " ", bar, class_="state"), tiles(*figures))


def _seconds(run: RunRecord) -> list[float]:
    return [found for record in run.records if (found := plain(record.get("seconds"))) is not None]


def _several(runs: Sequence[RunRecord], *, live: bool) -> Html:
    keys = (
        "run",
        "best_valid_accuracy",
        "best_epoch",
        "valid_loss_there",
        "train_accuracy_last",
        "epochs_time",
        "parameters",
        "network",
        "state",
    )
    best = max((plain((run.best or {}).get("valid_accuracy")) or 0.0 for run in runs), default=0.0)
    rows = [_row(run, place, best, live=live) for place, run in enumerate(runs)]
    heading = word("runs_compared", element="h3")
    return tag("div", heading, table("runs_compared", [word(key) for key in keys], rows, sortable=True))


def _row(run: RunRecord, place: int, best_of_all: float, *, live: bool) -> list[Cell]:
    best = run.best or {}
    accuracy = plain(best.get("valid_accuracy"))
    last = run.records[-1].get("train_accuracy") if run.records else None
    seconds = _seconds(run)
    colour = tag("span", class_=f"swatch run{place % 7}", aria_hidden="true")
    return [
        Cell(join((colour, name(run.name))), run.name),
        Cell(percent(accuracy), accuracy, class_="best" if accuracy and accuracy == best_of_all else None),
        Cell(number(run.progress.best_epoch or None), run.progress.best_epoch),
        Cell(decimals(best.get("valid_loss")), plain(best.get("valid_loss"))),
        Cell(percent(last), plain(last)),
        Cell(duration(sum(seconds) if seconds else None), sum(seconds)),
        Cell(f"{run.parameters:,}", run.parameters),
        Cell(run.config.model.name, run.config.model.name),
        Cell(state(run, live=live), run.epochs),
    ]


def _folds(known: Mapping[str, Any]) -> list[Html]:
    lines = [
        word(
            "folds",
            len(known["accuracies"]),
            known["folds"],
            decimals(known["mean"]),
            decimals(known["standard_deviation"]),
            element="p",
        )
    ]
    if together := known.get("ensemble"):
        lines.append(word("folds_together", decimals(together["accuracy"]), together["pictures"], element="p"))
    return lines


def curves(runs: Sequence[RunRecord]) -> tuple[Html, list[dict[str, Any]]]:
    """The training curves: their places, and what the script draws there."""
    if not any(run.records for run in runs):
        return section("training", "training", word("no_epochs", element="p")), []
    charts = training_charts(runs)
    values = [
        tag(
            "details",
            tag("summary", word("all_values", run.name)),
            tag("div", class_="values", data_run=str(place)),
            id=f"values-{place}",
        )
        for place, run in enumerate(runs)
        if run.records
    ]
    how = word("how_curves", element="p", class_="how")
    return section("training", "training", how, placeholders(charts, tuple(ENGLISH)), *values), charts


def time(runs: Sequence[RunRecord], so_far: Mapping[str, float] | None) -> tuple[Html, list[dict[str, Any]]]:
    """What the time went to: by kind of work, and by epoch.

    Args:
        runs: whose log.txt tells the split of each start that came to the training's end.
        so_far: seconds of each kind of work in the process that is training now.
    """
    charts = time_charts(runs)
    told = []
    for run in runs:
        if seconds := so_far or run.log.seconds:
            title = tag("h4", name(run.name)) if len(runs) > 1 else None
            told.append(tag("div", title, _split(seconds)))
    parts = [word("time_split", element="h3")]
    if not told:
        parts.append(word("time_unknown", element="p", class_="how"))
    elif so_far:
        parts.append(word("time_so_far", element="p", class_="how"))
    return section(
        "time", "time", *parts, tag("div", told, class_="splits"), placeholders(charts, tuple(ENGLISH))
    ), charts


def _split(seconds: Mapping[str, float]) -> Html:
    total = sum(seconds.values()) or 1.0
    rows = [
        (
            word(f"work_{work}") if f"work_{work}" in ENGLISH else name(work),
            Cell(duration(spent), spent),
            Cell(join((percent(spent / total), share_bar(spent / total))), spent, class_="bars"),
        )
        for work, spent in sorted(seconds.items(), key=lambda item: -item[1])
        if spent >= 0.05
    ]
    return table("time_split", (word("work"), word("time"), word("share")), rows)
