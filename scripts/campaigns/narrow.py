"""Runs a command of jaxfood with a network of few features, so that a campaign of hundreds of them takes minutes.

    python scripts/campaigns/narrow.py train --data.root DIR --workdir RUN

The other arguments are the command's own.
"""

import runpy
import sys

from jaxfood.model import classifier
from jaxfood.pytorch import names


def narrow() -> None:
    """Make the classifier narrow in this process."""
    for module in (classifier, names):
        module.FEATURES, module.HIDDEN = (8, 8, 8, 8, 8), (16, 8)


if __name__ == "__main__":
    narrow()
    name = sys.argv.pop(1)
    runpy.run_module(f"jaxfood.{name}", run_name="__main__", alter_sys=True)
