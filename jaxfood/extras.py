"""Optional packages: a feature that needs one says so before any work."""

import importlib.util

from jaxfood.errors import UserError

_CALLED = {"sklearn": "scikit-learn"}  # otherwise than it is imported


def require(package: str, feature: str, extra: str) -> None:
    """Check that the package of an optional feature is there.

    Args:
        package: its name for `import`.
        feature: what needs it, for the message: a setting with its value, or a sentence's subject.
        extra: the extra of jaxfood that installs it.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{feature} needs {_CALLED.get(package, package)}: pip install 'jaxfood[{extra}]'")
