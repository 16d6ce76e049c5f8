"""How the cost of what is done around the updates grows: with pictures, classes, devices and epochs.

    python scripts/benchmarks/growth.py [--axes pictures,classes,devices,epochs] [--pictures 1000,10000,100000,1000000]
        [--classes 2,100,1000,10000] [--devices 1,2,4,8] [--epochs 1,10,100,1000] [--folder DIR]

Each size has a process of its own, whose largest resident size is the last row. A work is done once. Its seconds are
those of a core, of all threads together, which hardly change when others use the machine too; waiting for the disk is
not in them. Growth is the power of the size that the largest two sizes show: 1 is a straight line, less is a cost that
does not depend on the size yet.

Pictures: `--pictures` names of 11 PNG files of 8 px, by hard links, in a folder that is removed in the end; they are
decoded to 8 px, so that 1,000,000 take 200 MB. Classes: labels of 100,000 pictures, and the scores of 2,000. Devices:
virtual ones of this CPU, so no update gets faster; eight shares of a batch of 64. Epochs: metric lines, pages and
checkpoints of a narrow network.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Parser, alone, numbers, peak_memory, print_setting, print_table, timed

Works = Iterator[tuple[str, Callable[[], Any]]]  # what each is called, and what is measured; one after another

CLASSES = 11
LINKS = 50_000  # of one file: ext4 allows 65,000
SCORED = 2000
SAVED = 20
LABELLED = 100_000
MIB = 2**20


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--axes", default=",".join(AXES), help="which of them, separated by commas")
    for axis, sizes in SIZES.items():
        parser.add_argument(f"--{axis}", type=numbers, default=sizes, help="sizes, ascending, separated by commas")
    parser.add_argument("--folder", default=None, help="where files are written, and removed")
    arguments = parser.parse_args()
    axes = arguments.axes.split(",")
    if unknown := [axis for axis in axes if axis not in AXES]:
        parser.error(f"--axes takes {', '.join(AXES)}, not {unknown[0]}")
    print_setting()
    for axis in axes:
        sizes = getattr(arguments, axis)
        columns = [alone(measure, axis, size, arguments.folder) for size in sizes]
        print(f"\n{axis}\n")
        header = ("seconds of a core", *(f"{size:,}" for size in sizes), "growth")
        print_table(header, ((name, *cells(sizes, [column[name] for column in columns])) for name in columns[0]))


def cells(sizes: Sequence[int], values: Sequence[float]) -> Iterator[str]:
    """A row: the values, and the power of the size by which they grew last."""
    yield from (f"{value:.3g}" for value in values)
    yield f"{growth(sizes, values):.2f}" if len(sizes) > 1 else ""


def growth(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The power p of `values ~ sizes ** p` between the last two."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(sizes[-1] / sizes[-2])


def measure(axis: str, size: int, folder: str | None) -> dict[str, float]:
    """Seconds of each work of an axis at a size, and the MiB that this process held."""
    from jaxfood import cli

    cli.collect_seldom()  # as in the commands
    seconds = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name, work in AXES[axis](size, Path(place)):
            seconds[name] = timed(work).core
    return {**seconds, "MiB in all": peak_memory() / MIB}


class Kept:
    """What a work returned, for the next."""

    value: Any = None

    def keep(self, work: Callable[[], Any]) -> Callable[[], None]:
        """The same work, whose result is kept."""

        def keeping() -> None:
            self.value = work()

        return keeping


def with_pictures(count: int, place: Path) -> Works:
    """What is done once with each picture of a folder, from finding it to its row in the run."""
    from jaxfood.data.batches import batches, epoch_order
    from jaxfood.data.cache import load_pictures
    from jaxfood.data.index import check_labels, index_pictures
    from jaxfood.data.records import class_remarks, doubles, record_split
    from jaxfood.runs.pictures import check_pictures, write_pictures

    link(count, place / "train")
    kept, loaded, recorded = Kept(), Kept(), Kept()
    yield "index the folder", kept.keep(partial(index_pictures, place / "train"))
    index = kept.value
    yield "check the labels", partial(check_labels, index, CLASSES)
    load = partial(load_pictures, index, 8, cache_dir=place / "cache", progress=False)
    yield "decode into the cache", loaded.keep(load)
    yield "find them in the cache", load
    yield "split off folds and shares", partial(split, index.labels, index.classes)
    yield "record them", recorded.keep(partial(record_split, "train", [index], [loaded.value]))
    records = recorded.value
    yield "look for doubles", lambda: list(doubles(records))
    yield "remarks on classes", lambda: list(class_remarks(records, index.classes, class_order="name", are_names=True))
    yield "write pictures.csv", partial(write_pictures, place, records)
    yield "compare with pictures.csv", partial(check_pictures, place, index.classes, records, index.classes)
    yield "order and batches of an epoch", lambda: list(batches(epoch_order(0, 1, count), 64))


def link(count: int, folder: Path) -> None:
    """So many pictures in class folders, of one content a class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        for number in range(count // CLASSES + (label < count % CLASSES)):
            path = folder / f"class{label}/{number:07}.png"
            if number % LINKS == 0:
                source = path
                picture.save(path)
            else:
                os.link(source, path)


def split(labels: np.ndarray, classes: Sequence[str]) -> None:
    from jaxfood.config.sections import DataConfig
    from jaxfood.data.shares import select

    select(labels, DataConfig(valid_fraction=0.1, fraction=0.5), classes, seed=0, folds=5, fold=1)


def with_classes(count: int, place: Path) -> Works:
    """What is done for every class."""
    from jaxfood.data.labels import label_names
    from jaxfood.data.records import PictureRecord, class_remarks, class_table
    from jaxfood.evaluation.mistakes import suspected_labels
    from jaxfood.evaluation.scores import score

    score(np.arange(2), np.eye(2, dtype=np.float32), ("a", "b"))  # imports scikit-learn and SciPy
    rng = np.random.default_rng(0)
    classes = tuple(f"class{label:05}" for label in range(count))
    labels = np.arange(LABELLED) % count
    names = [f"{classes[label]}/{number:06}.png" for number, label in enumerate(labels)]
    records = tuple(PictureRecord("train", *each, "") for each in zip(names, labels.tolist(), strict=True))
    yield "label by folders", partial(label_names, names, place)
    yield "split off folds and shares", partial(split, labels, classes)
    yield "remarks on classes", lambda: list(class_remarks(records, classes, class_order="name", are_names=True))
    yield "table of classes", partial(class_table, records, classes)
    logits = rng.standard_normal((SCORED, count), np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = rng.integers(0, count, SCORED)
    kept = Kept()
    yield "score 2,000 answers", kept.keep(partial(score, truth, probabilities, classes))
    yield "suspect their labels", partial(suspected_labels, truth, probabilities)
    yield "confusion as lists for JSON", kept.value.confusion.tolist


def with_devices(count: int, place: Path) -> Works:
    """An update on several devices."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    import jax

    from jaxfood.data.batches import epoch_order, make_batches
    from jaxfood.data.pictures import Pictures
    from jaxfood.devices import compile_step, make_mesh, on_every_device
    from jaxfood.training.metrics import zero_sums
    from jaxfood.training.step import add_update

    config = narrow()
    images = np.random.default_rng(0).integers(0, 256, (640, 32, 32, 3), np.uint8)
    pictures = Pictures(images, (np.arange(640) % CLASSES).astype(np.int32), tuple(map(Path, map(str, range(640)))))
    mesh = make_mesh(config.device)
    kept, compiled = Kept(), Kept()
    yield "put 640 pictures on them", kept.keep(partial(make_batches, pictures, mesh))
    feed, order = kept.value, epoch_order(0, 1, 640)
    yield "ten batches", lambda: jax.block_until_ready(list(feed.batches(order, 64)))
    state, sums = on_every_device((new_state(config), zero_sums(updates=True)), mesh)
    arguments = (state, sums, next(feed.batches(order, 64)))
    compile_ = partial(compile_step, add_update, config, mesh, arguments)
    yield "compile the update", compiled.keep(compile_)
    jax.block_until_ready(compiled.value(*arguments))
    yield "ten updates", lambda: jax.block_until_ready([compiled.value(*arguments) for _ in range(10)])


def with_epochs(count: int, place: Path) -> Works:
    """What is done once for each epoch."""
    from jaxfood.config.sections import LoggingConfig
    from jaxfood.report.html import write_training_report
    from jaxfood.runs.checkpoints import Checkpoints
    from jaxfood.runs.directory import begin, write_config
    from jaxfood.runs.progress import Progress
    from jaxfood.training.logbook import Logbook
    from jaxfood.training.metrics import zero_sums
    from jaxfood.training.saved import save_state

    config, workdir = narrow(), place / "run"
    begin(workdir, [str(label) for label in range(CLASSES)])
    write_config(workdir, config)
    state, sums = new_state(config), zero_sums(updates=True)

    def write_lines() -> None:
        logbook = Logbook(workdir, LoggingConfig(progress=False))
        for epoch in range(1, count + 1):
            logbook.metrics(a_record(epoch))
        logbook.close()

    def save_all() -> None:
        with Checkpoints(workdir, keep_best=2) as checkpoints:
            for epoch in range(1, min(count, SAVED) + 1):
                progress = Progress(64, 1, record=a_record(epoch))
                save_state(checkpoints, state.replace(step=epoch), sums, progress, accuracy=1 - 1 / epoch)

    yield "write metrics.jsonl", write_lines
    yield "open it to go on", lambda: Logbook(workdir, LoggingConfig(progress=False), step=count).close()
    yield f"save and prune checkpoints, {SAVED} at most", save_all
    yield "open the checkpoints", lambda: Checkpoints(workdir).__exit__(None, None, None)
    yield "write report.html once", partial(write_training_report, workdir)


def narrow() -> Any:
    """A configuration whose network has few parameters."""
    from jaxfood.config import load_config

    settings = ["data.image_size=32", "model.width=8", f"model.num_classes={CLASSES}", "train.epochs=1000"]
    return load_config(None, settings)


def new_state(config: Any) -> Any:
    from jaxfood.model.networks import init_variables
    from jaxfood.training.state import TrainState

    return TrainState.create(config, init_variables(config), total_steps=1000)


def a_record(epoch: int) -> dict[str, Any]:
    from jaxfood.training.metrics import epoch_record

    means = {"loss": 1 / epoch, "accuracy": 1 - 1 / epoch, "grad_norm": 1.0}
    return epoch_record(epoch, epoch, means, means, learning_rate=1e-3, seconds=1.0, images_per_second=64.0)


AXES: dict[str, Callable[[int, Path], Works]] = {
    "pictures": with_pictures,
    "classes": with_classes,
    "devices": with_devices,
    "epochs": with_epochs,
}
SIZES = {
    "pictures": (1000, 10_000, 100_000, 1_000_000),
    "classes": (2, 100, 1000, 10_000),
    "devices": (1, 2, 4, 8),
    "epochs": (1, 10, 100, 1000),
}

if __name__ == "__main__":
    main()
