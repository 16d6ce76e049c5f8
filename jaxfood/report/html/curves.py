"""The curves of a training, as data for the page's script, which draws them."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxfood.errors import printable
from jaxfood.report.html.markup import Html, name, tag, word
from jaxfood.report.html.numbers import plain, rounded
from jaxfood.report.html.records import RunRecord

# What stands together in a chart: its heading (a key of `words`), how its values are written, and for each curve its
# column of metrics.jsonl, its name (a key of `words`), and whether it is dashed.
_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str, bool], ...]], ...] = (
    ("loss", "number", (("train_loss", "train", True), ("valid_loss", "valid", False))),
    ("accuracy_curve", "percent", (("train_accuracy", "train", True), ("valid_accuracy", "valid", False))),
    ("learning_rate", "number", (("learning_rate", "learning_rate", False),)),
    ("grad_norm", "number", (("grad_norm", "grad_norm", False),)),
    ("pseudo_label_share", "percent", (("pseudo_label_share", "pseudo_label_share", False),)),
    (
        "eigenvalues",
        "number",
        (("landscape_largest_eigenvalue", "largest", False), ("landscape_smallest_eigenvalue", "smallest", True)),
    ),
    ("landscape_gradient_norm", "number", (("landscape_gradient_norm", "gradient_norm", False),)),
    ("landscape_promised_decrease", "number", (("landscape_promised_decrease", "promised_decrease", False),)),
)
_OF_TIME: tuple[tuple[str, str, tuple[tuple[str, str, bool], ...]], ...] = (
    ("seconds", "number", (("seconds", "seconds", False),)),
    ("images_per_second", "number", (("images_per_second", "images_per_second", False),)),
)
_NO_CURVE = {"epoch", "step"}


def run_columns(run: RunRecord) -> dict[str, Any]:
    """The columns of a run's metrics.jsonl, by the names that it has there."""
    keys = dict.fromkeys(key for record in run.records for key, value in record.items() if plain(value) is not None)
    columns = {key: [rounded(record.get(key)) for record in run.records] for key in keys}
    return {"name": printable(run.name), "best": run.progress.best_epoch, "columns": columns}


def training_charts(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Those of losses, accuracies, learning rate and so on, as far as the runs recorded them.

    A column that is not known here has a chart too, headed by its own name.
    """
    known = {column for charts in (_CHARTS, _OF_TIME) for _, _, curves in charts for column, _, _ in curves}
    present = _present(runs)
    others = [column for column in present if column not in known]
    charts = [*_charts(runs, _CHARTS)]
    charts += [_chart(runs, column, "number", ((column, "value", False),)) for column in others]
    return [chart | {"best": True} for chart in charts]


def time_charts(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Those of what an epoch takes."""
    return list(_charts(runs, _OF_TIME))


def _present(runs: Sequence[RunRecord]) -> list[str]:
    """The columns that hold a number in any run."""
    found = {
        key: None
        for run in runs
        for record in run.records
        for key, value in record.items()
        if key not in _NO_CURVE and plain(value) is not None
    }
    return list(found)


def _charts(
    runs: Sequence[RunRecord], charts: Sequence[tuple[str, str, tuple[tuple[str, str, bool], ...]]]
) -> Iterator[dict[str, Any]]:
    present = set(_present(runs))
    for title, style, curves in charts:
        if any(column in present for column, _, _ in curves):
            yield _chart(runs, title, style, curves)


def _chart(
    runs: Sequence[RunRecord], title: str, style: str, curves: Sequence[tuple[str, str, bool]]
) -> dict[str, Any]:
    series = [
        {"run": number, "column": column, "word": key, "dashed": dashed}
        for number, run in enumerate(runs)
        for column, key, dashed in curves
        if any(plain(record.get(column)) is not None for record in run.records)
    ]
    return {"id": title, "style": style, "series": series}


def placeholders(charts: Sequence[dict[str, Any]], known: Sequence[str]) -> Html:
    """A place for each chart, with its heading, where the script draws it.

    Args:
        charts: what is drawn there.
        known: keys of `words`; a chart that has none of them is headed by its own name.
    """
    places = []
    for chart in charts:
        identifier = f"chart-{chart['id']}"
        title = chart["id"]
        heading = word(title, element="h3", id=identifier) if title in known else tag("h3", name(title), id=identifier)
        places.append(tag("div", heading, class_="chart", data_chart=title))
    return tag("div", places, class_="charts")
