"""HTML that is escaped by construction: whatever is no `Html` yet becomes text."""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from jaxfood.errors import printable
from jaxfood.report.html.numbers import NOTHING
from jaxfood.report.html.words import ENGLISH

_VOID = {"img", "meta", "link", "br", "input"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """A value as text of HTML and of its attributes: nothing in it is markup, hidden, or changes what is around it."""
    return Html(html.escape(printable(value), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: `Html` as it is, None not at all, iterables one by one, all else escaped.
        attributes: `class_` stands for class, `data_word` for data-word; True is an attribute without a value, and
            None or False none.
    """
    opened = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{opened}>")
    return Html(f"<{name}{opened}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """The children of an element, as `tag` takes them."""
    return Html("".join(_child(child) for child in children))


def _child(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str) or not isinstance(child, Iterable):
        return escaped(child)
    return join(child)


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'


def name(value: object, **attributes: object) -> Html:
    """A name that a user gave, whose direction of writing changes nothing around it."""
    return tag("bdi", str(value), **attributes)


def code(dotted: str) -> Html:
    """A setting or a key, which may be broken where its words end."""
    return tag("code", Html(re.sub(r"(?<=[._])(?=\w)", "<wbr>", escaped(dotted))))


def word(key: str, *values: object, element: str = "span", **attributes: object) -> Html:
    """Fixed words by their key in `words`, which the language's switch exchanges; values replace {0}, {1} and so on."""
    told = [printable(value) for value in values]
    return tag(element, ENGLISH[key].format(*told), data_word=key, data_values=_packed(told), **attributes)


def duration(seconds: float | None) -> Html:
    """A time in the units that suit, such as "4.3 s" or "3 h 20 min"; None is a dash."""
    if seconds is None:
        return escaped(NOTHING)
    if seconds < 60:
        return word("duration_seconds", f"{seconds:.1f}")
    if seconds < 3600:
        return word("duration_minutes", int(seconds) // 60, int(seconds) % 60)
    return word("duration_hours", int(seconds) // 3600, int(seconds) % 3600 // 60)


def labelled(key: str, *values: object) -> dict[str, object]:
    """Attributes that give an element a name for screen readers, in both languages."""
    told = [printable(value) for value in values]
    return {"aria_label": ENGLISH[key].format(*told), "data_word_label": key, "data_values": _packed(told)}


def _packed(values: list[str]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None


def json_block(identifier: str, value: Any) -> Html:
    """Data for the page's script, in which nothing ends the element: strict JSON."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')


def section(identifier: str, title: str, *children: object) -> Html:
    """A part of the page, with a heading by its key in `words`."""
    heading = word(title, element="h2", id=f"{identifier}-title")
    return tag("section", heading, *children, id=identifier, aria_labelledby=f"{identifier}-title")


def scrolling(label: dict[str, object], child: Html) -> Html:
    """What may be wider than a phone, and scrolls inside itself, by the keyboard too."""
    return tag("div", child, class_="scroll", tabindex="0", role="group", **label)


def table(
    caption: str, head: Iterable[object], rows: Iterable[Iterable[object]], *, sortable: bool = False, class_: str = ""
) -> Html:
    """A table whose rows begin with their names.

    Args:
        caption: what it is called, a key of `words`.
        head: a heading for each column.
        rows: cells; a `Cell` has a number to sort by.
        sortable: by a click on a heading.
        class_: CSS classes.
    """
    headings = [
        tag("th", tag("button", heading, type="button") if sortable else heading, scope="col") for heading in head
    ]
    body = [tag("tr", [_cell(cell, first=not place) for place, cell in enumerate(row)]) for row in rows]
    classes = " ".join(filter(None, (class_, "sortable" * sortable))) or None
    return scrolling(
        labelled(caption), tag("table", tag("thead", tag("tr", headings)), tag("tbody", body), class_=classes)
    )


class Cell:
    """A cell of a table with what it is sorted by, and whether it is to catch the eye."""

    def __init__(self, shown: object, value: object = None, *, class_: str | None = None) -> None:
        self.shown, self.value, self.class_ = shown, value, class_


def _cell(cell: object, *, first: bool) -> Html:
    if not isinstance(cell, Cell):
        cell = Cell(cell)
    attributes = {"data_value": cell.value, "class_": cell.class_}
    return tag("th", cell.shown, scope="row", **attributes) if first else tag("td", cell.shown, **attributes)
