"""What the campaigns share: their arguments, the machine and versions, the table, and the exit status."""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
SETTINGS = ("--data.image_size", "32", "--train.batch_size", "8", "--device.count", "1", "--logging.progress", "false")
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


def draw_pictures(root: Path) -> Path:
    """Three classes of small JPEGs in the homework's layout: 21 to train on, 9 to validate, 5 to predict."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 21), ("valid", 9), ("test", 5)):
        (root / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (36, 44, 3))
            pixels[..., number % 3] += 110
            name = f"{number + 1:04}" if split == "test" else f"{number % 3}_{number}"
            Image.fromarray(pixels.astype(np.uint8)).save(root / split / f"{name}.jpg", quality=90)
    return root


def start(command: str, *arguments: object, folder: Path, cache: Path) -> subprocess.Popen[str]:
    """Start a command of jaxfood with a narrow network in a process of its own.

    Args:
        command: its name: "train".
        arguments: its arguments.
        folder: where it runs.
        cache: of decoded pictures; compiled programs are shared by the whole campaign.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, str(Path(__file__).with_name("narrow.py")), command, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(command: str, *arguments: object, folder: Path, cache: Path, patience: float = 300) -> tuple[int, str]:
    """Run it to its end: its exit status (-9 where it did not come in time) and standard error."""
    process = start(command, *arguments, folder=folder, cache=cache)
    try:
        _, told = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return -9, process.communicate()[1]
    return process.returncode, told


def bits_of(workdir: Path) -> dict[str, Any]:
    """What a run holds: digests of all arrays of its best and last checkpoint, and its records without times."""
    import jax

    from jaxfood.runs.directory import METRICS
    from jaxfood.training.logbook import read_metrics
    from jaxfood.training.saved import load_state

    found: dict[str, Any] = {}
    for which in ("best", "last"):
        state, epoch = load_state(workdir, which)
        digest = hashlib.blake2b()
        for leaf in jax.tree.leaves((state.params, state.batch_stats, state.opt_state)):
            digest.update(np.asarray(leaf).tobytes())
        found[which] = (int(state.step), epoch, digest.hexdigest())
    times = ("seconds", "images_per_second")
    records = read_metrics(workdir / METRICS)
    found["metrics"] = [
        json.dumps({name: value for name, value in each.items() if name not in times}) for each in records
    ]
    return found
