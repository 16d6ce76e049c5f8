"""What a setting is: a dataclass field that knows its meaning and what it accepts."""

import dataclasses
import math
from typing import Any, ClassVar

from jaxfood.errors import UserError

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", tuple: "numbers"}


@dataclasses.dataclass(frozen=True)
class Accepts:
    """The values a setting takes, beside its type. A choice that ends with NAME stands for any name there."""

    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    infinite: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(number in self for number in value)
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not self.infinite)):
            return False
        return not (
            (self.choices and not any(_is_choice(value, choice) for choice in self.choices))
            or (self.at_least is not None and value < self.at_least)
            or (self.at_most is not None and value > self.at_most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
            or (self.multiple_of is not None and value % self.multiple_of)
        )

    def describe(self, kind: type) -> str:
        """For example "an integer, at least 1" or "one of: jit, pmap"."""
        if self.choices:
            return "one of: " + ", ".join(choice or '""' for choice in self.choices)
        limits = {
            "at least": self.at_least,
            "at most": self.at_most,
            "above": self.above,
            "below": self.below,
            "a multiple of": self.multiple_of,
        }
        return ", ".join([_KINDS[kind], *(f"{words} {limit}" for words, limit in limits.items() if limit is not None)])


def _is_choice(value: str, choice: str) -> bool:
    start = choice.removesuffix("NAME")
    return value == choice if start == choice else value.startswith(start) and value != start


def setting(default: Any, meaning: str, **accepts: Any) -> Any:
    """A dataclass field with its default, its meaning (shown by ``--help``) and what it accepts."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "accepts": Accepts(**accepts)})


def kind_of(field: dataclasses.Field) -> type:
    """The type of a setting: that of its default."""
    return type(field.default)


def describe(field: dataclasses.Field) -> str:
    """What a setting accepts, in words."""
    return field.metadata["accepts"].describe(kind_of(field))


def check(name: str, field: dataclasses.Field, value: Any) -> Any:
    """`value` in the setting's own type (an integer becomes a number), or a UserError that says what is accepted."""
    kind, given = kind_of(field), value
    if kind is float:
        value = _to_float(value)
    elif kind is tuple and isinstance(value, list | tuple):
        value = tuple(_to_float(number) for number in value)
    of_its_type = type(value) is kind
    if isinstance(value, tuple):
        of_its_type = kind is tuple and all(type(number) is float for number in value)
    if not of_its_type or value not in field.metadata["accepts"]:
        raise UserError(f"{name} = {given!r}: it takes {describe(field)}")
    return value


def parse(name: str, field: dataclasses.Field, text: str) -> Any:
    """The value that a flag's text stands for, checked. Strings stand for themselves, commas separate numbers."""
    kind = kind_of(field)
    try:
        value: Any
        if kind is tuple:
            value = tuple(float(number) for number in text.split(",")) if text.strip() else ()
        else:
            value = {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UserError(f"{name} = {text!r}: it takes {describe(field)}") from None
    return check(name, field, value)


def _to_float(value: Any) -> Any:
    """An integer as a number; anything else as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the configuration; its values are checked wherever they come from."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = check(f"{self.section}.{field.name}", field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
