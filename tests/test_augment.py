"""Random changes: what they may make of a picture, and what they are a function of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config.augment import AugmentConfig
from jaxfood.data.augment import augment, changes

KEY = jax.random.key(0)


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def changed(
    images: np.ndarray, positions: np.ndarray | None = None, key: jax.Array = KEY, **settings: int
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
