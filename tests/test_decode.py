"""Decoding to the bit as Pillow does, whatever a file's name promises; and what that costs beside Pillow."""

import io
import sys
from pathlib import Path

import decode as benchmark_decode
import numpy as np
import pytest
from PIL import Image

from jaxfood.data.decode import DecodingError, decode_picture

SIZE = 24


def drawn(width: int = 61, height: int = 43) -> Image.Image:
    """Smooth colours and some noise, as photographs have them."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def assert_decodes_as_pillow_does(path: Path) -> None:
    picture = decode_picture(path, SIZE)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    with Image.open(path) as expected:
        resized = expected.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(picture, np.asarray(resized))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (33, 64), (127, 3), (SIZE, SIZE)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_of_any_size_and_kind(tmp_path, size, subsampling, progressive):
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg(drawn(*size), quality=90, subsampling=subsampling, progressive=progressive))
    assert_decodes_as_pillow_does(path)


@pytest.mark.parametrize("options", [{"keep_rgb": True}, {"restart_marker_blocks": 2}, {"comment": b"x" * 60_000}])
def test_jpegs_with_markers(tmp_path, options):
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg(drawn(), **options))
    assert_decodes_as_pillow_does(path)


def test_jpegs_with_four_channels(tmp_path):
    cmyk = jpeg(drawn().convert("CMYK"))
    ycck = bytearray(cmyk)
    ycck[ycck.index(b"Adobe") + 11] = 2  # the transform that the Adobe marker names
    for data in (cmyk, ycck):
        (tmp_path / "x.jpg").write_bytes(data)
        assert_decodes_as_pillow_does(tmp_path / "x.jpg")


@pytest.mark.parametrize("junk", [b"junk" * 100, jpeg(drawn(20, 10))])
def test_what_follows_a_jpeg_is_ignored(tmp_path, junk):
    (tmp_path / "x.jpg").write_bytes(jpeg(drawn()) + junk)
    (tmp_path / "y.jpg").write_bytes(jpeg(drawn()))
    np.testing.assert_array_equal(decode_picture(tmp_path / "x.jpg", SIZE), decode_picture(tmp_path / "y.jpg", SIZE))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_under_a_jpegs_name(tmp_path, format_):
    drawn().save(tmp_path / "x.jpg", format_)
    assert_decodes_as_pillow_does(tmp_path / "x.jpg")


@pytest.mark.parametrize("left_over", [0, 2, 200, 0.5, -100, -2])
def test_truncated_jpegs_are_unreadable(tmp_path, left_over):
    whole = jpeg(drawn(), quality=95)
    path = tmp_path / "x.jpg"
    path.write_bytes(whole[: int(len(whole) * left_over) if isinstance(left_over, float) else left_over])
    with pytest.raises(DecodingError):
        decode_picture(path, SIZE)


def test_no_picture_at_all_is_unreadable(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(DecodingError):
        decode_picture(path, SIZE)


def test_benchmark(tiny_food, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--images", str(tiny_food), "--image_size", "16", "--turns", "1"])
    with pytest.raises(SystemExit) as exit_:
        benchmark_decode.main()
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "35 photographs" in out
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith(("| Pillow", "| jaxfood"))]
    assert [row[-1].strip() for row in rows] == ["0", "0", "0"]
    assert all(float(row[1]) > 0 for row in rows)


def test_benchmark_notices_other_bytes(tiny_food, monkeypatch, capsys):
    def brighter(path: Path, image_size: int) -> np.ndarray:
        return decode_picture(path, image_size) // 2 + 1

    monkeypatch.setattr(benchmark_decode, "decode_picture", brighter)
    monkeypatch.setattr(sys, "argv", ["", "--images", str(tiny_food), "--turns", "1", "--limit", "7"])
    with pytest.raises(SystemExit) as exit_:
        benchmark_decode.main()
    assert exit_.value.code == 1
    assert "| 7 |" in capsys.readouterr().out


def test_benchmark_names_a_folder_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--images", "/nowhere"])
    with pytest.raises(SystemExit) as exit_:
        benchmark_decode.main()
    assert exit_.value.code == 2
    assert "/nowhere" in capsys.readouterr().err
