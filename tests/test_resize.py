"""The three ways to a square, against Pillow by hand and its own ImageOps, and what depends on which one it is."""

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxfood.config import load_config
from jaxfood.data.cache import load_pictures
from jaxfood.data.decode import decode_bytes, decode_picture
from jaxfood.data.index import index_pictures
from jaxfood.data.pictures import Pictures
from jaxfood.data.resize import scaled_while_decoding, to_square
from jaxfood.data.splits import load_splits
from jaxfood.data.tfds import TfdsPictures
from jaxfood.errors import UserError
from jaxfood.inference import probabilities
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.run_landscape import objective
from jaxfood.runs.resume import check_resumable

SIZE = 32
BILINEAR = Image.Resampling.BILINEAR
SIZES = [(61, 43), (43, 61), (50, 50), (32, 40), (200, 31), (31, 247), (5, 3), (1, 1), (33, 32)]


def drawn(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def cropped_as_torchvision(picture: Image.Image) -> Image.Image:
    """`Resize(S)`, then `CenterCrop(S)`: functional._compute_resized_output_size and center_crop, 0.20."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(SIZE * long / short)
    new = (SIZE, new_long) if width <= height else (new_long, SIZE)
    resized = picture.resize(new, BILINEAR)
    top, left = int(round((resized.height - SIZE) / 2.0)), int(round((resized.width - SIZE) / 2.0))  # noqa: RUF046
    return resized.crop((left, top, left + SIZE, top + SIZE))


EXPECTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "squash": lambda picture: picture.resize((SIZE, SIZE), BILINEAR),
    "crop": cropped_as_torchvision,
    "pad": lambda picture: ImageOps.pad(picture, (SIZE, SIZE), BILINEAR),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", EXPECTED)
def test_each_way_to_the_bit(how: str, size: tuple[int, int]) -> None:
    picture = drawn(*size)
    square = to_square(picture, SIZE, how)
    assert square.size == (SIZE, SIZE)
    np.testing.assert_array_equal(np.asarray(square), np.asarray(EXPECTED[how](picture)))


@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize("size", [(9000, 1), (1, 9000), (3000, 5)])
def test_lines_take_no_more_memory_than_pictures(how: str, size: tuple[int, int]) -> None:
    """Resized whole to 2,048 px, the first would become 75 billion pixels."""
    square = to_square(drawn(*size), 512, how)
    assert square.size == (512, 512)


def test_bars_are_black_and_the_rest_is_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), (200, 100, 50)).save(tmp_path / "x.png")
    padded = decode_picture(tmp_path / "x.png", SIZE, resize="pad")
    assert not np.concatenate((padded[:8], padded[24:])).any()
    assert (padded[8:24] == (200, 100, 50)).all()


def test_turned_as_exif_says_before_it_is_cut(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = drawn(60, 33)
    picture.save(tmp_path / "x.png", exif=exif)
    turned = picture.transpose(Image.Transpose.ROTATE_270)
    for how, expected in EXPECTED.items():
        pixels = decode_picture(tmp_path / "x.png", SIZE, exif_orientation=True, resize=how)
        np.testing.assert_array_equal(pixels, np.asarray(expected(turned)))


def test_each_way_has_a_cache_entry_of_its_own(tmp_path: Path) -> None:
    """Runs of different ways that answer together would take turns in one."""
    drawn(61, 43).save(tmp_path / "x.png")
    index = index_pictures(tmp_path, labelled=False)
    cache = tmp_path / "cache"
    images = {how: load_pictures(index, SIZE, cache_dir=cache, resize=how, progress=False).images for how in EXPECTED}
    for how, expected in EXPECTED.items():
        np.testing.assert_array_equal(images[how][0], np.asarray(expected(drawn(61, 43))))
    assert len(list(cache.glob("*/*.npy"))) == 3
    times = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npy")}
    for how in EXPECTED:
        load_pictures(index, SIZE, cache_dir=cache, resize=how, progress=False)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npy")} == times


def photograph(width: int, height: int) -> Image.Image:
    """Smooth, as photographs are; noise would show no frequency that may be left out."""
    return drawn(6, 6).resize((width, height), Image.Resampling.BICUBIC)


def as_jpeg(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("how", EXPECTED)
@pytest.mark.parametrize("size", [(256, 256), (255, 131), (129, 203)])
def test_scaled_while_decoding_to_nearly_the_same_pixels(how: str, size: tuple[int, int]) -> None:
    encoded = as_jpeg(photograph(*size))
    fast, exact = (decode_bytes(encoded, SIZE, resize=how, fast=fast).astype(int) for fast in (True, False))
    assert fast.shape == exact.shape
    assert 0 < np.abs(fast - exact).mean() < 3


def test_only_jpegs_twice_as_large_as_needed_are_scaled() -> None:
    for size, half in [((64, 64), True), ((63, 200), False), ((1000, 64), False)]:  # the last one is a line
        with Image.open(io.BytesIO(as_jpeg(photograph(*size)))) as picture:
            assert (scaled_while_decoding(picture, SIZE, "squash") is not None) is half
            assert (picture.size != size) is half
    file = io.BytesIO()
    photograph(256, 256).save(file, "PNG")
    fast, exact = (decode_bytes(file.getvalue(), SIZE, fast=fast) for fast in (True, False))
    np.testing.assert_array_equal(fast, exact)


@pytest.mark.parametrize("orientation", [2, 5, 6, 8])
def test_scaled_pictures_are_turned_as_exif_says(orientation: int) -> None:
    """Of 131 x 99 pixels at 1/2 and more the last column and row hold a part of one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = as_jpeg(photograph(131, 99), exif=exif)
    fast, exact = (decode_bytes(encoded, SIZE, exif_orientation=True, fast=fast).astype(int) for fast in (True, False))
    assert 0 < np.abs(fast - exact).mean() < 3


def test_fast_has_a_cache_entry_of_its_own(tmp_path: Path) -> None:
    for number in range(2):
        photograph(128 + number, 96).save(tmp_path / f"{number}_0.jpg")
    index = index_pictures(tmp_path, labelled=False)
    load = functools.partial(load_pictures, index, SIZE, cache_dir=tmp_path / "cache", progress=False)
    for _ in ("decoded", "reused"):
        for fast in (False, True):
            decoded = [decode_picture(path, SIZE, fast=fast) for path in index.paths]
            np.testing.assert_array_equal(load(fast=fast).images, decoded)
    assert len(list(tmp_path.glob("cache/*/*.npy"))) == 2


def test_fast_says_where_it_changes_nothing(tmp_path: Path) -> None:
    for split, suffix in (("train", "png"), ("valid", "jpg")):
        (tmp_path / split).mkdir()
        for label in range(2):
            photograph(40, 40).save(tmp_path / split / f"{label}_0.{suffix}")
    settings = [f"data.root={tmp_path}", "data.image_size=32", "data.decode=fast", f"data.cache_dir={tmp_path}/cache"]
    remarks = load_splits(load_config(None, settings).data, seed=0, progress=False).remarks
    said = [remark for remark in remarks if "data.decode" in remark]
    assert said == ["data.decode = fast changes nothing for the training pictures: none is called as a JPEG file is"]


def test_a_runs_pictures_are_resized_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By predict, and by the landscape."""
    photograph(161, 143).save(tmp_path / "0_1.jpg")
    config = load_config(None, ["data.resize=pad", "data.image_size=32", "model.num_classes=2", "data.decode=fast"])
    loaded: list[np.ndarray] = []

    def answer(model: object, variables: object, config: object, pictures: Pictures, *rest: object) -> np.ndarray:
        loaded.append(pictures.images[0])
        return np.zeros((1, 2), np.float32)

    monkeypatch.setattr(probabilities, "load_run", lambda run, which: (None, None, config))
    monkeypatch.setattr(probabilities, "read_classes", lambda run: ("0", "1"))
    monkeypatch.setattr(probabilities, "_probabilities", answer)
    monkeypatch.setattr(objective, "read_classes", lambda run: ("0", "1"))
    predict_probabilities([tmp_path], tmp_path, progress=False)
    loaded.append(objective.load_sample(str(tmp_path), config, tmp_path).images[0])
    for pixels in loaded:
        np.testing.assert_array_equal(pixels, decode_picture(tmp_path / "0_1.jpg", SIZE, resize="pad", fast=True))
    assert len(loaded) == 2


def test_pictures_of_tfds_are_decoded_so() -> None:
    encoded = as_jpeg(photograph(161, 143))
    pictures = TfdsPictures([{"image": encoded, "label": 1}], ("image", "label"), SIZE, "x", resize="crop", fast=True)
    images, _ = pictures.read(np.arange(1))
    np.testing.assert_array_equal(images[0], decode_bytes(encoded, SIZE, resize="crop", fast=True))
    assert (images[0] != decode_bytes(encoded, SIZE, resize="crop")).any()
    assert (images[0] != decode_bytes(encoded, SIZE, fast=True)).any()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.resize=pad", "data.resize (squash -> pad)"),
        ("data.decode=fast", "data.decode (exact -> fast)"),
        ("data.valid_fraction=0.2", "data.valid_fraction (0.0 -> 0.2)"),
    ],
)
def test_resume_keeps_what_the_pictures_are(setting: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--resume cannot change {said}")):
        check_resumable(load_config(), load_config(None, [setting]))
