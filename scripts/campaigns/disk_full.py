"""A full disk while training, at many sizes: is it said in one line, and does the run go on to the same bits?

    python scripts/campaigns/disk_full.py --count 20

A process trains three epochs with five checkpoints. Before one of them, or before everything, the system is told to
let no file grow beyond a number of bytes (RLIMIT_FSIZE, drawn between one byte and more than the largest file has): to
a program that is what a full disk is. The training must end with exit status 2 and one line, or be done in spite of it;
every checkpoint that stands must be whole; and once the limit is lifted `--resume` must end with the bits of an
undisturbed run. Takes half a minute a trial.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from campaign import REFUSED, RIGHT, Parser, finish, print_setting
from PIL import Image

from jaxfood.errors import UserError

SAVES = 5
GONE_ON = "refused, then gone on to the same bits"


def main() -> None:
    """Train undisturbed, then with limits; compare; print."""
    if sys.argv[1:2] == ["train"]:
        train(*sys.argv[2:])
        return
    arguments = Parser(__doc__, count=20).parse_args()
    print_setting()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_pictures(root / "food")
        status, said = start(root, "undisturbed", "new")
        if status:
            sys.exit(f"the undisturbed run ended with {status}: {said}")
        expected = last_bits(root / "undisturbed")
        largest = max(path.stat().st_size for path in (root / "undisturbed").rglob("*") if path.is_file())
        for number in range(arguments.count):
            draw = random.Random(f"{arguments.seed} {number}")
            limit, save = round(np.exp(draw.uniform(0, np.log(1.2 * largest)))), number % (SAVES + 1)
            outcome = attack(root, f"run{number}", limit, save, expected)
            outcomes[outcome] += 1
            print(f"{limit:,} bytes from save {save} on: {outcome}", flush=True)
    finish(outcomes, GONE_ON)


def attack(root: Path, name: str, limit: int, save: int, expected: bytes) -> str:
    """One training under a limit, and what becomes of it."""
    status, said = start(root, name, "new", limit, save)
    if status == 0:
        return RIGHT if last_bits(root / name) == expected else "done, with other bits"
    if status != 2 or len(said.strip().splitlines()) != 1:
        return f"ended with {status}: {said[-2000:]!r}"
    print(f"    {said.strip()}")
    if broken := not_whole(root / name):
        return f"lost: {broken}"
    if not (root / name / "config.toml").exists():
        return REFUSED  # before anything began
    status, said = start(root, name, "resume")
    if status:
        return f"lost: --resume ended with {status}: {said[-2000:]!r}"
    return GONE_ON if last_bits(root / name) == expected else "lost: gone on to other bits"


def not_whole(run: Path) -> str:
    """What is wrong with the checkpoints that stand, or ""."""
    from jaxfood.runs.directory import kept_steps, load_run

    try:
        for step in kept_steps(run) if (run / "config.toml").exists() else ():
            load_run(run, step)
    except UserError as error:
        return str(error)
    return ""


def last_bits(run: Path) -> bytes:
    """The whole state at the last checkpoint."""
    import jax

    from jaxfood.training.saved import load_state

    narrow()
    state, _ = load_state(run, "last")
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))


def start(root: Path, name: str, how: str, limit: int = -1, save: int = 0) -> tuple[int, str]:
    """Train in a process of its own: its exit status and what it said on standard error."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    words = (sys.executable, __file__, "train", str(root), name, how, str(limit), str(save))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


def train(root: str, name: str, how: str, limit: str, save: str) -> None:
    """What that process does."""
    from jaxfood import cli
    from jaxfood.config import load_config
    from jaxfood.runs.checkpoints import Checkpoints
    from jaxfood.train import train_and_evaluate

    narrow()
    saves, save_one = 0, Checkpoints.save

    def set_limit() -> None:
        if int(limit) >= 0 and saves == int(save):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))

    def count(checkpoints: Checkpoints, *arguments: object, **options: object) -> None:
        nonlocal saves
        saves += 1
        set_limit()
        save_one(checkpoints, *arguments, **options)  # type: ignore[arg-type]

    Checkpoints.save = count  # type: ignore[method-assign,assignment]
    settings = (
        f"data.root={root}/food",
        "data.image_size=32",
        "model.num_classes=3",
        "train.batch_size=8",
        "train.epochs=3",
        "checkpoint.every=2",
        "device.count=1",
        "logging.progress=false",
    )
    config = load_config(None, settings)
    set_limit()
    cli.run(lambda _: train_and_evaluate(config, Path(root) / name, resume=how == "resume") and None)


def narrow() -> None:
    """A classifier of few features, which trains in a moment."""
    from jaxfood.model import classifier

    classifier.FEATURES, classifier.HIDDEN = (8, 8, 8, 8, 8), (16, 8)


def draw_pictures(root: Path) -> None:
    """Three classes of seven pictures to train on and three to validate with."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("valid", 3)):
        (root / split).mkdir(parents=True)
        for label in range(3):
            for number in range(count):
                pixels = rng.integers(0, 120, (36, 44, 3))
                pixels[..., label] += 110
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / f"{label}_{number}.jpg")


if __name__ == "__main__":
    main()
