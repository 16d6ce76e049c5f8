"""Pictures read from disk against pictures that lie on the device: memory, speed, and whether they are the same.

    python scripts/benchmark_streaming.py [--pictures 1000] [--image_size 128] [--batch_size 64] [--steps 3]
        [--rounds 3]

The pictures are the drawn demo pictures, each under many names, in a folder that is removed in the end.

Memory: the largest resident size of a process of its own that loads the folder, decoded before, and takes all batches
of two epochs, of so many pictures and of ten times as many; nothing is trained. On a CPU it counts "the device" too.

Speed: the ways take turns, of an epoch of batches alone or of some updates; the median of the turns is printed.
"resident" gathers on the device; "streamed" (`data.resident = false`) reads the decoded pictures from the cache; "tfds"
decodes JPEGs each time. What was read once is mostly still in the system's own cache of files, as it is in a training
whose pictures fit into the machine's free memory.
"""

import argparse
import importlib.util
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import alone, machine, versions

from jaxfood.config import Config, load_config
from jaxfood.data.batches import epoch_order, make_batches
from jaxfood.data.demo import demo_root
from jaxfood.data.splits import load_splits
from jaxfood.data.tfds import prepare_food11
from jaxfood.devices import compile_step, make_mesh, on_every_device
from jaxfood.model.networks import init_variables
from jaxfood.training.metrics import zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_update

Batches = Iterator[dict[str, jax.Array]]
Turn = Callable[[], int]  # works, and returns the number of pictures
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000, help="the smaller number of pictures")
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="updates in a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    arguments = parser.parse_args()
    print(f"{machine()}\n{versions()}\nbatch {arguments.batch_size}, {arguments.image_size} px\n")
    with tempfile.TemporaryDirectory() as folder:
        small, large = (make_ways(Path(folder), count, arguments) for count in (1, 10))
        print_memory(small, large, arguments)
        check_same(small["resident"], small["streamed"])
        print("resident and streamed: the same pictures, labels and masks in the same order over two epochs\n")
        print_speed(small, arguments)


def make_ways(folder: Path, times: int, arguments: argparse.Namespace) -> dict[str, Config]:
    """The ways to read so many times `--pictures`, which are drawn and decoded here; tfds where it is installed."""
    root, cache = folder / f"{times}", folder / "cache"
    draw(root, times * arguments.pictures)
    settings = [f"data.image_size={arguments.image_size}", f"train.batch_size={arguments.batch_size}"]
    settings += [f"data.cache_dir={cache}", "device.count=1", "logging.progress=false"]
    ways = {
        "resident": load_config(None, [*settings, f"data.root={root}"]),
        "streamed": load_config(None, [*settings, f"data.root={root}", "data.resident=false"]),
    }
    alone(peak_memory, ways["streamed"])
    if times == 1 and importlib.util.find_spec("tensorflow_datasets"):
        prepare_food11(root, folder / "tfds")
        ways["tfds"] = load_config(None, [*settings, f"data.root={folder / 'tfds'}", "data.source=tfds:food11"])
    return ways


def print_memory(small: dict[str, Config], large: dict[str, Config], arguments: argparse.Namespace) -> None:
    count = arguments.pictures
    print(f"| peak memory, MiB | {count} pictures | {10 * count} pictures | growth |\n|---|---|---|---|")
    for way, config in large.items():
        peaks = [alone(peak_memory, each) / MIB for each in (small[way], config)]
        print(f"| {way} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] - peaks[0]:.0f} |", flush=True)
    print(f"(the pictures between them: {9 * count * 3 * arguments.image_size**2 / MIB:.0f} MiB)\n")


def print_speed(ways: dict[str, Config], arguments: argparse.Namespace) -> None:
    print(f"| images/s | {' | '.join(ways)} |\n|---{'|---' * len(ways)}|")
    for kind, make in (("batches alone", taking), ("training", partial(training, steps=arguments.steps))):
        measured = rates({way: make(config) for way, config in ways.items()}, arguments.rounds)
        print(f"| {kind} | {' | '.join(f'{rate:.4g}' for rate in measured.values())} |", flush=True)


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


def two_epochs(config: Config) -> Batches:
    pictures = load(config)
    for epoch in range(2):
        order = epoch_order(config.train.seed, epoch, pictures.size)
        yield from pictures.batches(order, config.train.batch_size)


def peak_memory(config: Config) -> int:
    """Bytes that this process held at most."""
    for batch in two_epochs(config):
        jax.block_until_ready(batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_same(*configs: Config) -> None:
    for batches in zip(*(two_epochs(config) for config in configs), strict=True):
        for other in batches[1:]:
            jax.tree.map(np.testing.assert_array_equal, other, batches[0])


def rates(turns: dict[str, Turn], rounds: int) -> dict[str, float]:
    """Pictures a second of each way; its first turn is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in turns}
    for _ in range(1 + rounds):
        for way, turn in turns.items():
            start = time.perf_counter()
            pictures = turn()
            seconds[way].append((time.perf_counter() - start) / pictures)
    return {way: 1 / statistics.median(values[1:]) for way, values in seconds.items()}


def taking(config: Config) -> Turn:
    """A turn takes the batches of an epoch, and does nothing with them."""
    pictures = load(config)

    def turn() -> int:
        for batch in pictures.batches(epoch_order(config.train.seed, 0, pictures.size), config.train.batch_size):
            jax.block_until_ready(batch)
        return pictures.size

    return turn


def training(config: Config, steps: int) -> Turn:
    """A turn is an epoch of so many updates, from the first read to the last result."""
    pictures, mesh = load(config), make_mesh(config.device)
    state = TrainState.create(config, init_variables(config), total_steps=1000)
    state, sums = on_every_device((state, zero_sums(updates=True)), mesh)
    order = epoch_order(config.train.seed, 0, pictures.size)[: steps * config.train.batch_size]
    batch = next(pictures.batches(order, config.train.batch_size))
    update = compile_step(add_update, config, mesh, (state, sums, batch), donate=(0, 1))

    def turn() -> int:
        nonlocal state, sums
        for batch in pictures.batches(order, config.train.batch_size):
            state, sums = update(state, sums, batch)
        jax.block_until_ready(sums)
        return len(order)

    return turn


if __name__ == "__main__":
    main()
