"""The page itself: what is around the parts of a report, in one file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from statistics import median
from typing import Any

from jaxfood.report.figures import Figure
from jaxfood.report.html import curves, pictures, training
from jaxfood.report.html.evaluation import evaluation as evaluation_part
from jaxfood.report.html.markup import Html, join, json_block, labelled, tag, word
from jaxfood.report.html.numbers import NOTHING, plain, size
from jaxfood.report.html.records import RunRecord
from jaxfood.report.html.settings import settings
from jaxfood.report.html.system import system
from jaxfood.report.html.words import WORDS

# Before anything is painted, so that a page that was switched to dark does not flash white when it is loaded again.
_EARLY = (
    'document.documentElement.classList.add("script");'
    'try{document.documentElement.dataset.theme=localStorage.getItem("jaxfood-theme")||""}catch{}'
)
_QUICKEST, _SLOWEST = 2, 30  # seconds between two refreshes of a training's page


def render(
    runs: Sequence[RunRecord],
    folds: Sequence[Mapping[str, Any]] = (),
    evaluation: Mapping[str, Any] | None = None,
    figures: Sequence[Figure] = (),
    *,
    so_far: Mapping[str, float] | None = None,
) -> str:
    """The whole page.

    Args:
        runs: at least one, unless `folds` of which none has begun.
        folds: what is known of directories of folds.
        evaluation: what evaluation.json holds.
        figures: pictures.
        so_far: seconds of each kind of work of a training that goes on; the page then refreshes itself.
    """
    live = so_far is not None
    parts: list[Html | None] = [training.summary(runs, folds, live=live)]
    charts: list[dict[str, Any]] = []
    if evaluation is not None:
        part, drawn = evaluation_part(evaluation)
        parts.append(part)
        charts += drawn
    if figures:
        parts.append(pictures.figures(figures))
    for part, drawn in (training.curves(runs), training.time(runs, so_far)):
        parts.append(part)
        charts += drawn
    landscapes, surfaces = pictures.landscapes(runs)
    parts += [landscapes, settings(runs), system(runs)]
    refresh = _refresh(runs, live)
    columns = [curves.run_columns(run) for run in runs]
    data = {"charts": charts, "surfaces": surfaces, "runs": columns, "refresh": refresh}
    script, style = _asset("surface.js") + _asset("report.js"), _asset("report.css")
    head = _head(_title(runs), script, style, refresh)
    page = [_header(runs, parts, live=live), tag("main", _remarks(runs), parts, id="content", tabindex="-1")]
    islands = [json_block("report-data", data), json_block("report-words", WORDS)]
    return _with_its_size(head, page, [*islands, tag("script", Html(script))])


def _asset(file: str) -> str:
    return (resources.files("jaxfood.report.html") / "assets" / file).read_text(encoding="utf-8")


def _refresh(runs: Sequence[RunRecord], live: bool) -> int:
    """Seconds until the page is loaded anew: about half an epoch; 0: never."""
    if not live:
        return 0
    spent = [found for run in runs for record in run.records[-10:] if (found := plain(record.get("seconds")))]
    return max(_QUICKEST, min(_SLOWEST, round(median(spent) / 2))) if spent else _QUICKEST * 2


def _title(runs: Sequence[RunRecord]) -> tuple[str, object]:
    """The page's title: a key of `words`, and what is filled in."""
    return ("compared", len(runs)) if len(runs) > 1 else ("report_of", runs[0].name if runs else NOTHING)


def _head(title: tuple[str, object], script: str, style: str, refresh: int) -> Html:
    # Nothing is loaded and no other script runs, even if a name should ever get into the page as markup.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src '{_hash(_EARLY)}' '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    key, value = title
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        word(key, value, element="title"),
        tag("link", rel="icon", href="data:,"),
        tag("noscript", tag("meta", http_equiv="refresh", content=str(refresh))) if refresh else None,
        tag("style", Html(style)),
        tag("script", Html(_EARLY)),
    )


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _header(runs: Sequence[RunRecord], parts: Sequence[Html | None], *, live: bool) -> Html:
    links = [
        tag("li", word(each, element="a", href=f"#{each}"))
        for each in ("summary", "evaluation", "figures", "training", "time", "landscape", "settings", "system")
        if any(part is not None and part.startswith(f'<section id="{each}"') for part in parts)
    ]
    switches = tag(
        "div",
        tag("button", "中文", type="button", id="language", lang="zh-Hans"),
        word("dark", element="button", type="button", id="theme"),
        class_="switches only-script",
    )
    key, value = _title(runs)
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    below: list[object] = [word("written", now, element="p", class_="how")]
    if live:
        pause = word("pause", element="button", type="button", id="pause", class_="only-script")
        below.append(tag("p", word("refreshes"), " ", pause, class_="live"))
    below.append(tag("noscript", word("no_script", element="p")))
    return join(
        (
            word("skip", element="a", class_="skip", href="#content"),
            tag("nav", tag("ul", links), switches, **labelled("contents")),
            tag("header", word(key, value, element="h1"), below),
        )
    )


def _remarks(runs: Sequence[RunRecord]) -> Html | None:
    """What could not be read of the runs, where it is seen first."""
    remarks = [remark for run in runs for remark in run.remarks]
    if not remarks:
        return None
    lines = [word(key, *values, element="li") for key, values in remarks]
    return tag("div", word("remarks", element="strong"), tag("ul", lines), class_="remarks")


def _with_its_size(head: Html, page: Sequence[Html], scripts: Sequence[Html]) -> str:
    """The page with the size of its file at its end."""
    viewer = tag(
        "dialog",
        word("close", element="button", type="button", id="close"),
        tag("div", class_="scroll", tabindex="0"),
        id="viewer",
        **labelled("figures"),
    )
    opened = f'<!doctype html>\n<html lang="en">{head}<body>{join(page)}'
    closed = f"{_symbol()}{viewer}{join(scripts)}</body></html>\n"
    around, told = len(opened.encode()) + len(closed.encode()), ""
    for _ in range(3):  # the number that is told takes place itself
        footer = tag("footer", word("size", told, element="p"))
        told = size(around + len(footer.encode()))
    return opened + tag("footer", word("size", told, element="p")) + closed


def _symbol() -> Html:
    """An empty drawing: the script takes the namespace of drawings from it, which has a URL for a name."""
    return tag("svg", id="drawing", width="0", height="0", aria_hidden="true")
