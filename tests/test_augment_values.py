"""What each change makes of a picture, against Pillow, `colorsys` and formulas."""

import colorsys
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxfood.config.augment import AugmentConfig
from jaxfood.data.augment import colour, geometry, trivial

UNIT = 1 / 255
RNG = np.random.default_rng(0)
BYTES = (np.kron(RNG.integers(0, 256, (8, 10, 3)), np.ones((5, 4, 1))) * 0.7 + RNG.integers(0, 70, (40, 40, 3))).astype(
    np.uint8
)
PICTURE, PLAIN = Image.fromarray(BYTES), jnp.asarray(np.moveaxis(BYTES, 2, 0) / 255, jnp.float32)


def assert_same(found: jax.Array, expected: Image.Image, tolerance: float) -> None:
    found = np.asarray(found) if found.ndim == 2 else np.moveaxis(np.asarray(found), 0, 2)
    np.testing.assert_allclose(found, np.asarray(expected) / 255, atol=tolerance * UNIT + 1e-5, rtol=0)


# Where pixels are.


@pytest.mark.parametrize("size", [16, 24, 40, 64])
@pytest.mark.parametrize("box", [(0, 0, 40, 40), (3, 5, 20, 31), (7, 0, 33, 9)])
def test_a_part_resized_is_pillows(box: tuple[int, int, int, int], size: int) -> None:
    left, top, width, height = box
    window = geometry.Window(*map(jnp.asarray, (top, left, height, width)))
    expected = PICTURE.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    assert_same(geometry.resize(PLAIN, geometry.weights(window, (40, 40), size)), expected, 1.01)


def test_windows_have_a_uniform_area_and_a_uniform_logarithm_of_their_ratio() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)
    top, left, height, width = map(
        np.asarray, jax.jit(jax.vmap(lambda key: geometry.draw_window(key, (200, 200), 0.25, 4 / 3)))(keys)
    )
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 200).all()
    area, ratio = height * width / 200**2, np.log(width / height)
    small = area < 0.7  # larger ones do not all fit
    assert area.min() > 0.24
    assert abs(area[small].mean() - 0.475) < 0.01
    assert np.abs(ratio).max() < math.log(4 / 3) + 0.02
    assert abs(ratio.mean()) < 0.01
    assert abs(ratio[small].std() - 2 * math.log(4 / 3) / math.sqrt(12)) < 0.01
    for start, room in ((top, 200 - height), (left, 200 - width)):
        assert abs((start[small] / room[small]).mean() - 0.5) < 0.02
        assert (start == 0).any()
        assert (start == room).any()


@pytest.mark.slow
def test_a_window_that_never_fits_is_the_whole_picture() -> None:
    window = geometry.draw_window(jax.random.key(3), (100, 100), 1.0, 1.0001)
    assert [int(number) for number in window] == [0, 0, 100, 100]
    keys = jax.random.split(jax.random.key(0), 200)
    windows = jax.vmap(lambda key: geometry.draw_window(key, (100, 100), 0.999, 100))(keys)
    assert (np.asarray(windows.height) <= 100).all()
    assert (np.asarray(windows.width) <= 100).all()


@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (180, 2), (-90, 1)])
def test_a_quarter_turn_clockwise(angle: float, turns: int) -> None:
    np.testing.assert_allclose(geometry.affine(PLAIN, angle=angle), np.rot90(PLAIN, turns, (1, 2)), atol=1e-4)


def test_a_shift_brings_black_in() -> None:
    found = geometry.affine(PLAIN, shift=(3, -2))
    expected = np.zeros_like(PLAIN)
    expected[:, :-2, 3:] = PLAIN[:, 2:, :-3]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("centre", [None, (0.0, 0.0)])
def test_turn_scale_and_shear_sample_where_the_matrix_says(centre: tuple[float, float] | None) -> None:
    """Of a picture whose value is its place: what bilinear interpolation keeps exact, away from the edges."""
    angle, scale, shear, shift = 20.0, 1.25, (10.0, -5.0), (2.0, 1.0)
    ramp = jnp.stack([*jnp.meshgrid(jnp.arange(40.0), jnp.arange(40.0)), jnp.ones((40, 40))])
    found = np.asarray(geometry.affine(ramp, angle, shift, scale, shear, centre))
    turn, (sx, sy) = math.radians(angle), map(math.radians, shear)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    # torchvision: rotation * scale * shear along y * shear along x, as its documentation of the matrix has it.
    shears = np.array(
        [
            [math.cos(turn - sy) / math.cos(sy), -math.cos(turn - sy) * math.tan(sx) / math.cos(sy) - math.sin(turn)],
            [math.sin(turn - sy) / math.cos(sy), -math.sin(turn - sy) * math.tan(sx) / math.cos(sy) + math.cos(turn)],
        ]
    )
    assert np.linalg.det(shears) == pytest.approx(1)
    assert np.allclose(rotation, shears) == (sx == sy == 0)
    middle = np.array([19.5, 19.5] if centre is None else [-0.5, -0.5])
    for x, y in ((12, 15), (20, 20), (25, 18)):
        source = np.linalg.solve(scale * shears, np.array([x, y]) - middle - shift) + middle
        if (source > 0).all() and (source < 39).all():
            np.testing.assert_allclose(found[:, y, x], [*source, 1], atol=1e-3)


