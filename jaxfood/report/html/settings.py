"""The part of a report on the settings: those that differ from the defaults, of several runs side by side."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxfood.config.sections import Config
from jaxfood.report.html.markup import Cell, Html, code, join, name, section, table, word
from jaxfood.report.html.numbers import NOTHING
from jaxfood.report.html.records import RunRecord

_MISSING = object()


def settings(runs: Sequence[RunRecord]) -> Html:
    """A row for each setting that differs from its default in one of the runs."""
    changed = [changed_settings(run.config) for run in runs]
    keys = list(dict.fromkeys(key for each in changed for key in each))
    if not keys:
        return section("settings", "settings", word("all_default", element="p"))
    values, defaults = [_all(run.config) for run in runs], [_defaults(run.config) for run in runs]
    order = list(dict.fromkeys(key for each in values for key in each))
    rows = [_row(key, values, defaults) for key in sorted(keys, key=order.index)]
    columns = [word("value")] if len(runs) == 1 else [name(run.name) for run in runs]
    how = word("how_settings" if len(runs) == 1 else "how_settings_compared", element="p", class_="how")
    head = [word("setting"), *columns, word("default")]
    return section("settings", "settings", how, table("settings", head, rows, class_="left"))


def changed_settings(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults, those of an optimizer from that optimizer's own."""
    defaults = _defaults(config)
    return {key: value for key, value in _all(config).items() if value != defaults[key]}


def _all(config: Config) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in dataclasses.asdict(config).items()
        for key, value in values.items()
    }


def _defaults(config: Config) -> dict[str, Any]:
    """Each setting's default beside the variants that were chosen; that of `name` is the default variant's."""
    default = Config()
    found = {}
    for field in dataclasses.fields(config):
        chosen = type(getattr(config, field.name))()
        for key, value in dataclasses.asdict(chosen).items():
            found[f"{field.name}.{key}"] = getattr(getattr(default, field.name), key) if key == "name" else value
    return found


def _row(key: str, values: Sequence[dict[str, Any]], defaults: Sequence[dict[str, Any]]) -> list[object]:
    told = list(dict.fromkeys(_shown(default[key]) for default in defaults if key in default))
    own = [each.get(key, _MISSING) for each in values]
    differs = len({_shown(value) for value in own}) > 1
    mark = (" ", word("differs", element="em", class_="differs")) if differs else ()
    cells = [Cell(name(_shown(value)), class_="differs" if differs else None) for value in own]
    return [join((code(key), *mark)), *cells, name(" / ".join(told))]


def _shown(value: Any) -> str:
    """A value as a flag takes it."""
    if value is _MISSING:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or '""'
    return '""' if value == "" else str(value)
