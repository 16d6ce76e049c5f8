"""The parts of a report that are pictures: figures of an evaluation, and the landscape of a run."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxfood.report.figures import Figure
from jaxfood.report.html.markup import Html, labelled, name, section, table, tag, word
from jaxfood.report.html.numbers import NOTHING, number
from jaxfood.report.html.records import Landscape, RunRecord
from jaxfood.report.html.surface import surface_of, surface_place
from jaxfood.report.html.words import ENGLISH

_NUMBERS = ("gradient_norm", "promised_decrease", "largest_eigenvalue", "smallest_eigenvalue")
_OF_PATH = ("step", "verdict", "loss", *_NUMBERS)


def figures(shown: Sequence[Figure]) -> Html:
    """Pictures with their words, in the order given."""
    return section("figures", "figures", *(_figure(tag("h3", name(each.title)), each) for each in shown))


def _figure(heading: Html | None, shown: Figure, caption: Html | None = None) -> Html:
    picture = tag("img", src=_as_data(shown.png), alt=shown.alt or shown.title, decoding="async")
    button = tag("button", picture, type="button", class_="enlarge", **labelled("enlarge", shown.alt or shown.title))
    below = caption or (tag("figcaption", name(shown.caption)) if shown.caption else None)
    return tag("figure", heading, button, below)


def _as_data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def landscapes(runs: Sequence[RunRecord]) -> tuple[Html | None, list[dict[str, Any]]]:
    """What `python -m jaxfood.landscape` measured of the runs, and the surfaces that the script draws there.

    None where it was not measured.
    """
    measured = [(run.name, run.landscape) for run in runs if run.landscape is not None]
    if not measured:
        return None, []
    surfaces: list[dict[str, Any]] = []
    parts = [part for title, landscape in measured for part in _landscape(title, landscape, len(runs) > 1, surfaces)]
    return section("landscape", "landscape", *parts), surfaces


def _landscape(title: str, landscape: Landscape, is_named: bool, surfaces: list[dict[str, Any]]) -> Iterator[object]:
    numbers = landscape.numbers
    if is_named:
        yield tag("h3", name(title))
    yield word("landscape_of", numbers.get("samples", "?"), numbers.get("images", "?"), element="p", class_="how")
    kind = f"verdict_{numbers.get('verdict')}"
    verdict = word(kind) if kind in ENGLISH else name(numbers.get("verdict", NOTHING))
    reason = numbers.get("reason")
    yield tag("p", tag("strong", verdict), f": {reason}." if reason else None)
    if numbers.get("remedy"):
        yield word("remedy", numbers["remedy"], element="p")
    if isinstance(numbers.get("path"), list):
        yield _path(numbers["path"])
    else:
        yield table("landscape", (word("quantity"), word("value"), word("known_to")), _rows(numbers), class_="numbers")
    missing = numbers.get("missing")
    if isinstance(missing, list) and missing:
        yield word("landscape_missing", numbers.get("why_missing", ""), ", ".join(map(str, missing)), element="p")
    yield tag("div", [_picture(file, png) for file, png in landscape.pictures.items()], class_="pictures")
    try:
        if surface := surface_of(numbers, len(surfaces)):
            surfaces.append(surface)
            yield surface_place(surface)
    except ValueError as error:
        yield word("plane_damaged", error, element="p")


def _rows(numbers: Mapping[str, Any]) -> Iterator[tuple[object, str, str]]:
    yield word("loss_value"), number(numbers.get("loss")), ""
    for key in _NUMBERS:
        residual = numbers.get(key.replace("eigenvalue", "residual")) if key.endswith("eigenvalue") else None
        yield word(key), number(numbers.get(key)), "" if residual is None else f"± {number(residual, 2)}"
    if isinstance(trace := numbers.get("trace"), Mapping):
        yield word("trace"), number(trace.get("value")), f"± {number(trace.get('standard_error'), 2)}"
    if isinstance(ratio := numbers.get("minimum_ratio"), Mapping):
        known = f"{number(ratio.get('low'), 3)} {NOTHING} {number(ratio.get('high'), 3)}"
        yield word("minimum_ratio"), number(ratio.get("value")), known
    if isinstance(sharp := numbers.get("sharpness"), Mapping):
        yield (
            word("sharpness", number(sharp.get("radius"))),
            number(sharp.get("rise")),
            f"≥ {number(sharp.get('rise'))}",
        )


def _path(steps: Sequence[Mapping[str, Any]]) -> Html:
    rows = [[_told(key, each.get(key)) for key in _OF_PATH] for each in steps]
    return table("landscape", [word(key) for key in _OF_PATH], rows)


def _told(key: str, value: Any) -> object:
    if key != "verdict":
        return number(value)
    return word(f"verdict_{value}") if f"verdict_{value}" in ENGLISH else name(value)


def _picture(file: str, png: bytes) -> Html:
    key = "figure_" + file.removesuffix(".png").partition("-")[2]
    if key in ENGLISH:
        return _figure(None, Figure(key, ENGLISH[key], "", png), word(key, element="figcaption"))
    return _figure(None, Figure(key, file, file, png))
