"""Which pictures make up step n, and how they come on to the devices."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxfood.config.sections import DeviceConfig
from jaxfood.data.batches import ResidentBatches, batches, epoch_order, steps_per_epoch
from jaxfood.data.pictures import Pictures
from jaxfood.devices import make_mesh

pytestmark = pytest.mark.smoke


def pictures(count: int) -> Pictures:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return Pictures(images, np.arange(count, dtype=np.int32) + 100, tuple(Path(f"{i}.jpg") for i in range(count)))


# The order.


@pytest.mark.parametrize("size", [1, 2, 21, 1000])
def test_every_epoch_has_each_picture_once(size: int) -> None:
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(epoch_order(6666, epoch, size)), np.arange(size))


def test_every_epoch_and_every_seed_has_a_fresh_order() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = epoch_order(7, 3, 100)
    np.random.seed(0)
    epoch_order(7, 2, 100)
    np.testing.assert_array_equal(epoch_order(7, 3, 100), first)
    assert not np.array_equal(epoch_order(7, 4, 100), first)


# Batches.


@pytest.mark.parametrize(("size", "batch_size", "steps"), [(21, 8, 3), (16, 8, 2), (1, 8, 1), (8, 8, 1), (9, 8, 2)])
def test_batches_hold_each_picture_once_the_smaller_last_one_included(size: int, batch_size: int, steps: int) -> None:
    order = epoch_order(0, 0, size)
    found = list(batches(order, batch_size))
    assert len(found) == steps == steps_per_epoch(size, batch_size)
    seen = np.concatenate([positions[mask == 1] for positions, mask in found])
    np.testing.assert_array_equal(seen, order)
    assert [int(mask.sum()) for _, mask in found[:-1]] == [batch_size] * (steps - 1)


@pytest.mark.parametrize("multiple_of", [1, 3, 8])
def test_all_batches_have_one_shape_and_padding_stands_at_the_end(multiple_of: int) -> None:
    found = list(batches(np.arange(21), 10, multiple_of=multiple_of))
    shape = (-(-10 // multiple_of) * multiple_of,)
    assert [int(mask.sum()) for _, mask in found] == [10, 10, 1]
    for positions, mask in found:
        assert positions.shape == mask.shape == shape
        assert set(mask) <= {0, 1}
        assert np.all(np.diff(mask) <= 0)
        assert positions.min() >= 0
        assert positions.max() < 21
        assert (positions.dtype, mask.dtype) == (np.int32, np.float32)


def test_a_small_order_is_not_padded_to_a_whole_batch() -> None:
    ((positions, mask),) = batches(np.array([2, 0, 1]), 64)
    np.testing.assert_array_equal(positions, [2, 0, 1])
    np.testing.assert_array_equal(mask, [1, 1, 1])
    ((positions, mask),) = batches(np.arange(3), 64, multiple_of=8)
    np.testing.assert_array_equal(mask, [1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_an_epoch_goes_on_where_it_was_left(start: int) -> None:
    order = epoch_order(0, 0, 21)
    whole, rest = list(batches(order, 8, multiple_of=2)), list(batches(order, 8, start=start, multiple_of=2))
    assert len(rest) == 3 - start
    for (positions, mask), (rest_positions, rest_mask) in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(positions, rest_positions)
        np.testing.assert_array_equal(mask, rest_mask)


# On the devices.


@pytest.mark.parametrize("devices", [1, 8])
def test_resident_pictures_gather_batches_on_the_devices(devices: int) -> None:
    food, mesh = pictures(21), make_mesh(DeviceConfig(count=devices))
    resident = ResidentBatches(food, mesh)
    assert resident.size == 21
    order = epoch_order(0, 0, 21)
    seen = []
    for batch in resident.batches(order, 12):
        assert batch.keys() == {"image", "label", "mask", "position"}
        size = 12 if devices == 1 else 16
        assert (batch["image"].shape, batch["image"].dtype) == ((size, 4, 4, 3), np.uint8)
        assert (batch["label"].shape, batch["label"].dtype) == ((size,), np.int32)
        assert batch["mask"].shape == (size,)
        for array in batch.values():
            assert len(array.sharding.device_set) == devices
            assert {shard.data.shape[0] for shard in array.addressable_shards} == {size // devices}
        kept = np.asarray(batch["mask"]) == 1
        labels = np.asarray(batch["label"])[kept]
        np.testing.assert_array_equal(np.asarray(batch["image"])[kept], food.images[labels - 100])
        np.testing.assert_array_equal(np.asarray(batch["position"])[kept], labels - 100)
        seen.extend(labels - 100)
    np.testing.assert_array_equal(seen, order)
    rest = [np.asarray(batch["label"]) for batch in resident.batches(order, 12, start=1)]
    np.testing.assert_array_equal(rest[0][:9] - 100, order[12:])


def test_the_pictures_do_not_depend_on_the_number_of_devices() -> None:
    food, order = pictures(21), epoch_order(1, 2, 21)
    one, eight = (ResidentBatches(food, make_mesh(DeviceConfig(count=count))) for count in (1, 8))
    for a, b in zip(one.batches(order, 12), eight.batches(order, 12), strict=True):
        for name in a:
            np.testing.assert_array_equal(
                np.asarray(a[name])[np.asarray(a["mask"]) == 1], np.asarray(b[name])[np.asarray(b["mask"]) == 1]
            )


def test_every_batch_of_an_epoch_is_gathered_by_one_compiled_function() -> None:
    resident = ResidentBatches(pictures(21), make_mesh(DeviceConfig(count=1)))
    next(resident.batches(epoch_order(0, 0, 21), 8))
    compiled = resident._gather._cache_size()
    for epoch in range(2):
        for batch in resident.batches(epoch_order(0, epoch, 21), 8):
            jax.block_until_ready(batch)
    assert resident._gather._cache_size() == compiled
