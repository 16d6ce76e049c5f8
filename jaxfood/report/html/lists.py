"""What else evaluation.json holds: single numbers, and lists of pictures or runs, by the keys that they have there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxfood.report.html.markup import Cell, Html, code, name, table, tag, word
from jaxfood.report.html.numbers import NOTHING, number, percent, plain
from jaxfood.report.html.words import ENGLISH

_MOST_ROWS = 50  # of a list: evaluation.json has all
_SHARES = ("accuracy", "accuracy_low", "accuracy_high", "probability", "calibration_error", "confidence", "each_once")
_NOT_OF_INTEREST = {"files", "format"}

Row = Mapping[str, Any]


def remarks(result: Mapping[str, Any]) -> Html | None:
    """What is to be known before any figure is read."""
    said = result.get("remarks")
    if not isinstance(said, Sequence) or isinstance(said, str) or not said:
        return None
    return tag("ul", [tag("li", name(line)) for line in said], class_="remarks")


def others(result: Mapping[str, Any], shown: set[str]) -> Iterator[Html]:
    """All keys but those that are shown elsewhere."""
    rest = {key: value for key, value in result.items() if key not in shown | _NOT_OF_INTEREST | {"remarks"}}
    tables = list(_tables(rest))
    for place, (key, rows) in enumerate(tables):
        if key == "runs" and len(rows) > 1:
            yield _title(key, "h3")
            yield _table(key, rows)
        elif key != "runs":
            yield tag("details", tag("summary", _title(key)), _table(key, rows), id=f"list-{place}")
    single = dict(_single(rest))
    for key, rows in tables:
        if key == "runs" and len(rows) == 1:  # its figures are those of the whole; what is said of the run alone
            single |= {f"runs.{each}": value for each, value in rows[0].items() if each not in result}
    single = {key: value for key, value in single.items() if value is not None}
    if single:
        yield word("more_numbers", element="h3")
        rows_ = [(_title(key), name(_shown(key, value)), code(key)) for key, value in single.items()]
        yield table("more_numbers", (word("quantity"), word("value"), word("key")), rows_, class_="left")


def _title(key: str, element: str = "span") -> Html:
    """The words for a key of evaluation.json, or the key itself; of a nested one those of its last part."""
    last = key.removesuffix(".first").rpartition(".")[2]
    return word(last, element=element) if last in ENGLISH else tag(element, name(last.replace("_", " ")))


def _tables(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Sequence[Row]]]:
    """Lists of rows; a list of lists of texts becomes one whose rows have one cell."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _tables(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple) or not value:
            continue
        elif all(isinstance(row, Mapping) for row in value):
            yield f"{prefix}{key}", [dict(_single(row)) for row in value]
        elif all(isinstance(row, list | tuple) for row in value):
            yield f"{prefix}{key}", [{"file": ", ".join(map(str, row))} for row in value]


def _table(key: str, rows: Sequence[Row]) -> Html:
    columns = list(dict.fromkeys(column for row in rows for column, value in row.items() if value is not None))
    cells = [
        [Cell(name(_shown(column, row.get(column))), _sorted_by(row.get(column))) for column in columns]
        for row in rows[:_MOST_ROWS]
    ]
    texts = all(isinstance(row.get(column), str) for row in rows for column in columns[:2])
    label = key if key in ENGLISH else "more_numbers"
    head = [_title(column) for column in columns]
    return table(label, head, cells, sortable=len(rows) > 1, class_="pairs" if texts else "")


def _single(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _single(value, f"{prefix}{key}.")
        elif _is_single(value):
            yield f"{prefix}{key}", value
        elif value and all(_is_single(each) for each in value):
            yield f"{prefix}{key}", ", ".join(_shown(key, each) for each in value[:_MOST_ROWS])


def _is_single(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple)


def _sorted_by(value: Any) -> object:
    return value if isinstance(value, str) else plain(value)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return percent(value) if isinstance(value, float) and key.endswith(_SHARES) else number(value)
