"""Seconds from starting a command to its answer: `import jaxfood`, `--help`, the first update of the demo.

    python scripts/benchmarks/start.py [--turns 5]

Each is a new process, all take turns, and the median is printed; "of a core" is the time of all its threads together.
The demo's pictures are decoded, and its programs compiled, by a first training that is not counted. The first update is
over when its loss is known.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import Parser, Seconds, positive, print_setting, print_table

ROOT = Path(__file__).parents[2]

# The demo's training as `python -m jaxfood.train` begins it; the logbook hears of the first update, and all ends.
FIRST_UPDATE = """
import importlib.abc, importlib.machinery, os, sys

class AtFirstUpdate(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "jaxfood.training.logbook":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.Bar.update = lambda bar, done, means: (means(), os._exit(0))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, AtFirstUpdate())
from jaxfood import cli, train
train.main.__module__ = "__main__"
cli.run(train.main)
"""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--turns", type=positive, default=5)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "python -c pass": ["-c", "pass"],
            "import jaxfood": ["-c", "import jaxfood"],
            "python -m jaxfood.train --help": ["-m", "jaxfood.train", "--help"],
            "the demo's first update": ["-c", FIRST_UPDATE, "--workdir", f"{folder}/run", "--overwrite"],
        }
        for command in commands.values():
            seconds_of(command, folder)
        seconds: dict[str, list[Seconds]] = {name: [] for name in commands}
        for _ in range(turns):
            for name, command in commands.items():
                seconds[name].append(seconds_of(command, folder))
    print_setting(f"median of {turns}\n")
    medians = {name: [statistics.median(each) for each in zip(*own, strict=True)] for name, own in seconds.items()}
    rows = ((name, f"{clock:.2f}", f"{core:.2f}") for name, (clock, core) in medians.items())
    print_table(("from process start", "seconds", "of a core"), rows)


def seconds_of(command: list[str], cache: str) -> Seconds:
    """What one process takes, with Python's files compiled and a cache folder of this benchmark's own."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    clock, after = time.perf_counter() - started, os.times()
    if done.returncode:
        sys.exit(f"{command[:2]} left with {done.returncode}: {done.stderr[-1000:]}")
    core = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(clock, core)


if __name__ == "__main__":
    main()
