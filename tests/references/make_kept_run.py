"""Writes kept_run.tar.gz: a small run of this version with its pictures, which every later version must read.

    python tests/references/make_kept_run.py tests/references/kept_run_1.tar.gz

The number in the name is the format of a run on disk (`jaxfood.runs.directory.FORMAT`). Make a new one beside the old
ones when that number rises, and never again for the same number: what it shows is that files of the past are read.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from jaxfood.config import load_config
from jaxfood.model import classifier
from jaxfood.predict import main as predict
from jaxfood.train import train_and_evaluate


def main() -> None:
    """Draw, train, pack."""
    classifier.FEATURES, classifier.HIDDEN = (8, 8, 8, 8, 8), (16, 8)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        for split, count in (("train", 12), ("valid", 6), ("test", 3)):
            (base / "food" / split).mkdir(parents=True)
            for number in range(count):
                name = f"{number:04}" if split == "test" else f"{number % 3}_{number}"
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(base / "food" / split / f"{name}.png")
        settings = (
            "data.image_size=32",
            "train.batch_size=8",
            "train.epochs=2",
            "device.count=1",
            "optimizer.name=sgd",
        )
        config = load_config(None, (f"data.root={base / 'food'}", *settings, "logging.progress=false"))
        train_and_evaluate(config, base / "run")
        predict([str(base / "run"), "--images", str(base / "food/test"), "--out", str(base / "submission.csv")])
        for name in (".lock", "log.txt"):
            (base / "run" / name).unlink(missing_ok=True)
        toml = base / "run/config.toml"
        toml.write_text(toml.read_text().replace(str(base / "food"), "/nowhere/food"))
        with tarfile.open(sys.argv[1], "w:gz") as packed:
            for name in ("food", "run", "submission.csv"):
                packed.add(base / name, name)


if __name__ == "__main__":
    main()
