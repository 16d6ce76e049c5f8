"""Ctrl-C and SIGTERM at random moments of the commands' first seconds: one line, status 130, no traceback.

    python scripts/campaigns/interrupted_starts.py --count 40 --seed 0

Each command is started in an empty folder and gets one signal, after a time drawn evenly from its first --seconds. What
is right: it ends with 130 and one line that begins with "interrupted", or it was done before (0, or 2 and one line). A
signal that comes before Python has loaded the first file of this package is Python's own to answer, and is counted
apart. Wrong is anything else: a traceback, an answer of two lines, a crash, a signal that is swallowed, a process that
goes on for --patience seconds.
"""

import argparse
import collections
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
COMMANDS = (
    ("train", "--train.epochs", "1", "--logging.progress", "false"),
    ("train", "--help"),
    ("predict", "no_run", "--images", "1.png"),
    ("convert", "from-torch", "no.safetensors", "run"),
    ("landscape", "no_run", "--images", "nowhere"),
    ("lessons", "cross-entropy"),
)


def main() -> None:
    """Parse, try, print a table; exit status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="signals in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0, help="signals come within so many seconds of the start")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds until a process counts as hanging")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"Python {platform.python_version()}, jax {version('jax')}, {os.cpu_count()} CPUs, seed {arguments.seed}")
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(arguments.count):
        command = COMMANDS[number % len(COMMANDS)]
        signal_number = rng.choice((signal.SIGINT, signal.SIGTERM))
        after = rng.uniform(0.02, arguments.seconds)
        outcome, told = try_once(command, signal_number, after, arguments.patience)
        outcomes[outcome] += 1
        if outcome.startswith("wrong"):
            print(f"{outcome}: {' '.join(command)}, {signal_number.name} after {after:.3f} s\n{told[-3000:]}")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    sys.exit(any(outcome.startswith("wrong") for outcome in outcomes))


def try_once(command: tuple[str, ...], number: signal.Signals, after: float, patience: float) -> tuple[str, str]:
    """What came of one signal, and what standard error says."""
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (40, 40)).save(Path(folder, "1.png"))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": folder, "JAX_PLATFORMS": "cpu"}
        words = [sys.executable, "-m", f"jaxfood.{command[0]}", *command[1:]]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        time.sleep(after)
        process.send_signal(number)
        try:
            _, told = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return "wrong: it goes on", process.communicate()[1]
    return judge(process.returncode, told, number), told


def judge(status: int, told: str, number: signal.Signals) -> str:
    """How one process ended, in words."""
    lines = told.splitlines()
    if status == 130 and len(lines) == 1 and lines[0].startswith("interrupted"):
        return "right: 130 and one line"
    if status == 0 and not lines:
        return "right: it was done before"
    if status == 2 and len(lines) == 1 and lines[0].startswith("error: "):
        return "right: it had ended with its own line before"
    if status == -number and not lines:
        return "apart: the signal's own end, before this package begins or after Python has taken the handler away"
    if "jaxfood" not in told and status in (1, 130) and "KeyboardInterrupt" in told:
        return "apart: Python's own traceback, before this package begins"
    return f"wrong: status {status}, {len(lines)} lines"


if __name__ == "__main__":
    main()
