"""What the campaigns share: their arguments, the machine and versions, the table, and the exit status."""

import argparse
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

RIGHT, REFUSED = "right", "refused in one line"


class Parser(argparse.ArgumentParser):
    """The arguments of a campaign, whose docstring is its help."""

    def __init__(self, description: str | None, *, count: int) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--count", type=int, default=count, help=f"how many are tried (default: {count})")
        self.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")


def print_setting(*packages: str) -> None:
    """The machine and the versions that figures belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    versions = (f"{package} {version(package)}" for package in ("jax", "orbax-checkpoint", "pillow", *packages))
    print(f"{cpu}, {os.cpu_count()} cores; python {platform.python_version()}, {', '.join(versions)}", flush=True)


def outcome_of(message: str) -> str:
    """What the message of a UserError counts as."""
    return REFUSED if message and len(message.splitlines()) == 1 else f"not one line: {message!r}"


def finish(outcomes: Mapping[str, int] | Counter[str], *good: str) -> NoReturn:
    """Print how often each outcome came, and leave: with 1 where one is not among the good ones."""
    print("| outcome | how many |\n|---|---|")
    for outcome, count in sorted(outcomes.items(), key=lambda item: -item[1]):
        print(f"| {outcome} | {count} |")
    sys.exit(bool(set(outcomes) - {RIGHT, REFUSED, *good}))
