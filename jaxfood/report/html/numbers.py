"""Numbers as a report shows them."""

import math
from typing import Any

NOTHING = "\N{EN DASH}"  # where there is no number


def plain(value: Any) -> float | None:
    """A value as a finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rounded(value: Any) -> float | None:
    """A number to six digits, more than a curve shows: a report of a thousand epochs stays small."""
    number = plain(value)
    return None if number is None else float(f"{number:.6g}")


def number(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits, or a dash."""
    found = plain(value)
    if found is None:
        return NOTHING
    return f"{found:,.0f}" if found.is_integer() and abs(found) < 1e15 else f"{found:.{digits}g}"


def percent(value: Any, digits: int = 1) -> str:
    """A share as per cent, or a dash."""
    found = plain(value)
    return NOTHING if found is None else f"{100 * found:.{digits}f} %"


def decimals(value: Any, digits: int = 4) -> str:
    """A number with so many decimals, so that those of a column stand below each other; or a dash."""
    found = plain(value)
    return NOTHING if found is None else f"{found:.{digits}f}"


def size(count: int) -> str:
    """Bytes, in the unit that suits."""
    return f"{count / 1e6:.1f} MB" if count >= 999_500 else f"{count / 1e3:.0f} kB"
