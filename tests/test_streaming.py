"""Batches read from disk: the resident path's own, in a memory that does not grow."""

import dataclasses
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from jaxfood.config import Config
from jaxfood.config.sections import DataConfig, DeviceConfig
from jaxfood.data import batches
from jaxfood.data.batches import ResidentBatches, StreamedBatches, epoch_order, make_batches
from jaxfood.data.cached_pictures import CachedPictures
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.data.splits import Splits, load_splits
from jaxfood.data.threads import map_in_threads
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError
from jaxfood.train import train_and_evaluate

pytestmark = pytest.mark.usefixtures("narrow")

Load = Callable[..., Splits]


@pytest.fixture
def load(tiny_food: Path) -> Load:
    def load(num_classes: int = 3, **data: object) -> Splits:
        config = DataConfig(root=str(tiny_food), image_size=32, **data)  # type: ignore[arg-type]
        return load_splits(config, num_classes, seed=0, progress=False)

    return load


class Counted(StoredPictures):
    """`count` pictures of 2 x 2 pixels that tell their positions, and remember which were read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read_positions: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.read_positions += positions.tolist()
        return np.zeros((len(positions), 2, 2, 3), np.uint8), positions.astype(np.int32)


# The same batches.


@pytest.mark.parametrize("by_device", [False, True])
@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (1, 3), (8, 1), (8, 2)])
def test_batches_are_those_of_resident_pictures(
    devices: int, parts: int, by_device: bool, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_LEAST_ROWS", 3)  # so that several threads share a batch
    mesh = make_mesh(DeviceConfig(count=devices))
    resident, streamed = (
        make_batches(load(resident=resident).train, mesh, parts=parts, by_device=by_device)
        for resident in (True, False)
    )
    assert isinstance(resident, ResidentBatches)
    assert isinstance(streamed, StreamedBatches)
    assert streamed.size == resident.size == 21
    order = epoch_order(6666, 1, 21)
    for batch_size, start in itertools.product((8, 64), range(3)):
        pairs = zip(streamed.batches(order, batch_size, start), resident.batches(order, batch_size, start), strict=True)
        for ours, theirs in pairs:
            assert ours.keys() == theirs.keys()
            for name, rows in ours.items():
                assert rows.dtype == theirs[name].dtype
                assert rows.sharding.is_equivalent_to(theirs[name].sharding, rows.ndim)
                np.testing.assert_array_equal(rows, theirs[name])


def test_a_share_of_joined_folders_is_the_resident_one(load: Load) -> None:
    chosen = [load(resident=resident, train="train+valid", fraction=0.4).train for resident in (True, False)]
    resident, streamed = (pictures.subset(slice(None)) for pictures in chosen)
    assert len(chosen[1]) == len(streamed) == 12
    np.testing.assert_array_equal(streamed.labels, resident.labels)
    np.testing.assert_array_equal(streamed.images, resident.images)


def test_a_sample_is_read_into_memory(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)  # which Windows does not have
    resident, streamed = (load(resident=resident).train.subset([20, 3, 3]) for resident in (True, False))
    assert isinstance(streamed, Pictures)
    assert len(streamed) == 3
    np.testing.assert_array_equal(streamed.images, resident.images)
    np.testing.assert_array_equal(streamed.labels, resident.labels)
    assert (streamed.images.dtype, streamed.labels.dtype) == (resident.images.dtype, resident.labels.dtype)


def test_pictures_left_out_are_named(tiny_food: Path, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        for path in (tiny_food / split).iterdir():
            (tmp_path / split / path.name).symlink_to(path)
    (tmp_path / "train" / "0_broken.jpg").write_bytes(b"no picture")
    config = DataConfig(root=str(tmp_path), image_size=32, skip_corrupt=True, resident=False)
    splits = load_splits(config, 3, seed=0, progress=False)
    assert len(splits.train) == 21
    assert [path.name for path in splits.train.skipped] == ["0_broken.jpg"]


@pytest.mark.slow
def test_the_whole_training_is_the_resident_one_to_the_last_bit(tiny_config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, resident=False))
    train_and_evaluate(tiny_config, tmp_path / "resident")
    train_and_evaluate(config, tmp_path / "streamed")
    resident, streamed = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("resident", "streamed")
    )
    assert len(resident) == 2
    for ours, theirs in zip(streamed, resident, strict=True):
        for name in ("step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "grad_norm"):
            assert ours[name] == theirs[name]


# Reading.


def test_only_what_is_needed_soon_is_read() -> None:
    pictures = Counted(1000)
    stream = StreamedBatches(pictures, make_mesh(DeviceConfig(count=1))).batches(np.arange(1000), 10)
    for _ in range(3):
        next(stream)
    time.sleep(0.1)
    assert 30 <= len(pictures.read_positions) <= 30 + 10 + 30  # one on the device, two and a part with the threads
    stream.close()


def test_leaving_early_ends_the_threads() -> None:
    before = set(threading.enumerate())
    stream = StreamedBatches(Counted(1000), make_mesh(DeviceConfig(count=1))).batches(np.arange(1000), 10)
    next(stream)
    threads = set(threading.enumerate()) - before
    assert threads
    stream.close()
    assert not any(thread.is_alive() for thread in threads)


def test_a_mistake_in_a_picture_is_told_as_it_is() -> None:
    class Broken(Counted):
        def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            raise UserError("picture 7 cannot be read: mend it")

    stream = StreamedBatches(Broken(20), make_mesh(DeviceConfig(count=1))).batches(np.arange(20), 10)
    with pytest.raises(UserError) as error:
        next(stream)
    assert str(error.value) == "picture 7 cannot be read: mend it"


def test_a_cache_that_is_replaced_meanwhile_is_read_on(load: Load, tmp_path: Path) -> None:
    pictures = load(resident=False, cache_dir=str(tmp_path)).train
    before = pictures.subset(slice(None)).images
    (file,) = tmp_path.glob("*train*/*.npy")
    file.unlink()
    file.write_bytes(b"another array")
    np.testing.assert_array_equal(pictures.subset(slice(None)).images, before)


def test_a_file_cut_short_is_told(load: Load, tmp_path: Path) -> None:
    pictures = load(resident=False, cache_dir=str(tmp_path)).train
    (file,) = tmp_path.glob("*train*/*.npy")
    os.truncate(file, 5000)
    with pytest.raises(UserError, match="cut short"):
        pictures.subset(slice(None))


def test_threads_that_read_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    images = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3 * 16, axis=3).reshape(200, 4, 4, 3)
    np.save(tmp_path / "a.npy", images)
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "r")
    pictures = CachedPictures([Pictures(mapped, np.arange(200, dtype=np.int32), (Path(),) * 200)])
    orders = [epoch_order(0, epoch, 200) for epoch in range(40)]
    with closing(map_in_threads(pictures.read, orders, threads=8)) as read:
        for order, (found, labels) in zip(orders, read, strict=True):
            np.testing.assert_array_equal(found, images[order])
            np.testing.assert_array_equal(labels, order)


def test_pictures_in_memory_are_no_cache() -> None:
    with pytest.raises(TypeError, match="load_pictures"):
        CachedPictures([Pictures(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int32), (Path("a.jpg"),))])


# Memory.


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    """60 MB of pictures; through the memory map itself all of them stay."""
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (20_000, 32, 32, 3))
    array[:] = 7
    array.flush()
    del array
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "r")
    pictures = CachedPictures([Pictures(mapped, np.zeros(20_000, np.int32), (Path(),) * 20_000)])
    read_all(lambda positions: pictures.read(positions)[0])  # the allocator takes what it needs once
    before = megabytes_in_memory()
    read_all(lambda positions: pictures.read(positions)[0])
    assert megabytes_in_memory() - before < 5
    read_all(lambda positions: mapped[positions])
    assert megabytes_in_memory() - before > 50


def read_all(read: Callable[[np.ndarray], np.ndarray]) -> None:
    for positions in np.array_split(epoch_order(0, 0, 20_000), 100):
        assert np.all(read(positions) == 7)


def megabytes_in_memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (resident,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident) / 1024


# Several processes.

WORKER = """
import sys, jax, json
import numpy as np
sys.path.insert(0, "tests")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from test_streaming import Counted
from jaxfood.config.sections import DeviceConfig
from jaxfood.data.batches import StreamedBatches
from jaxfood.devices import make_mesh
pictures = Counted(20)
found = []
for batch in StreamedBatches(pictures, make_mesh(DeviceConfig()), parts=2).batches(np.arange(20)[::-1], 12):
    shards = sorted(batch["label"].addressable_shards, key=lambda shard: shard.index[0].start)
    found.append([shard.data.tolist() for shard in shards])
    assert batch["image"].shape == (16, 2, 2, 3)
print("FOUND", json.dumps([found, sorted(pictures.read_positions)]))
"""


@pytest.mark.slow
def test_each_process_reads_the_rows_of_its_own_devices() -> None:
    """20 pictures in batches of 12, padded to 2 processes x 2 devices x 2 parts = 16."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(process)],
            stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1],
        )
        for process in range(2)
    ]  # fmt: skip
    found = []
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        found.append(json.loads(next(line for line in output.splitlines() if line.startswith("FOUND"))[6:]))
    batches, read = zip(*found, strict=True)
    assert batches[0] == [[[19, 18, 17, 16], [15, 14, 13, 12]], [[7, 6, 5, 4], [3, 2, 1, 0]]]
    assert batches[1] == [[[11, 10, 9, 8], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    assert set(read[0]) == {*range(12, 20), *range(8)}
    assert set(read[1]) == {*range(8, 12), 0}
