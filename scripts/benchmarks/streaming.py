"""Pictures read from disk against pictures that lie on the device: memory, speed, and whether they are the same.

    python scripts/benchmarks/streaming.py [--pictures 1000] [--image_size 128] [--batch_size 64] [--steps 3]
        [--rounds 3]

The pictures are the drawn demo pictures, each under many names, in a folder that is removed in the end.

Memory: the largest resident size of a process of its own that loads the folder, decoded before, and takes all batches
of two epochs, of so many pictures and of ten times as many; nothing is trained. On a CPU it counts "the device" too.

Speed: the sources take turns, of an epoch of batches alone or of some updates; the median of the turns is printed.
"resident" gathers on the device; "streamed" (`data.resident = false`) reads the decoded pictures from the cache; "tfds"
decodes JPEGs each time. What was read once is mostly still in the system's own cache of files, as it is in a training
whose pictures fit into the machine's free memory.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import Parser, Work, alone, in_turns, peak_memory, positive, print_setting, print_table

from jaxfood import Config, TrainState, load_config, train_step
from jaxfood.data.batches import epoch_order, make_batches
from jaxfood.data.demo import demo_root
from jaxfood.data.splits import load_splits
from jaxfood.data.tfds import prepare_food11
from jaxfood.devices import make_mesh, on_every_device
from jaxfood.model.networks import init_variables

MIB = 2**20


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--pictures", type=positive, default=1000, help="the smaller number of pictures")
    parser.add_argument("--steps", type=positive, default=3, help="updates in a turn")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each source")
    parser.add_numbers(image_size=128, batch_size=64)
    arguments = parser.parse_args()
    print_setting(f"batch {arguments.batch_size}, {arguments.image_size} px\n")
    with tempfile.TemporaryDirectory() as folder:
        small, large = (make_sources(Path(folder), count, arguments) for count in (1, 10))
        print_memory(small, large, arguments)
        check_same(small["resident"], small["streamed"])
        print("resident and streamed: the same pictures, labels and masks in the same order over two epochs\n")
        print_speed(small, arguments)


def make_sources(folder: Path, times: int, arguments: Namespace) -> dict[str, Config]:
    """Where so many times `--pictures`, drawn and decoded here, are read from; tfds too where it is installed."""
    root = folder / f"{times}"
    draw(root, times * arguments.pictures)
    settings = [
        "model.num_classes=11",
        f"data.image_size={arguments.image_size}",
        f"train.batch_size={arguments.batch_size}",
    ]
    settings += [f"data.cache_dir={folder / 'cache'}", "device.count=1", "logging.progress=false"]
    sources = {
        "resident": load_config(None, [*settings, f"data.root={root}"]),
        "streamed": load_config(None, [*settings, f"data.root={root}", "data.resident=false"]),
    }
    alone(peak_of_two_epochs, sources["streamed"])
    if times == 1 and find_spec("tensorflow_datasets"):
        prepare_food11(root, folder / "tfds")
        sources["tfds"] = load_config(None, [*settings, f"data.root={folder / 'tfds'}", "data.source=tfds:food11"])
    return sources


def print_memory(small: dict[str, Config], large: dict[str, Config], arguments: Namespace) -> None:
    def rows() -> Iterator[tuple[str, ...]]:
        for name, config in large.items():
            few, many = (alone(peak_of_two_epochs, each) / MIB for each in (small[name], config))
            yield name, f"{few:.0f}", f"{many:.0f}", f"{many - few:.0f}"

    count = arguments.pictures
    print_table(("peak memory, MiB", f"{count} pictures", f"{10 * count} pictures", "growth"), rows())
    print(f"(the pictures between them: {9 * count * 3 * arguments.image_size**2 / MIB:.0f} MiB)\n")


def print_speed(sources: dict[str, Config], arguments: Namespace) -> None:
    def rates(kind: str, make: Callable[[Config], tuple[int, Work]]) -> tuple[str, ...]:
        counts, works = zip(*map(make, sources.values()), strict=True)
        medians = in_turns(dict(zip(sources, works, strict=True)), arguments.rounds)
        return kind, *(f"{n / seconds.clock:.4g}" for n, seconds in zip(counts, medians.values(), strict=True))

    kinds = (("batches alone", taking), ("training", partial(training, steps=arguments.steps)))
    print_table(("images/s", *sources), (rates(*kind) for kind in kinds))


def draw(root: Path, count: int) -> None:
    """`count` training pictures, a tenth as many for validation: the demo's, under new names."""
    for split, pictures in (("train", count), ("valid", max(11, count // 10))):
        (root / split).mkdir(parents=True)
        originals = sorted((demo_root() / split).iterdir())
        for number, original in enumerate(islice(cycle(originals), pictures)):
            label = original.name.partition("_")[0]
            (root / split / f"{label}_{number}.jpg").symlink_to(original)


def load(config: Config) -> Any:
    """The training pictures on their device, or ready to be read."""
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=False)
    return make_batches(splits.train, make_mesh(config.device))


def two_epochs(config: Config) -> Iterator[dict[str, jax.Array]]:
    pictures = load(config)
    for epoch in range(2):
        order = epoch_order(config.train.seed, epoch, pictures.size)
        yield from pictures.batches(order, config.train.batch_size)


def peak_of_two_epochs(config: Config) -> int:
    """Bytes that this process held at most."""
    for batch in two_epochs(config):
        jax.block_until_ready(batch)
    return peak_memory()


def check_same(*configs: Config) -> None:
    for batches in zip(*(two_epochs(config) for config in configs), strict=True):
        for other in batches[1:]:
            jax.tree.map(np.testing.assert_array_equal, other, batches[0])


def taking(config: Config) -> tuple[int, Work]:
    """The pictures of an epoch, and work that takes its batches and does nothing with them."""
    pictures = load(config)
    order = epoch_order(config.train.seed, 0, pictures.size)

    def work() -> None:
        for batch in pictures.batches(order, config.train.batch_size):
            jax.block_until_ready(batch)

    return pictures.size, work


def training(config: Config, steps: int) -> tuple[int, Work]:
    """The pictures of so many updates, and work that makes them, from the first read to the last result."""
    pictures = load(config)
    order = epoch_order(config.train.seed, 0, pictures.size)[: steps * config.train.batch_size]
    state = TrainState.create(config, init_variables(config), total_steps=1000)
    state = on_every_device(state, make_mesh(config.device))  # as the batches are: else the step is compiled twice

    def work() -> None:
        nonlocal state
        for batch in pictures.batches(order, config.train.batch_size):
            state, _ = train_step(state, batch)
        jax.block_until_ready(state)

    return len(order), work


if __name__ == "__main__":
    main()