def test_erasing_blackens_a_rectangle_of_torchvisions_sizes() -> None:
    white = jnp.ones((3, 100, 100))
    keys = jax.random.split(jax.random.key(0), 400)
    found = (
        np.asarray(
            jax.jit(jax.vmap(lambda key: geometry.erase(white, geometry.draw_erased(0.5, (100, 100), key))))(keys)
        )[:, 0]
        == 0
    )
    shares = found.mean((1, 2))
    assert 0.4 < (shares > 0).mean() < 0.6
    assert shares[shares > 0].min() > 0.015
    assert shares.max() < 0.34
    assert abs(shares[shares > 0].mean() - 0.175) < 0.02
    for rectangle in found[shares > 0]:
        rows, columns = rectangle.any(1), rectangle.any(0)
        np.testing.assert_array_equal(rectangle, rows[:, None] & columns)


# What pixels are.


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("change", "enhancer"),
    [
        (colour.adjust_brightness, ImageEnhance.Brightness),
        (colour.adjust_contrast, ImageEnhance.Contrast),
        (colour.adjust_saturation, ImageEnhance.Color),
        (trivial.sharpen, ImageEnhance.Sharpness),
    ],
)
def test_blends_are_pillows(change: Callable, enhancer: type, factor: float) -> None:
    assert_same(change(PLAIN, factor), enhancer(PICTURE).enhance(factor), 1.6)  # Pillow rounds its grey first


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.3])
def test_a_turned_hue_is_that_of_colorsys(turn: float) -> None:
    found = np.asarray(jax.jit(colour.adjust_hue)(PLAIN, turn))
    for y, x in RNG.integers(0, 40, (60, 2)):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, PLAIN[:, y, x]))
        np.testing.assert_allclose(found[:, y, x], colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_posterized_values_are_pillows(bits: int) -> None:
    assert_same(trivial.posterize(PLAIN, jnp.asarray(bits)), ImageOps.posterize(PICTURE, bits), 0)


@pytest.mark.slow
def test_equalized_solarized_and_stretched_pictures_are_pillows() -> None:
    assert_same(trivial.equalize(PLAIN), ImageOps.equalize(PICTURE), 0)
    assert_same(trivial.solarize(PLAIN, 100 / 255 - 1e-4), ImageOps.solarize(PICTURE, 100), 0)
    assert_same(trivial.autocontrast(PLAIN), ImageOps.autocontrast(PICTURE), 1.01)
    flat = jnp.full((3, 4, 4), 0.5)
    for change in (trivial.equalize, trivial.autocontrast):
        np.testing.assert_allclose(change(flat), flat, atol=UNIT / 2)


@pytest.mark.slow
def test_a_jitters_factors_are_uniform_and_its_order_is_drawn() -> None:
    grey = jnp.full((3, 2, 2), 0.5)
    keys = jax.random.split(jax.random.key(0), 2000)
    config = AugmentConfig(brightness=0.4)
    factors = (
        2
        * np.asarray(jax.jit(jax.vmap(lambda key: colour.jitter(config, grey, colour.draw_jitter(config, key))))(keys))[
            :, 0, 0, 0
        ]
    )
    assert factors.min() == pytest.approx(0.6, abs=0.005)
    assert factors.max() == pytest.approx(1.4, abs=0.005)
    assert abs(factors.mean() - 1) < 0.02
    assert abs(factors.std() - 0.8 / math.sqrt(12)) < 0.01
    config = AugmentConfig(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5)
    found = np.asarray(
        jax.jit(jax.vmap(lambda key: colour.jitter(config, PLAIN, colour.draw_jitter(config, key))))(keys[:50])
    )
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({row.tobytes() for row in found}) == 50


def test_grey_pictures_are_as_many_as_asked_for() -> None:
    keys = jax.random.split(jax.random.key(0), 400)
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, 0.25))(keys)
    found = np.asarray(jax.jit(jax.vmap(lambda chosen: colour.to_grayscale_if(PLAIN, chosen)))(chosen))
    grey = (np.ptp(found, axis=1) < 1e-6).all((1, 2))
    assert 0.15 < grey.mean() < 0.35
    assert_same(found[grey][0][0], PICTURE.convert("L"), 0.6)


@pytest.mark.slow
def test_trivial_augment_takes_each_kind_and_stays_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(trivial.CHANGES) == 14
    marked = {
        name: (lambda image, strength, signed, number=number: jnp.stack([number, strength, signed]))
        for number, name in enumerate(trivial.CHANGES)
    }
    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.asarray(jax.jit(jax.vmap(lambda key: trivial.trivial_augment(PLAIN, trivial.draw(key))))(keys[:60]))
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    monkeypatch.setattr(trivial, "CHANGES", marked)
    kind, strength, signed = np.asarray(
        jax.jit(jax.vmap(lambda key: trivial.trivial_augment(PLAIN, trivial.draw(key))))(keys)
    ).T
    assert np.bincount(kind.astype(int)).min() > 4000 / 14 * 0.75
    assert sorted(np.unique(np.round(strength * 30))) == list(range(31))
    np.testing.assert_allclose(np.abs(signed), strength)
    assert 0.45 < (signed[strength > 0] > 0).mean() < 0.55
