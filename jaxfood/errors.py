"""The one exception that stands for a mistake of the user's."""


class UserError(ValueError):
    """A mistake of the user's: one plain line that names the thing and the mend.

    Commands print it to standard error and exit with status 2; the library raises it.
    """
