"""TOML files as people have them: every way in which one cannot be read is one plain line with its place."""

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from jaxfood.errors import UserError, bounded, printable
from jaxfood.files import read_bytes, reason
from jaxfood.places import kind, similar

_LARGEST = 2**20  # bytes; the longest configuration has some 6,000

_SPELLINGS = {
    **dict.fromkeys(("True", "TRUE", "yes", "Yes", "on"), "true"),
    **dict.fromkeys(("False", "FALSE", "no", "No", "off"), "false"),
    "None": '"" (an empty string)',
    "Inf": "inf",
    "NaN": "nan",
}

# tomllib's words (Python 3.11 to 3.14), and ours.
_REASONS = (
    ("Cannot overwrite a value", "{key} is set twice: remove one"),
    ("Duplicate inline table key", "{key} is set twice: remove one"),
    ("Cannot declare", "{key} is opened twice: write what belongs to it together"),
    ("Cannot redefine", "{key} is opened twice: write what belongs to it together"),
    ("Cannot mutate", "{key} is opened twice: write what belongs to it together"),
    ("Illegal character '\\n'", "a quotation mark is missing at the end of a text"),
    ("Illegal character '\\r'", "a quotation mark is missing at the end of a text"),
    ("Expected newline", "something stands behind the value: write one setting a line, and a # before a remark"),
    ("Expected '='", "an = is missing after the name (write NAME = VALUE)"),
    ("Expected ']", "a ] is missing (write [SECTION])"),
    ("Unclosed array", "a ] is missing at the end of a list that begins with [, or a comma in it"),
    ("Unclosed inline table", "a }} is missing"),
    ("Unterminated string", "a quotation mark is missing at the end of a text"),
    ("Expected '\"", "a quotation mark is missing at the end of a text"),
    ("Expected \"'", "a quotation mark is missing at the end of a text"),
    ("Invalid initial character for a key part", "a setting's name is missing before the ="),
    ("Invalid date", "this is no date"),
    ("Invalid statement", "a line is [SECTION], NAME = VALUE, or a remark behind a #"),
    ("Invalid value", "a value is missing, or is none that TOML has"),
)


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, with or without a byte-order mark.

    Raises:
        UserError: it is not there, cannot be read, is not TOML or not UTF-8 text.
    """
    what = kind(path)
    if not what:
        raise UserError(f"no configuration file {path}{similar(path) or '; check its path'}")
    if what != "file":
        raise UserError(f"{path} cannot be read: it is no file but a {'folder' if what == 'folder' else 'device'}")
    try:
        encoded = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    if len(encoded) > _LARGEST:
        raise UserError(f"{path} is not a configuration: it has {len(encoded):,} bytes, and none has over {_LARGEST:,}")
    text = _decoded(path, encoded)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {_in_plain_words(str(error), text)}") from None
    except ValueError:  # int() of more digits than Python takes
        raise UserError(f"{path} is not TOML: it holds a number of over 4,300 digits; write a smaller one") from None
    except RecursionError:
        raise UserError(f"{path} is not TOML: its brackets are nested too deeply; a setting's list has one [") from None


def _decoded(path: Path, encoded: bytes) -> str:
    if (
        encoded.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or encoded[:200].count(0) > len(encoded[:200]) / 4
    ):
        raise UserError(f'{path} is not TOML: it is UTF-16 text (Windows\' "Unicode"); save it as UTF-8')
    try:
        return encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not TOML: line {line} holds the byte 0x{encoded[error.start]:02x}, which is not UTF-8; save "
            "the file as UTF-8"
        ) from None


def _in_plain_words(told: str, text: str) -> str:
    """The line, what is wrong there and the mend, of what tomllib tells."""
    lines = text.split("\n")
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", told)
    number = int(place[1] or len(lines)) if place else 0
    content = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    shown_line = f" ({bounded(printable(content), 150)})" if content else ""
    key = bounded(printable(content.partition("=")[0].strip()), 100)
    return f"line {number}{shown_line}: {_reason_of(told[: place.start()] if place else told, content, key)}"


def _reason_of(told: str, content: str, key: str) -> str:
    if "\\" in content and told.startswith(("Unescaped", "Invalid hex", "Escaped character")):
        return "in double quotes a \\ begins a special character; write the text in single quotes, or with /"
    value = content.partition("=")[2].partition("#")[0].strip()
    if told.startswith(("Invalid value", "Expected newline", "Found invalid", "Invalid date")) and value:
        if value in _SPELLINGS:
            return f"TOML writes {_SPELLINGS[value]}"
        if re.fullmatch(r"[+-]?\d+,\d+", value):
            return "a number has a point, not a comma"
        if re.fullmatch(r"[+-]?0\d+", value):
            return "a number does not begin with 0"
        if re.fullmatch(r"[\w./\\:~-]*[A-Za-z_/\\~][\w./\\:~ -]*", value) and not value.startswith(("true ", "false ")):
            return f"a text stands in quotation marks: '{bounded(printable(value), 150)}'"
    if content.startswith(("{", "}", "---", "<")) or content.endswith((":", "{")):
        return "this is not TOML but JSON, YAML or the like; write [train] on a line, and epochs = 8 below it"
    for start, plain in _REASONS:
        if told.startswith(start):
            return plain.format(key=key)
    if told.startswith("Illegal character") or "invalid character" in told:
        return "it holds a character that TOML does not allow; write it anew"
    return bounded(printable(told[:1].lower() + told[1:]), 150)
