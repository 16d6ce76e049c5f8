"""What each ingredient of a recipe gives: the recipe with and without it, by seed, on its validation pictures.

    python scripts/benchmarks/ingredients.py --images DIR --out DIR [--seeds 3] [--only NAME ...]

Every line is a training in a process of its own, in --out; one that is there is not made again, so the script goes on
where it was stopped. The recipe is a short form of `quick`: one size, the same ingredients but for TrivialAugment and
the moving average, which are lines of their own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from measuring import alone, machine, print_table, versions

from jaxfood import Config, cli
from jaxfood.config import loading
from jaxfood.evaluation.comparison import compare

RECIPE: Mapping[str, Any] = {
    "data.source": "folder",
    "data.image_size": 64,
    "augment.resized_crop": 0.35,
    "augment.flip": True,
    "model.name": "resnet",
    "train.epochs": 25,
    "train.patience": 25,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 3e-3,
    "optimizer.weight_decay": 0.05,
    "optimizer.decay_biases_and_norms": False,
    "schedule.name": "warmup_cosine",
    "loss.label_smoothing": 0.1,
}
INGREDIENTS: Mapping[str, Mapping[str, Any]] = {
    "the recipe": {},
    "without flip": {"augment.flip": False},
    "without resized_crop": {"augment.resized_crop": 0.0},
    "crop by 6 in its place": {"augment.resized_crop": 0.0, "augment.crop": 6},
    "resized_crop from 0.15": {"augment.resized_crop": 0.15},
    "with trivial": {"augment.trivial": True},
    "with jitter 0.3": dict.fromkeys(("augment.brightness", "augment.contrast", "augment.saturation"), 0.3),
    "with erase 0.25": {"augment.erase": 0.25},
    "with mixup and cutmix": {"augment.mixup": 0.4, "augment.cutmix": 1.0, "augment.mix_share": 0.8},
    "without label smoothing": {"loss.label_smoothing": 0.0},
    "without weight decay": {"optimizer.weight_decay": 0.0},
    "decay of biases and norms too": {"optimizer.decay_biases_and_norms": True},
    "constant rate of 1e-3": {"schedule.name": "constant", "optimizer.learning_rate": 1e-3},
    "the notes' Adam and rate": {
        "schedule.name": "constant",
        "optimizer.name": "adam",
        "optimizer.learning_rate": 3e-4,
        "optimizer.weight_decay": 1e-5,
    },
    "nesterov, rate 0.05, decay 5e-4": {
        "optimizer.name": "nesterov",
        "optimizer.learning_rate": 0.05,
        "optimizer.weight_decay": 5e-4,
    },
    "muon": {"optimizer.name": "muon"},
    "muon, rate 6e-3": {"optimizer.name": "muon", "optimizer.learning_rate": 6e-3},
    "ema 0.99": {"train.ema_decay": 0.99},
    "ema 0.998": {"train.ema_decay": 0.998},
    "sharpness-aware every other step": {"train.sam_radius": 0.05, "train.sam_every": 2},
    "dropout 0.2": {"model.dropout": 0.2},
    "width 24": {"model.width": 24},
    "width 48": {"model.width": 48},
    "no residual blocks": {"model.blocks": (0, 0, 0)},
    "two blocks a stage": {"model.blocks": (2, 2, 2)},
    "96 px": {"data.image_size": 96},
    "64, then 96 px": {"data.image_size": 96, "train.image_sizes": (64, 96)},
    "the notes' network": {"model.name": "classifier"},
    "resnet18 with a small stem": {"model.name": "resnet18", "model.stem": "small"},
}


class Result(NamedTuple):
    """Of a training.

    Attributes:
        accuracy: of the best epoch.
        last: accuracy of the last epoch, which no choice among epochs flatters.
        seconds: of updates and validation.
        right: for each validation picture whether the best weights answer it right.
    """

    accuracy: float
    last: float
    seconds: float
    right: list[bool]


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.Parser("ingredients", str(__doc__).splitlines()[0])
    parser.prog = "python scripts/benchmarks/ingredients.py"
    parser.add_argument("--images", required=True, help="the folder that holds train and valid (data.root)")
    parser.add_argument("--out", required=True, type=Path, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, default=1, help="how many trainings of each (default: 1)")
    parser.add_argument("--only", nargs="+", choices=tuple(INGREDIENTS), default=tuple(INGREDIENTS), metavar="NAME")
    arguments, flags = parser.parse_with_settings(argv)
    print(alone(machine), versions(), sep="\n", flush=True)
    results: dict[str, list[Result]] = {}
    for seed in range(1, arguments.seeds + 1):
        for name in dict.fromkeys(["the recipe", *arguments.only]):
            given = {**RECIPE, **INGREDIENTS[name], "data.root": arguments.images, "train.seed": seed}
            run = arguments.out / f"{name.replace(' ', '_')}-{seed}"
            result = result_of(run, loading.merge(as_source(given), flags))
            results.setdefault(name, []).append(result)
            print(f"{name}, seed {seed}: {result.accuracy:.4f}, {result.seconds:.0f} s", flush=True)
    print()
    print_table(("", "best epoch", "each seed", "last epoch", "against the recipe", "p", "seconds"), rows(results))


def as_source(settings: Mapping[str, Any]) -> loading.Source:
    values: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, _, field = name.partition(".")
        values.setdefault(section, {})[field] = value
    return loading.Source("recipe", values)


def result_of(run: Path, config: Config) -> Result:
    """The result of a training that is there, or of a new one, in a process of its own."""
    file = run.with_name(f"{run.name}.json")
    if not file.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(alone(train, run, config)._asdict()))
    return Result(**json.loads(file.read_text()))


def train(run: Path, config: Config) -> Result:
    """Train, and let the best weights answer the validation pictures."""
    from jaxfood import predict_probabilities, train_and_evaluate
    from jaxfood.data.index import index_pictures
    from jaxfood.runs.directory import METRICS, is_run, read_classes

    cli.set_up_jax(config.device)
    summary = train_and_evaluate(config, run, overwrite=is_run(run))
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    valid = index_pictures(Path(config.data.root) / config.data.valid, read_classes(run))
    answers = predict_probabilities([run], valid, progress=False).argmax(1)
    return Result(
        accuracy=summary["best_accuracy"],
        last=json.loads(lines[-1])["valid_accuracy"],
        seconds=sum(json.loads(line)["seconds"] for line in lines),
        right=(answers == valid.labels).tolist(),
    )


def rows(results: Mapping[str, Sequence[Result]]) -> list[tuple[object, ...]]:
    """A row for each ingredient, the mean over the seeds."""
    recipe = results["the recipe"]
    return [
        (
            name,
            f"{mean(each.accuracy for each in found):.3f}",
            ", ".join(f"{each.accuracy:.3f}" for each in found),
            f"{mean(each.last for each in found):.3f}",
            f"{100 * mean(a.accuracy - b.accuracy for a, b in zip(found, recipe, strict=True)):+.1f}",
            "" if found is recipe else f"{chance(found, recipe):.2f}",
            f"{mean(each.seconds for each in found):.0f}",
        )
        for name, found in results.items()
    ]


def chance(found: Sequence[Result], recipe: Sequence[Result]) -> float:
    """McNemar's exact test over all seeds' answers: the chance of a difference as large between equally good ones.

    The pictures are the same for every seed, so that it is a little too sure where there are several.
    """
    first, this = (np.concatenate([each.right for each in results]).astype(bool) for results in (recipe, found))
    return compare(first, this).p_value


if __name__ == "__main__":
    cli.run(main)
