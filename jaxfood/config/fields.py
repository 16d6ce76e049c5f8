"""What a setting is: a dataclass field that knows its meaning and what it accepts."""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, dataclass_transform

from jaxfood.errors import UserError, printable, shown

# What no setting exceeds, if it does not say less: steps and positions are counted in int32, and float32 ends at 3e38.
_LARGEST = {int: 1_000_000_000, float: 1e30, tuple: 1e30}

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", tuple: "numbers"}


def _number(text: str) -> int | float:
    return int(text) if text.strip().isdecimal() else float(text)


_READ: dict[type, Callable[[str], Any]] = {  # where the type itself does not read a text as we do
    bool: {"true": True, "false": False}.__getitem__,
    tuple: lambda text: tuple(map(_number, text.split(","))) if text.strip() else (),
}


_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "at_least": ("at least", operator.ge),
    "at_most": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
    "other_than": ("other than", operator.ne),
    "multiple_of": ("a multiple of", lambda value, unit: value % unit == 0),
}


@dataclasses.dataclass(frozen=True)
class Accepts:
    """The values a setting takes, beside its type. A choice that ends with NAME stands for any name there."""

    choices: Sequence[str]
    words: Sequence[str]  # that stand for a value which is known later
    infinite: bool
    limits: Mapping[str, float]  # by their names in `_LIMITS`

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(number in self for number in value)
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not self.infinite)):
            return False
        if self.choices and not any(_is_choice(value, choice) for choice in self.choices):
            return False
        return all(_LIMITS[name][1](value, limit) for name, limit in self.limits.items())


def _is_choice(value: str, choice: str) -> bool:
    start = choice.removesuffix("NAME")
    return value == choice if start == choice else value.startswith(start) and value != start


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[str] = (),
    words: Sequence[str] = (),
    infinite: bool = False,
    of: type = float,
    **limits: float,
) -> Any:
    """A dataclass field with its default, its meaning (shown by ``--help``) and what it accepts.

    A number has an upper limit, its own or the general one. A setting of numbers may take words in their place; its
    numbers are all integers or all not (`of`).
    """
    largest = _LARGEST.get(type(default))
    if largest and not infinite and not limits.keys() & {"at_most", "below"}:
        limits["at_most"] = largest
    accepts = Accepts(choices, words, infinite, limits)
    return dataclasses.field(default=default, metadata={"meaning": meaning, "accepts": accepts, "of": of})


def kind_of(field: dataclasses.Field) -> type:
    """The type of a setting: that of its default."""
    return type(field.default)


def describe(field: dataclasses.Field) -> str:
    """What a setting accepts: for example "an integer, at least 1" or "one of: jit, pmap"."""
    accepts = field.metadata["accepts"]
    if accepts.choices:
        return "one of: " + ", ".join(choice or '""' for choice in accepts.choices)
    limits = (f"{words} {accepts.limits[name]}" for name, (words, _) in _LIMITS.items() if name in accepts.limits)
    kind = "integers" if kind_of(field) is tuple and field.metadata["of"] is int else _KINDS[kind_of(field)]
    return ", ".join([kind, *limits, *(f"or {word}" for word in accepts.words)])


def check(name: str, field: dataclasses.Field, value: Any) -> Any:
    """`value` in the setting's own type (an integer becomes a number), or a UserError that says what is accepted."""
    kind, given = kind_of(field), value
    if isinstance(value, str) and value in field.metadata["accepts"].words:
        return value
    if kind is float:
        value = _to_float(value)
    elif kind is tuple and isinstance(value, list | tuple):
        value = tuple(_to_float(number) if field.metadata["of"] is float else number for number in value)
    of_its_type = type(value) is kind
    if isinstance(value, tuple):
        of_its_type = kind is tuple and all(type(number) is field.metadata["of"] for number in value)
    if not of_its_type or value not in field.metadata["accepts"]:
        raise UserError(_refusal(name, field, given))
    if isinstance(value, str) and (reason := _unwritable(value)):
        raise UserError(f"{name} = {shown(value)}: {reason}")
    return value


def parse(name: str, field: dataclasses.Field, text: str) -> Any:
    """The value that a flag's text stands for, checked. Strings stand for themselves, commas separate numbers."""
    kind = kind_of(field)
    if (word := text.strip()) in field.metadata["accepts"].words:
        return word
    try:
        value = _READ.get(kind, kind)(text)
    except (KeyError, ValueError):
        raise UserError(_refusal(name, field, text)) from None
    return check(name, field, value)


def _refusal(name: str, field: dataclasses.Field, given: Any) -> str:
    meant = _meant(field, given)
    return f"{name} = {shown(given)}: it takes {describe(field)}" + (f"; write {meant}" if meant else "")


def _meant(field: dataclasses.Field, given: Any) -> str:
    """The right spelling of a value that was only spelled otherwise: `True`, 64.0, "8", 1e3, 0,5."""
    kind, accepts = kind_of(field), field.metadata["accepts"]
    short = isinstance(given, bool | float) or (isinstance(given, str) and len(given) < 50)
    text = str(given).strip().lower() if short or (type(given) is int and abs(given) < 10**30) else ""
    if kind is bool:
        words = {"true": ("true", "yes", "on", "1"), "false": ("false", "no", "off", "0")}
        return next((word for word, others in words.items() if text in others), "")
    if text in accepts.words:
        return text
    if kind not in (int, float) or isinstance(given, bool):
        return ""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return ""
    if kind is int and number.is_integer():
        return str(int(number)) if int(number) in accepts else ""
    return repr(number) if kind is float and number in accepts else ""


def _unwritable(text: str) -> str:
    """Why a text cannot stand in a run's config.toml, which is UTF-8, or name anything; "" if it can."""
    if control := re.search(r"[\x00-\x08\x0a-\x1f\x7f]|(?<=^[A-Za-z]:)\t", text):
        return (
            f"it holds a control character, {printable(control[0])}, as \\b \\f \\n \\r \\t are in double quotes; "
            "write the text in single quotes, or with /; or give the folder another name"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        return "its bytes are not UTF-8, which config.toml is; give a folder another name, or a link to it (ln -s)"
    return ""


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


_Variant = TypeVar("_Variant", bound=Section)


@dataclass_transform(frozen_default=True)
def variant(name: str, variants: dict[str, Any]) -> Callable[[type[_Variant]], type[_Variant]]:
    """Makes a frozen dataclass of one of a section's `variants` and adds it; its field `name` takes this name alone."""

    def decorate(cls: type[_Variant]) -> type[_Variant]:
        cls.__annotations__["name"] = str
        type.__setattr__(cls, "name", setting(name, "", choices=(name,)))
        variants[name] = dataclasses.dataclass(frozen=True)(cls)
        return variants[name]

    return decorate
