"""Decoding to the bit as Pillow does, whatever a file's name promises; and what that costs beside Pillow."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import decode as benchmark_decode
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from jaxfood.data import decode
from jaxfood.data.decode import FORMATS, PICTURE_SUFFIXES, DecodingError, decode_bytes, decode_picture
from jaxfood.data.threads import Budget, map_in_threads

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


# What a file is, and why it cannot be read.


def encoded(picture: Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels, and ends."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\0\0" + bytes(8) + b"\0\0" + bytes(6) + b"\1\0\t\0" + bytes(40)  # of no units an inch
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (bytes(500), "nothing but zeros"),
        (HEIC, "a HEIC picture, which Pillow does not read: convert it to JPEG"),
        (b"\n<!DOCTYPE html><html>404", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer .*git lfs pull"),
        (EPS, "an EPS or PostScript drawing"),
        (WMF, "a WMF drawing"),
        (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60), "an EMF drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
        (b"\0\0\0\x20ftypisom" + bytes(100), r"a film"),
        (b"PK\3\4" + bytes(100), "a ZIP archive"),
        ("照片不存在".encode() * 90, "a text, no picture"),
        (b"\x93\xff\1\2\3" * 50, "no picture of a format that is read"),
        (encoded(drawn(), "JPEG")[:300], "a damaged or truncated JPEG: "),
        (encoded(drawn(), "PNG")[:-500], r"a damaged or truncated PNG: .*truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a damaged or truncated PNG: "),
        (encoded(drawn(), "WEBP")[:-90], "a damaged or truncated WEBP: "),
        (encoded(drawn(), "TIFF")[:-900], "a damaged or truncated TIFF: "),
        (png_header(178_956_970, 1), "too large: 178956970 x 1 pixels, where 200 million, and 1,000,000 a side"),
        (png_header(20_000, 20_000), "too large: 20000 x 20000 pixels"),
    ],
)
def test_the_reason_says_what_a_file_is(content, reason):
    with pytest.raises(DecodingError, match=f"^{reason}") as error:
        decode_bytes(content, SIZE)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("division by zero"), RecursionError("a\nb")])
def test_whatever_pillow_raises_is_a_reason(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image.Image, "resize", fail)
    with pytest.raises(DecodingError, match=r"more memory|division by zero|JPEG: a b"):
        decode_bytes(jpeg(drawn()), SIZE)


@pytest.mark.parametrize("content", [EPS, EPS.replace(b"%!PS", b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS")])
def test_no_program_is_started(monkeypatch, content):
    asked = []
    open_, forbidden = Image.open, lambda *_, **__: pytest.fail("a program was started")
    monkeypatch.setattr(Image, "open", lambda *args, **options: (asked.append(options), open_(*args, **options))[1])
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # or Pillow has looked for it before
    monkeypatch.setattr(subprocess.Popen, "__init__", forbidden)
    monkeypatch.setattr(os, "system", forbidden)
    with pytest.raises(DecodingError, match="EPS"):
        decode_bytes(content, SIZE)
    assert asked == [{"formats": FORMATS}]


def test_formats_are_pillows_own_raster_decoders():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    assert not set(FORMATS) & {"EPS", "WMF", "PDF", "PS", "BUFR", "GRIB", "HDF5", "FITS", "MPEG"}
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in {*FORMATS, "MPO"}}
    assert suffixes <= set(PICTURE_SUFFIXES)
    assert len(set(PICTURE_SUFFIXES)) == len(PICTURE_SUFFIXES)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("DIB", "AVIF")])
def test_each_format_is_read(name):
    content = encoded(drawn(), name)
    expected = Image.open(io.BytesIO(content)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_bytes(content, SIZE), np.asarray(expected))


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_counts(format_):
    first = drawn()
    options = {"lossless": True} if format_ == "WEBP" else {}
    several = encoded(first, format_, save_all=True, append_images=[Image.new("RGB", first.size)], **options)
    np.testing.assert_array_equal(decode_bytes(several, SIZE), decode_bytes(encoded(first, format_, **options), SIZE))


def test_pictures_of_extreme_shape_are_read():
    for size in ((60_000, 1), (1, 60_000)):
        assert decode_bytes(encoded(Image.new("RGB", size, (1, 2, 3)), "PNG"), 4).tolist() == [[[1, 2, 3]] * 4] * 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    for path in (tmp_path / "x.jpg", "/dev/zero"):
        with pytest.raises(DecodingError, match="no regular file, but a pipe or a device"):
            decode_picture(path, SIZE)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    path = tmp_path / "x.jpg"
    path.touch()
    os.truncate(path, 5 * 2**30)
    with pytest.raises(DecodingError, match=r"too large: 5\.0 GiB, where 1 is the most"):
        decode_picture(path, SIZE)


def test_pillows_own_limit_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_bytes(jpeg(drawn()), SIZE).shape == (SIZE, SIZE, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(("total", "free", "expected"), [(2, 0, 2), (0.5, 0, 1), (1, 1, 8)])
def test_large_pictures_are_not_decoded_all_at_once(monkeypatch, total, free, expected):
    """Of pictures that each need half of the budget, two at a time; of small ones, all."""
    inside, most = 0, 0
    lock = threading.Lock()
    together = threading.Barrier(expected)  # lets `expected` at a time pass; fewer would wait in vain
    to_rgb = decode._to_rgb

    def watched(picture):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait(60)
        try:
            return to_rgb(picture)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(decode, "_to_rgb", watched)
    needed = 10 * 61 * 43
    monkeypatch.setattr(decode, "_decoding", Budget(int(total * needed), free=free * needed))
    picture = jpeg(drawn())
    list(map_in_threads(lambda _: decode_bytes(picture, SIZE), range(8), threads=8))
    assert most == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_eight_huge_pictures_at_once_take_the_memory_of_one(tmp_path):
    """A PNG of 13,300 px, 0.7 MB, takes 0.7 GB while it is decoded; eight took 5.7 GB."""
    path = tmp_path / "x.png"
    Image.new("RGB", (13_300, 13_300)).save(path, compress_level=1)
    program = (
        "import re, sys\n"
        "from jaxfood.data.decode import decode_picture\n"
        "from jaxfood.data.threads import map_in_threads\n"
        "list(map_in_threads(lambda path: decode_picture(path, 32), [sys.argv[1]] * 8, threads=8))\n"
        # Not ru_maxrss: that of a new process begins with what its parent had.
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 1024 * kilobytes < 1.2e9


# EXIF.


def turned(orientation: object, format_: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(drawn(), format_, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation, format_):
    content = turned(orientation, format_)
    plain = encoded(drawn(), format_)
    assert decode.decode(content, SIZE).orientation == orientation
    np.testing.assert_array_equal(decode_bytes(content, SIZE), decode_bytes(plain, SIZE))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    expected = np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_bytes(content, SIZE, exif_orientation=True), expected)


def test_exif_data_behind_the_pixels_count():
    content = turned(8, "PNG")
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    behind = content[:start] + content[end:-12] + content[start:end] + content[-12:]  # the last chunk has 12 bytes
    assert decode.decode(behind, SIZE).orientation == 8


@pytest.mark.parametrize("exif_orientation", [False, True])
def test_tiffs_are_upright_already(exif_orientation):
    """Pillow turns them when it loads them."""
    with Image.open(io.BytesIO(turned(6, "TIFF"))) as picture:
        expected = np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    decoded = decode.decode(turned(6, "TIFF"), SIZE, exif_orientation=exif_orientation)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.orientation == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_are_none(tmp_path):
    content = turned(6)
    place = content.index(b"Exif\0\0")
    for junk in (b"\xff" * 8, b"II*\0\xff\xff\xff\xff"):
        broken = content[: place + 6] + junk + content[place + 14 :]
        assert decode.decode(broken, SIZE, exif_orientation=True).orientation == 1
        np.testing.assert_array_equal(decode_bytes(broken, SIZE), decode_bytes(jpeg(drawn()), SIZE))
    assert decode.decode(turned(0), SIZE, exif_orientation=True).orientation == 1


def test_orientation_in_other_places_is_found():
    """In XMP, in a thumbnail's data too, as a long integer, behind bytes that look like an upright one."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="3"/></x:xmpmeta>'
    assert decode.decode(encoded(drawn(), "JPEG", xmp=xmp), SIZE).orientation == 3
    for byte_order in (b"II", b"MM"):
        for orientation in (1, 6):
            exif = Image.Exif()
            exif.endian = "<" if byte_order == b"II" else ">"
            exif[0x010E] = "\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00"
            exif[0x0112] = orientation
            assert decode.decode(encoded(drawn(), "JPEG", exif=exif), SIZE).orientation == orientation
            assert Image.open(io.BytesIO(encoded(drawn(), "JPEG", exif=exif))).getexif()[0x0112] == orientation


