"""The loss over a plane as a surface: its place on the page, its values, and what the script draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxfood.report.html.markup import Html, join, table, tag, word
from jaxfood.report.html.numbers import number, plain, rounded

_MOST = 101  # places along a side that are drawn and written


def surface_of(numbers: Mapping[str, Any], place: int) -> dict[str, Any] | None:
    """What the script draws of a landscape.json; None where it holds no plane.

    Raises:
        ValueError: its plane is damaged.
    """
    plane = numbers.get("plane")
    if plane is None:
        return None
    if not isinstance(plane, Mapping):
        raise ValueError("the plane is no table")
    steps, others = (_steps(plane.get(name)) for name in ("steps", "other_steps"))
    losses = plane.get("losses")
    if not isinstance(losses, list) or [len(row) for row in losses if isinstance(row, list)] != [len(others)] * len(
        steps
    ):
        raise ValueError("its losses are not as many as its steps")
    rows = [[rounded(loss) for loss in row] for row in losses]
    if all(loss is None for row in rows for loss in row):
        return None
    return {"id": f"surface-{place}", "steps": steps, "other_steps": others, "losses": rows}


def _steps(values: Any) -> list[float]:
    if not isinstance(values, list) or not 2 <= len(values) <= _MOST or any(plain(value) is None for value in values):
        raise ValueError("its steps are no numbers")
    return [float(f"{value:.6g}") for value in values]


def surface_place(surface: Mapping[str, Any]) -> Html:
    """Where the script draws a surface, and below all of its values."""
    identifier = surface["id"]
    title = word("surface", element="h3", class_="title", id=f"{identifier}-title")
    how = word("how_surface", element="p", class_="how only-script")
    summary = tag("summary", word("surface_losses"))
    details = tag("details", summary, _values(surface), id=f"{identifier}-values")
    turning = tag("div", class_="turning only-script")
    return tag("div", join((title, how, turning, details)), class_="surface", data_surface=identifier)


def _values(surface: Mapping[str, Any]) -> Html:
    steps: Sequence[float] = surface["steps"]
    rows = [
        (number(step), *(number(loss) for loss in losses))
        for step, losses in zip(steps, surface["losses"], strict=True)
    ]
    return table("surface_losses", ("λ max \\ λ min", *(number(step) for step in surface["other_steps"])), rows)
