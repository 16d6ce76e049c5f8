"""Seconds from the start of a process to a validation accuracy, with and without decode and compile, of several seeds.

    python scripts/benchmarks/time_to_accuracy.py --accuracy 0.45 --root DIR
        [--config NAME] [--seeds 5] [--SECTION.FIELD VALUE]
    python scripts/benchmarks/time_to_accuracy.py --accuracy 0.9 --config demo --seeds 1

Each seed trains in a process of its own, one after another, up to `train.epochs`; nothing decoded or compiled is kept
from one to the next (the operating system may keep the files). Seeds are `train.seed` and those after it.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from measuring import alone, machine, table, versions

from jaxfood import Config, UserError, cli
from jaxfood.config import loading

SETTING_UP = ("start", "decode", "initialise", "compile")


class Run(NamedTuple):
    """A finished training."""

    seed: int
    machine: str
    records: list[dict[str, Any]]  # metrics.jsonl
    seconds: dict[str, float]  # of each kind of work, and `start`: until the first of it began


class Reached(NamedTuple):
    """When a run's accuracy was reached: the epoch and the seconds of training until then, both infinite for never."""

    epoch: float
    training: float  # updates, validation and saving
    setting_up: float

    @property
    def in_all(self) -> float:
        return self.setting_up + self.training


def main(argv: Sequence[str] | None = None) -> None:
    config, accuracy, seeds = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            alone(train, with_seed(config, seed, Path(folder)), Path(folder) / f"seed-{seed}", time.time())
            for seed in range(config.train.seed, config.train.seed + seeds)
        ]
    print("\n".join(["", *report(runs, accuracy, config)]))


def parse(argv: Sequence[str] | None) -> tuple[Config, float, int]:
    """The configuration of the first seed, the accuracy, and how many seeds."""
    parser = cli.Parser("time_to_accuracy", str(__doc__).splitlines()[0])
    parser.prog = "python scripts/benchmarks/time_to_accuracy.py"
    parser.add_argument("--root", help="the folder that holds the split folders (data.root)")
    parser.add_argument("--config", help=f"a TOML file, or a recipe: {', '.join(loading.recipes())}")
    parser.add_argument("--accuracy", type=float, required=True, help="of validation, in (0, 1]")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    arguments, flags = parser.parse_with_settings(argv)
    if not 0 < arguments.accuracy <= 1 or arguments.seeds < 1:
        parser.error("--accuracy takes a number in (0, 1], and --seeds one of at least 1")
    given = [] if arguments.config is None else [loading.read_toml(loading.find_config(arguments.config))]
    root = [] if arguments.root is None else [loading.read_texts([("data.root", arguments.root)])]
    return loading.merge(*given, *root, flags), arguments.accuracy, arguments.seeds


def with_seed(config: Config, seed: int, folder: Path) -> Config:
    """The configuration with another seed, and a cache of its own in `folder`."""
    return replace(
        config,
        data=replace(config.data, cache_dir=str(folder / f"cache-{seed}")),
        train=replace(config.train, seed=seed),
        device=replace(config.device, compilation_cache=False),
        logging=replace(config.logging, progress=False),
    )


def train(config: Config, workdir: Path, started: float) -> Run:
    """Train in this process, which was asked for at `started` (seconds, `time.time()`)."""
    import jax

    from jaxfood import train_and_evaluate
    from jaxfood.runs.directory import METRICS
    from jaxfood.training.logbook import read_metrics

    jax.config.update("jax_enable_compilation_cache", False)  # also where the environment names one
    try:
        cli.set_up_jax(config.device)
        start = time.time() - started
        summary = train_and_evaluate(config, workdir)
    except UserError as error:  # its subclasses do not all pass from process to process
        raise UserError(str(error)) from None
    return Run(config.train.seed, machine(), read_metrics(workdir / METRICS), {"start": start} | summary["seconds"])


def reached(run: Run, accuracy: float) -> Reached:
    """When a run's validation first had this accuracy. Saving is counted as its mean for each epoch before."""
    setting_up = sum(run.seconds[work] for work in SETTING_UP)
    saving = run.seconds["save"] / len(run.records)
    training = 0.0
    for record in run.records:
        training += record["seconds"]
        if record["valid_accuracy"] >= accuracy:
            return Reached(record["epoch"], training, setting_up)
        training += saving
    return Reached(math.inf, math.inf, setting_up)


def report(runs: Sequence[Run], accuracy: float, config: Config) -> list[str]:
    """The table: a row for each seed, and their medians."""
    found = []
    for run in runs:
        when = reached(run, accuracy)
        best = max(record["valid_accuracy"] for record in run.records)
        found.append([when.epoch, when.in_all, when.training, *(run.seconds[work] for work in SETTING_UP), best])
    found.append([statistics.median(column) for column in zip(*found, strict=True)])
    names = [*(str(run.seed) for run in runs), "median"]
    header = ("seed", "epoch", "seconds with decode and compile", "without", *SETTING_UP, "best accuracy")
    forms = ["g", *[".1f"] * (2 + len(SETTING_UP)), ".4f"]
    return [
        f"{runs[0].machine}\n{versions()}",
        f"validation accuracy {accuracy:g}; {config.data.image_size} px, batch {config.train.batch_size}, "
        f"{config.model.dtype}, {config.optimizer.name}, at most {config.train.epochs} epochs\n",
        *table(header, ([name, *map(spelled, row, forms)] for name, row in zip(names, found, strict=True))),
    ]


def spelled(number: float, form: str) -> str:
    return "never" if math.isinf(number) else f"{number:{form}}"


if __name__ == "__main__":
    cli.run(main)
