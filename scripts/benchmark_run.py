"""Whole runs: the notes' own script, which decodes all pictures in each epoch, against jaxfood's first and second run.

    python scripts/benchmark_run.py --root DIR [--epochs 2] [--fraction 0.1] [--image_size 128] [--turns 1]

`--root` holds train/ and valid/ with files named LABEL_NUMBER.jpg. Each run has a process of its own; they take turns.
The clock starts when its imports are done (torch_reference.py brings JAX along, which the notes' script has no need of)
and stops when the last checkpoint is on disk. The first run of jaxfood decodes and compiles, the second finds both
done. Seconds of a core are those of all threads together: they change little when others use the machine too.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from measuring import alone, machine, versions

from jaxfood.config import Config, load_config
from jaxfood.data.index import index_pictures
from jaxfood.errors import UserError

RUNS = ("the notes' script", "jaxfood, first run", "jaxfood, second run")


class Result(NamedTuple):
    """Of one run."""

    clock: float
    core: float
    split: dict[str, float]
    accuracies: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="holds train/ and valid/")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the pictures of both folders")
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.turns < 1 or not 0 < arguments.fraction <= 1:
        parser.error("give at least one turn, and a --fraction above 0 and at most 1")
    if not importlib.util.find_spec("torch"):
        sys.exit("torch is missing, and the comparison is with PyTorch: pip install torch")
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = compare(arguments, Path(folder))
    except UserError as error:
        parser.error(str(error))
    report(results, arguments)


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, list[Result]]:
    """The results of each kind of run, a turn each; all they write goes to `folder`."""
    lists = {split: pick(arguments.root / split, arguments.fraction) for split in ("train", "valid")}
    for split, paths in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    config = load_config(
        overrides=(
            f"data.root={folder}",
            "data.train=train.txt",
            "data.valid=valid.txt",
            f"data.image_size={arguments.image_size}",
            f"train.epochs={arguments.epochs}",
            f"train.batch_size={arguments.batch_size}",
            "device.platform=cpu",
            "device.count=1",
            "logging.progress=false",
        )
    )
    results = defaultdict(list)
    for turn in range(arguments.turns):
        place = folder / f"turn{turn}"
        place.mkdir()
        results[RUNS[0]].append(alone(run_notes, config, lists["train"], lists["valid"], place / "best.ckpt"))
        for name in RUNS[1:]:
            results[name].append(alone(run_jaxfood, config, place / name, place / "cache"))
    return results


def pick(folder: Path, fraction: float) -> list[Path]:
    """Every n-th picture of each label."""
    index = index_pictures(folder)
    by_label = defaultdict(list)
    for path, label in zip(index.paths, index.labels, strict=True):
        by_label[label].append(path)
    return [path for paths in by_label.values() for path in paths[:: round(1 / fraction)]]


def run_notes(config: Config, train_files: Sequence[Path], valid_files: Sequence[Path], best: Path) -> Result:
    """The notes' script in this process."""
    import notes_script

    start, core = time.perf_counter(), time.process_time()
    outcome = notes_script.train(config, train_files, valid_files, best)
    return finish(start, core, outcome["seconds"], outcome["accuracies"])


def run_jaxfood(config: Config, workdir: Path, cache: Path) -> Result:
    """`train_and_evaluate` in this process, as the command calls it; decoded pictures and compiled steps in `cache`."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    from jaxfood.cli import set_up_jax
    from jaxfood.runs.directory import METRICS
    from jaxfood.train import train_and_evaluate
    from jaxfood.training.logbook import read_metrics

    start, core = time.perf_counter(), time.process_time()
    set_up_jax(config.device)
    summary = train_and_evaluate(config, workdir)
    accuracies = [record["valid_accuracy"] for record in read_metrics(workdir / METRICS)]
    return finish(start, core, summary["seconds"], accuracies)


def finish(start: float, core: float, split: dict[str, float], accuracies: list[float]) -> Result:
    clock = time.perf_counter() - start
    other = clock - sum(split.values())
    return Result(clock, time.process_time() - core, split | {"other": other}, accuracies)


def report(results: dict[str, list[Result]], arguments: argparse.Namespace) -> None:
    medians = {name: median(runs) for name, runs in results.items()}
    print(f"\n{machine()}; load {os.getloadavg()[1]:.1f}\n{versions()}, pillow {PIL.__version__}")
    print(
        f"{arguments.root}, {arguments.fraction:.0%} of the pictures, {arguments.epochs} epochs, "
        f"{arguments.image_size} px, batch {arguments.batch_size}, median of {arguments.turns}\n"
    )
    print("| | seconds | of a core | ratio | of cores | split | accuracy |\n|---|---|---|---|---|---|---|")
    notes = medians[RUNS[0]]
    for name, run in medians.items():
        split = ", ".join(f"{work} {seconds:.1f}" for work, seconds in run.split.items())
        print(
            f"| {name} | {run.clock:.1f} | {run.core:.1f} | {notes.clock / run.clock:.2f} "
            f"| {notes.core / run.core:.2f} | {split} | {run.accuracies[-1]:.3f} |"
        )


def median(runs: Sequence[Result]) -> Result:
    """Of the clock and the core; split and accuracies are those of the run nearest to the clock's."""
    clock = statistics.median(run.clock for run in runs)
    nearest: Any = min(runs, key=lambda run: abs(run.clock - clock))
    return nearest._replace(clock=clock, core=statistics.median(run.core for run in runs))


if __name__ == "__main__":
    main()
