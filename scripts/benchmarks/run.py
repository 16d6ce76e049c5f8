"""Whole runs: the notes' own script, which decodes all pictures in each epoch, against jaxfood's first and second run.

    python scripts/benchmarks/run.py --root DIR [--epochs 2] [--fraction 0.1] [--image_size 128] [--turns 1]

`--root` holds train/ and valid/ with files named LABEL_NUMBER.jpg. Each run has a process of its own; they take turns.
The clock starts when its imports are done and stops when the last checkpoint is on disk. The first run of jaxfood
decodes and compiles, the second finds both done.
"""

import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from measuring import Parser, alone, machine, need_torch, print_table, versions

from jaxfood import Config, UserError, load_config
from jaxfood.data.index import index_pictures

RUNS = ("the notes' script", "jaxfood, first run", "jaxfood, second run")


class Result(NamedTuple):
    """Of one run."""

    clock: float
    core: float
    split: dict[str, float]
    accuracies: list[float]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="holds train/ and valid/")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the pictures of both folders")
    parser.add_numbers(epochs=2, image_size=128, batch_size=64, turns=1)
    arguments = parser.parse_args()
    if not 0 < arguments.fraction <= 1:
        parser.error("give a --fraction above 0 and at most 1")
    need_torch()
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = compare(arguments, Path(folder))
    except UserError as error:
        parser.error(str(error))
    report(results, arguments)


def compare(arguments: Namespace, folder: Path) -> dict[str, list[Result]]:
    """The results of each kind of run, a turn each; all they write goes to `folder`."""
    lists = {split: pick(arguments.root / split, arguments.fraction) for split in ("train", "valid")}
    for split, paths in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    settings = ["model.num_classes=11", f"data.root={folder}", "data.train=train.txt", "data.valid=valid.txt"]
    settings += [f"data.image_size={arguments.image_size}", f"train.batch_size={arguments.batch_size}"]
    settings += [f"train.epochs={arguments.epochs}", "device.platform=cpu", "device.count=1", "logging.progress=false"]
    config = load_config(None, settings)
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
    from jaxfood import train_and_evaluate
    from jaxfood.cli import set_up_jax
    from jaxfood.runs.directory import METRICS
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


def report(results: dict[str, list[Result]], arguments: Namespace) -> None:
    medians = {name: median(runs) for name, runs in results.items()}
    print(f"\n{machine()}; load {os.getloadavg()[1]:.1f}\n{versions()}")
    print(
        f"{arguments.root}, {arguments.fraction:.0%} of the pictures, {arguments.epochs} epochs, "
        f"{arguments.image_size} px, batch {arguments.batch_size}, median of {arguments.turns}\n"
    )
    notes = medians[RUNS[0]]
    rows = []
    for name, run in medians.items():
        ratios = f"{notes.clock / run.clock:.2f}", f"{notes.core / run.core:.2f}"
        split = ", ".join(f"{work} {seconds:.1f}" for work, seconds in run.split.items())
        rows.append((name, f"{run.clock:.1f}", f"{run.core:.1f}", *ratios, split, f"{run.accuracies[-1]:.3f}"))
    print_table(("", "seconds", "of a core", "ratio", "of cores", "split", "accuracy"), rows)


def median(runs: Sequence[Result]) -> Result:
    """Of the clock and the core; split and accuracies are those of the run nearest to the clock's."""
    clock = statistics.median(run.clock for run in runs)
    nearest = min(runs, key=lambda run: abs(run.clock - clock))
    return nearest._replace(clock=clock, core=statistics.median(run.core for run in runs))


if __name__ == "__main__":
    main()
