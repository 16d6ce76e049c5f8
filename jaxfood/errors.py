"""The one exception that stands for a mistake of the user's, and how its message names many things."""

from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: one plain line that names the thing and the mend.

    Commands print it to standard error and exit with status 2; the library raises it.
    """


def first_few(names: Iterable[str], few: int = 3) -> str:
    """The first few of names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:few]) + (f" and {len(listed) - few} more" if len(listed) > few else "")
