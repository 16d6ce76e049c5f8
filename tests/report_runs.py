"""Runs and evaluations for the tests of reports, written down and not trained."""

import dataclasses
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jaxfood.config import Config, load_config
from jaxfood.config.loading import to_toml
from jaxfood.report.figures import Figure

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quotes\" & 'more' --> {0}",
    "红烧肉 食べ物",
    "a\u202egnp\u2066 שלום",
)


def small_config(*overrides: str) -> Config:
    """A small network, for counting its parameters quickly."""
    small = ("model.name=resnet", "model.width=8", "model.blocks=1", "model.num_classes=5", "data.image_size=32")
    return load_config(None, (*small, "optimizer.name=adamw", "train.epochs=4", *overrides))


def record(epoch: int, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl as a training writes it: the best validation accuracy is that of epoch 3."""
    return {
        "epoch": epoch,
        "step": epoch * 7,
        "train_loss": 2.0 / epoch,
        "train_accuracy": 0.5 + 0.01 * (epoch % 40),
        "valid_loss": 1.5 + 0.25 / epoch,
        "valid_accuracy": 0.625 if epoch == 3 else 0.5,
        "learning_rate": 0.001 / epoch,
        "grad_norm": 1.25,
        "seconds": 2.5,
        "images_per_second": 120.0,
        **more,
    }


def make_run(
    folder: Path,
    config: Config | None = None,
    records: Sequence[dict[str, Any]] | None = None,
    classes: Sequence[str] = HOSTILE,
) -> Path:
    """A run's directory with all that a report reads, but no checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config or small_config()), encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    (folder / "run.json").write_text('{"format": 1, "jaxfood": "0.1.0"}')
    records = [record(epoch) for epoch in (1, 2, 3, 4)] if records is None else records
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (folder / "log.txt").write_text(
        f"{folder}: 21 training and 9 validation pictures of 5 classes, 32 px; jaxfood 0.1.0, jax 0.10.2 on 1 cpu "
        "device\n 0 </pre><script>alert(3)</script>  7  3\n"
        "best: accuracy 0.6250 in epoch 3\n"
        "time: decode 1.5 s, compile 0.5 s, train 7.0 s, validate 0.5 s, other 0.5 s\n",
        encoding="utf-8",
    )
    return folder


SIDE = [place / 5 for place in range(-5, 6)]


def saddle(x: float, y: float) -> float | None:
    """A loss over a plane; none at one corner."""
    return None if (x, y) == (1, 1) else round(2 + x * x - y * y / 2, 6)


def add_landscape(run: Path, **more: Any) -> None:
    """RUN/landscape, as `python -m jaxfood.landscape` leaves it."""
    (run / "landscape").mkdir()
    numbers = {
        "samples": 6,
        "images": "valid/<b>x</b>",
        "verdict": "saddle",
        "reason": "the smallest eigenvalue is negative",
        "remedy": "leaving it",
        "loss": 1.0907,
        "gradient_norm": 0.3208,
        "promised_decrease": 0.1,
        "largest_eigenvalue": 94.25,
        "largest_residual": 0.114,
        "smallest_eigenvalue": -14.14,
        "smallest_residual": 0.124,
        "trace": {"value": -13.9, "standard_error": 5.8},
        "minimum_ratio": {"value": 0.498, "low": 0.25, "high": 0.75},
        "sharpness": {"radius": 0.05, "rise": 0.0166},
        "plane": {"steps": SIDE, "other_steps": SIDE, "losses": [[saddle(x, y) for y in SIDE] for x in SIDE]},
        **more,
    }
    (run / "landscape" / "landscape.json").write_text(json.dumps(numbers))
    for name in ("spectrum", "lines", "plane"):
        (run / "landscape" / f"landscape-{name}.png").write_bytes(png())


def png(size: tuple[int, int] = (300, 80)) -> bytes:
    """A small picture."""
    content = io.BytesIO()
    Image.new("RGB", size, (200, 120, 40)).save(content, "PNG")
    return content.getvalue()


def evaluation(classes: Sequence[str] = HOSTILE) -> dict[str, Any]:
    """What evaluation.json holds; one class has no picture."""
    numbers, count = random.Random(0), len(classes)
    confusion = [[numbers.randrange(4) + 20 * (row == column) for column in range(count)] for row in range(count)]
    confusion[-1] = [0] * count
    scores = [
        {"name": name, "precision": 0.8125, "recall": 0.75 if sum(row) else None, "f1": 0.78, "support": sum(row)}
        for name, row in zip(classes, confusion, strict=True)
    ]
    bins = [
        {"low": place / 5, "high": (place + 1) / 5, "pictures": place, "confidence": 0.1 + place / 5, "accuracy": 0.9}
        for place in range(1, 5)
    ]
    empty = {"low": 0.0, "high": 0.2, "pictures": 0, "confidence": None, "accuracy": None}
    return {
        "format": 1,
        "images": "valid/<i>",
        "accuracy": 0.6875,
        "accuracy_low": 0.6125,
        "accuracy_high": 0.7525,
        "top3_accuracy": 0.9125,
        "loss": 0.9876,
        "expected_calibration_error": 0.0425,
        "pictures": sum(map(sum, confusion)),
        "balanced_accuracy": 0.6625,
        "classes": scores,
        "confusion": confusion,
        "reliability": [empty, *bins],
        "confident_mistakes": [{"file": HOSTILE[0], "truth": HOSTILE[1], "answer": HOSTILE[4], "probability": 0.998}],
        "suspected_labels": {
            "count": 1,
            "first": [{"file": HOSTILE[2], "label": HOSTILE[3], "self_confidence": 0.015}],
        },
        "repeats": {"copies": 1, "groups": [["a.jpg", HOSTILE[0]]]},
        "remarks": [f"a remark on {HOSTILE[1]}"],
        "a_later_key": {"inside": 12345.0},
    }


def figures() -> list[Figure]:
    """Two sheets, one whose words are hostile."""
    return [
        Figure("mistakes", "Mistakes", "What was answered wrongly.", png((1600, 400)), "A sheet of photographs"),
        Figure("hostile", HOSTILE[0], HOSTILE[1], png()),
    ]


def with_epochs(config: Config, epochs: int) -> Config:
    """A configuration of so many epochs."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))
