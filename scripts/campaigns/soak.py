"""Does memory, do threads or open files grow: over many tiny epochs of one run, and over many trainings in one process?

    python scripts/campaigns/soak.py --epochs 1000 --trainings 20

The second half of the time may use no more than the first: a tenth of memory is allowed, and three threads or files.
"""

import sys
import tempfile
import threading
from pathlib import Path

from campaign import Parser, draw_pictures, print_setting
from narrow import narrow

import jaxfood
from jaxfood.training import logbook


def main() -> None:
    """Train, read /proc, print."""
    parser = Parser(__doc__, count=1)
    parser.add_argument("--epochs", type=int, default=1000, help="of the one run (default: 1000)")
    parser.add_argument("--trainings", type=int, default=20, help="in one process (default: 20)")
    arguments = parser.parse_args()
    print_setting()
    narrow()
    print("| after | RSS MiB | threads | open files |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        root = draw_pictures(base / "food")
        by_epochs = over_epochs(root, base / "run", arguments.epochs)
        by_trainings = []
        for number in range(arguments.trainings):
            train(root, base / f"run{number}", 2)
            by_trainings.append(show(f"training {number + 1}"))
    grown = [name for name, usages in (("epochs", by_epochs), ("trainings", by_trainings)) if grows(usages)]
    print(f"grown over {' and '.join(grown)}" if grown else "nothing has grown")
    sys.exit(bool(grown))


def train(root: Path, workdir: Path, epochs: int) -> None:
    """One training."""
    settings = ("data.image_size=32", "train.batch_size=8", "device.count=1", "logging.progress=false")
    more = (f"train.epochs={epochs}", "train.patience=1000000")
    jaxfood.train_and_evaluate(jaxfood.load_config(None, (f"data.root={root}", *settings, *more)), workdir)


def over_epochs(root: Path, workdir: Path, epochs: int) -> list[tuple[float, int, int]]:
    """The usage every so many epochs of one run."""
    usages = []
    tell = logbook.Logbook.epoch

    def epoch(self: logbook.Logbook, record: dict, total: int, *, best: bool) -> None:
        if record["epoch"] % max(1, epochs // 20) == 0:
            usages.append(show(f"epoch {record['epoch']}"))

    logbook.Logbook.epoch = epoch  # type: ignore[method-assign]
    try:
        train(root, workdir, epochs)
    finally:
        logbook.Logbook.epoch = tell  # type: ignore[method-assign]
    return usages


def show(when: str) -> tuple[float, int, int]:
    """Resident memory in MiB, threads and descriptors now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    usage = pages * 4096 / 2**20, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    print(f"| {when} | {usage[0]:.0f} | {usage[1]} | {usage[2]} |", flush=True)
    return usage


def grows(usages: list[tuple[float, int, int]]) -> bool:
    """Whether the second half uses more than the first: a tenth of memory, or three threads or files."""
    half = len(usages) // 2
    first, second = ([max(values) for values in zip(*part, strict=True)] for part in (usages[1:half], usages[half:]))
    return second[0] > 1.1 * first[0] or second[1] > first[1] + 3 or second[2] > first[2] + 3


if __name__ == "__main__":
    main()