def test_a_file_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(turned(8))
    found = decode.decode_file(path, SIZE)
    assert found.digest == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert found.orientation == 8
    assert decode.decode_file_or_reason(tmp_path / "x.jpg", SIZE).digest == found.digest
    path.write_bytes(b"")
    assert decode.decode_file_or_reason(path, SIZE) == "an empty file"


# The benchmark.


def test_benchmark(tiny_food, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--images", str(tiny_food), "--image_size", "16", "--turns", "1"])
    with pytest.raises(SystemExit) as exit_:
        benchmark_decode.main()
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "35 photographs" in out
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith(("| Pillow", "| jaxfood"))]
    assert [row[-1].strip() for row in rows[:3]] == ["0", "0", "0"]
    assert "fast: bytes change by" in out
    assert all(float(row[1]) > 0 for row in rows)


def test_benchmark_notices_other_bytes(tiny_food, monkeypatch, capsys):
    def brighter(path: Path, image_size: int, **how: bool) -> np.ndarray:
        return decode_picture(path, image_size, **how) // 2 + 1

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


@pytest.mark.slow
def test_campaign_of_mutated_pictures():
    script = Path(__file__).parents[1] / "scripts/campaigns/mutated_pictures.py"
    done = subprocess.run([sys.executable, script, "--count", "200"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "| all | 2" in done.stdout
