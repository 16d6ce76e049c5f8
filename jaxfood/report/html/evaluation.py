"""The part of a report on how good the answers are: what evaluation.json holds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxfood.report.html.curves import placeholders
from jaxfood.report.html.lists import others, remarks
from jaxfood.report.html.markup import Cell, Html, join, labelled, name, scrolling, section, table, tag, word
from jaxfood.report.html.numbers import NOTHING, decimals, number, percent, plain, rounded
from jaxfood.report.html.training import share_bar, tile, tiles

_SHOWN = {
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "top3_accuracy",
    "loss",
    "expected_calibration_error",
    "pictures",
    "classes",
    "confusion",
    "reliability",
}
_MOST_CONFUSED = 8
_LEVELS = 10  # shades of the confusion matrix, beside none


def evaluation(result: Mapping[str, Any]) -> tuple[Html, list[dict[str, Any]]]:
    """All that evaluation.json holds: its place on the page, and what the script draws there."""
    classes: Sequence[Mapping[str, Any]] = result.get("classes") or ()
    names = [str(each.get("name", label)) for label, each in enumerate(classes)]
    parts: list[object] = [_scores(result), remarks(result)]
    if classes:
        parts += [word("classes", element="h3"), word("how_classes", element="p", class_="how"), _classes(classes)]
    if confusion := result.get("confusion"):
        names += [str(label) for label in range(len(names), len(confusion))]  # where only numbers are known
        parts += [word("confused", element="h3"), _most_confused(confusion, names), *_confusion(confusion, names)]
    charts = []
    if bins := result.get("reliability"):
        charts.append(_reliability_chart(bins))
        parts.append(word("how_reliability", element="p", class_="how"))
        parts.append(tag("div", placeholders(charts, ("reliability",)), _reliability(bins), class_="beside"))
    parts += others(result, _SHOWN)
    return section("evaluation", "evaluation", *parts), charts


def _scores(result: Mapping[str, Any]) -> Html:
    interval = [result.get(key) for key in ("accuracy_low", "accuracy_high")]
    below = [word("interval", *map(percent, interval))] if None not in interval else []
    figures = [tile("accuracy", percent(result.get("accuracy")), *below)]
    if "top3_accuracy" in result:
        figures.append(tile("top3_accuracy", percent(result["top3_accuracy"]), word("top3_meaning")))
    if "loss" in result:
        figures.append(tile("loss", decimals(result["loss"]), word("loss_meaning")))
    if "expected_calibration_error" in result:
        error = result["expected_calibration_error"]
        figures.append(tile("expected_calibration_error", percent(error), word("calibration_meaning")))
    if "pictures" in result:
        figures.append(tile("pictures", number(result["pictures"])))
    return tiles(*figures)


def _classes(classes: Sequence[Mapping[str, Any]]) -> Html:
    keys = ("precision", "recall", "f1")
    rows = [
        [
            Cell(name(each.get("name", label)), str(each.get("name", label))),
            *(_score(each.get(key)) for key in keys),
            Cell(number(each.get("support")), plain(each.get("support"))),
        ]
        for label, each in enumerate(classes)
    ]
    return table("classes", [word(key) for key in ("class", *keys, "support")], rows, sortable=True)


def _score(value: Any) -> Cell:
    share = plain(value)
    if share is None:
        return Cell(NOTHING, -1.0)
    return Cell(join((percent(share), share_bar(share))), share, class_="bars")


def _most_confused(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Html:
    wrong = [
        (count, truth, answer)
        for truth, row in enumerate(confusion)
        for answer, count in enumerate(row)
        if truth != answer and count
    ]
    if not wrong:
        return word("nothing_confused", element="p")
    rows = [
        (name(names[truth]), name(names[answer]), Cell(number(count)), Cell(percent(count / sum(confusion[truth]), 0)))
        for count, truth, answer in sorted(wrong, key=lambda each: (-each[0], *each[1:]))[:_MOST_CONFUSED]
    ]
    return table("confused", [word(key) for key in ("truth", "answer", "pictures", "of_class")], rows, class_="pairs")


def _confusion(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Iterator[Html]:
    yield word("confusion", element="h3")
    yield word("how_confusion", element="p", class_="how")
    switch = word("in_percent", element="button", type="button", class_="per-cent", aria_pressed="false")
    yield tag("div", switch, class_="tools only-script")
    corner = word("truth_answer", element="td", class_="corner")
    columns = [tag("th", name(each), scope="col") for each in names]
    rows = []
    for truth, row in enumerate(confusion):
        cells = [_confusion_cell(count, sum(row), is_right=truth == answer) for answer, count in enumerate(row)]
        rows.append(tag("tr", tag("th", name(names[truth]), scope="row"), cells))
    content = join((tag("thead", tag("tr", corner, columns)), tag("tbody", rows)))
    yield scrolling(labelled("confusion"), tag("table", content, class_="confusion"))
    yield tag("p", class_="readout only-script", aria_live="polite")


def _confusion_cell(count: int, total: int, *, is_right: bool) -> Html:
    share = count / total if total else 0.0
    level = min(_LEVELS, 1 + int(share * _LEVELS)) if count else 0
    return tag("td", count, class_=f"shade{level}" + " right" * is_right, data_share=f"{share:.4f}")


def _reliability_chart(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    filled = [each for each in bins if each.get("pictures") and plain(each.get("confidence")) is not None]
    these = {
        "word": "these",
        "x": [rounded(each["confidence"]) for each in filled],
        "y": [rounded(each.get("accuracy")) for each in filled],
        "points": True,
    }
    perfect = {"word": "perfect", "x": [0, 1], "y": [0, 1], "dashed": True, "quiet": True}
    return {
        "id": "reliability",
        "style": "percent",
        "x_style": "percent",
        "x_word": "confidence",
        "domain": [0, 1],
        "range": [0, 1],
        "series": [these, perfect],
    }


def _reliability(bins: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        (
            f"{percent(each.get('low'), 0)} {NOTHING} {percent(each.get('high'), 0)}",
            number(each.get("pictures")),
            percent(each.get("confidence")),
            percent(each.get("accuracy")),
        )
        for each in bins
    ]
    return table("reliability", [word(key) for key in ("bin", "pictures", "confidence", "accuracy")], rows)
