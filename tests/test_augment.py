"""Random changes: what they may make of a picture, and what they are a function of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config.augment import AugmentConfig
from jaxfood.data import augment as room
from jaxfood.data.augment import Change, _changes, augment, changes

KEY = jax.random.key(0)


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def changed(
    images: np.ndarray, positions: np.ndarray | None = None, key: jax.Array = KEY, **settings: float
) -> np.ndarray:
    function = jax.jit(partial(augment, AugmentConfig(**settings)))
    return np.asarray(function(images, jnp.arange(len(images)) if positions is None else positions, key=key))


def test_a_flip_mirrors_about_half_of_the_pictures_and_leaves_the_others() -> None:
    images = pictures(200)
    found = changed(images, flip=True)
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(found, images, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(found, images, strict=True)])
    assert found.dtype == np.uint8
    assert np.all(mirrored ^ same)
    assert 70 < mirrored.sum() < 130


def test_a_crop_is_a_window_of_the_padded_picture_and_every_window_occurs() -> None:
    images = pictures(300)
    found = changed(images, crop=1)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    corners = [
        next((i, j) for i in range(3) for j in range(3) if np.array_equal(cut, whole[i : i + 32, j : j + 32]))
        for cut, whole in zip(found, padded, strict=True)
    ]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert len(counts) == 9
    assert min(counts.values()) > 15


def test_a_picture_changes_by_its_number_and_the_epoch_alone() -> None:
    images = pictures(20)
    whole = changed(images, flip=True, crop=4)
    some = np.array([7, 3, 19])
    np.testing.assert_array_equal(changed(images[some], some, flip=True, crop=4), whole[some])
    assert not np.array_equal(changed(images, key=jax.random.key(1), flip=True, crop=4), whole)


@pytest.mark.parametrize(("settings", "expected"), [({}, False), ({"flip": True}, True), ({"crop": 2}, True)])
def test_what_changes_pictures(settings: dict, expected: bool) -> None:
    assert changes(AugmentConfig(**settings)) == expected
    assert np.array_equal(changed(pictures(3), **settings), pictures(3)) != expected


def test_a_flip_either_way_is_drawn_on_its_own() -> None:
    images = pictures(200)
    found = changed(images, flip=True, vertical_flip=True)
    ways = (
        (slice(None), slice(None)),
        (slice(None), np.s_[::-1]),
        (np.s_[::-1], slice(None)),
        (np.s_[::-1], np.s_[::-1]),
    )
    counts = [sum(np.array_equal(a, b[way]) for a, b in zip(found, images, strict=True)) for way in ways]
    assert sum(counts) == 200
    assert min(counts) > 30


@pytest.mark.slow
def test_what_is_drawn_for_one_kind_tells_nothing_of_the_others() -> None:
    config = AugmentConfig(resized_crop=0.3, flip=True, vertical_flip=True, rotation=30, translate=0.3, erase=1)
    kinds = _changes(config, (32, 32), 32)
    assert len({kind.number for kind in kinds}) == len(kinds) == 5
    keys = jax.random.split(KEY, 1000)

    def draw(kind: Change) -> np.ndarray:
        """Numbers `[n, 1000]`, a weighted sum in place of many."""
        leaves = jax.jit(jax.vmap(lambda key: kind.draw(jax.random.fold_in(key, kind.number))))(keys)
        rows = [np.asarray(leaf, float).reshape(len(keys), -1) for leaf in jax.tree.leaves(leaves)]
        rows = [row.T if row.shape[1] < 5 else (row @ np.arange(row.shape[1]))[None] for row in rows]
        return np.array([row for row in np.concatenate(rows) if row.std() > 0])

    numbers = [draw(kind) for kind in kinds]
    for i, first in enumerate(numbers):
        for second in numbers[:i]:
            assert np.abs(np.corrcoef(first, second)[: len(first), len(first) :]).max() < 0.15


@pytest.mark.slow
def test_one_after_the_other_makes_what_all_at_once_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form for a CPU, and that for accelerators."""
    config = {"resized_crop": 0.3, "flip": True, "brightness": 0.4, "hue": 0.1, "grayscale": 0.5, "erase": 0.5}
    images = pictures(7)
    one_by_one = changed(images, **config)
    assert not np.allclose(one_by_one, images / 255, atol=0.1)
    monkeypatch.setattr(room.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays))
    np.testing.assert_allclose(changed(images, **config), one_by_one, atol=1e-5)
