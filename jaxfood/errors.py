"""The one exception that stands for a mistake of the user's, and how names and values are put into messages."""

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sized

MESSAGE_LIMIT = 4000  # characters of one line for people: some 40 lines of a terminal

# What a terminal would obey, hide or show in another order: C0, DEL and C1, lone surrogates (the bytes of a name that
# is not UTF-8), the separators that end a line, the marks that change the direction of writing, and what has no width.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)


class UserError(ValueError):
    """A mistake of the user's: one plain line that names the thing and the mend.

    Commands print it to standard error and exit with status 2; the library raises it.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython, so a notebook, prints in place of a traceback."""
        return [f"{type(self).__name__}: {printable(self)}"]


def printable(text: object, *, lines: bool = False) -> str:
    r"""Text as a terminal or a log may show it, whatever names stand in it.

    Control characters (ESC among them) and the bytes of names that are not UTF-8 become `\xNN`, what else is not to be
    seen `\uNNNN`.

    Args:
        text: anything with a `str`.
        lines: keep line breaks and tabs; otherwise they are escaped too, as a name may hold one.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def bounded(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Text of about `limit` characters at most: its middle is left out, and that is said; the mend is at the end."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end]} [... {len(text) - limit:,} characters left out ...] {text[-end:]}"


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese, Japanese and Korean characters take two, accents none."""
    return sum(map(_columns, text))


def within_columns(text: str, width: int) -> str:
    """A text of at most so many columns: a longer one ends in an ellipsis."""
    if columns(text) <= width:
        return text
    end = next(end for end in range(len(text), -1, -1) if columns(text[:end]) < width)
    return text[:end].rstrip() + "…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def first_few(names: Iterable[object], few: int = 3) -> str:
    """The first few of many for a message, and how many there are beside them: "a, b, c and 75,747 more"."""
    names = names if isinstance(names, Sized) else list(names)
    shown = [bounded(str(name), 300) for _, name in zip(range(few), names, strict=False)]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


class _Shown(reprlib.Repr):
    """`repr`, bounded, and of numbers that Python refuses to write out too."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 120
        self.maxlevel = 3

    def repr_int(self, number: int, level: int) -> str:
        if abs(number) < 10**40:
            return repr(number)
        return f"{'-' * (number < 0)}a number of about {round(number.bit_length() * 0.30103):,} digits"


def shown(value: object) -> str:
    """A value for a message, as Python writes it, shortened where it is long."""
    return printable(_Shown().repr(value))


def written_otherwise(one: str, other: str) -> str:
    """What to add to a message that calls two texts different which look the same; "" where they do not.

    An accented letter is one character or a letter and its accent (Unicode's NFC and NFD; macOS and archives made there
    have the second).
    """
    if one != other and unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        forms = ["NFC" if unicodedata.is_normalized("NFC", text) else "NFD" for text in (one, other)]
        return f" (they look the same, but the accents of the first are {forms[0]} and of the second {forms[1]})"
    return ""
