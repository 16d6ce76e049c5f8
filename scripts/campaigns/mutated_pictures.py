"""Mutated pictures of every format that is read, and files of other kinds, all named .jpg: each decodes or is refused.

    python scripts/campaigns/mutated_pictures.py [--count 10000] [--seed 0] [--keep DIR]

Each file is decoded in a child process that may start no program, with a watchdog. Lost is what ends in another error
than DecodingError with one short line, does not end in ten seconds, takes more memory than the budget, or ends the
child; `--keep` writes those files to a folder. The unchanged pictures are compared with Pillow's.
"""

import argparse
import io
import multiprocessing
import platform
import re
import resource
import struct
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from jaxfood.data import decode

SECONDS = 10.0
MOST_BYTES = 2.4 * 2**30  # resident: the budget of large pictures, and the rest of the process
ADDRESS_SPACE = 12 * 2**30
SIZE = 32
FOREIGN = "other kinds"
BAD = ("tracebacks", "programs", "hangs", "died", "over memory", "not Pillow's")
COLUMNS = ("tried", "decoded", "refused in one line", *BAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that were lost")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, Pillow {PIL.__version__}")
    originals = {**pictures(), **foreign()}
    outcomes, reasons, lost, peak = run(originals, arguments.count, arguments.seed, arguments.keep)
    print_outcomes(outcomes)
    print(f"\nlargest resident size of the child: {peak / 2**20:.0f} MiB")
    print("reasons: " + "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(25)))
    for line in lost[:20]:
        print(line)
    sys.exit(1 if lost else 0)


def run(
    originals: dict[str, bytes], count: int, seed: int, keep: Path | None
) -> tuple[dict[str, Counter[str]], Counter[str], list[str], int]:
    """Every original unchanged, then `count` mutated ones: outcomes by kind, reasons, what was lost, peak memory."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    lost = []
    names = list(originals)
    child = Child()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jpg"
        for number in range(-len(names), count):
            name = names[number % len(names)]
            content = originals[name] if number < 0 else mutate(name, originals, np.random.default_rng([seed, number]))
            path.write_bytes(content)
            outcome, detail = child.decode(path, compare=number < 0 and not name.startswith(FOREIGN))
            kind = name.partition(":")[0]
            outcomes[kind].update(("tried", outcome))
            if outcome == "refused in one line":
                reasons[detail.partition(":")[0]] += 1
            elif outcome != "decoded":
                lost.append(f"{outcome}: {name}, number {number}: {detail}")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{outcome.replace(' ', '_')}_{number}.jpg").write_bytes(content)
    child.end()
    return outcomes, reasons, lost, child.peak


def print_outcomes(outcomes: dict[str, Counter[str]]) -> None:
    total: Counter[str] = sum(outcomes.values(), Counter())
    print("\n| | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    for kind, counts in [*sorted(outcomes.items()), ("all", total)]:
        print(f"| {kind} | " + " | ".join(str(counts[column]) for column in COLUMNS) + " |")


# Originals.


def pictures() -> dict[str, bytes]:
    """Pictures of every format that is read, in as many of its kinds as Pillow writes: FORMAT:number."""
    y, x = np.mgrid[:43, :61]
    smooth = np.stack([x * 4, y * 5, x + y], axis=-1) + np.random.default_rng(0).normal(0, 12, (43, 61, 3))
    rgb = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    kinds: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("JPEG", rgb, {"exif": exif, "dpi": (72, 72)}),
        ("JPEG", rgb, {"progressive": True, "icc_profile": b"profile" * 99}),
        ("JPEG", rgb.convert("CMYK"), {}),
        ("JPEG", rgb.convert("L"), {"restart_marker_blocks": 2, "comment": b"words"}),
        ("MPO", rgb, frames),
        ("PNG", rgb, {"exif": exif}),
        ("PNG", rgb.convert("RGBA"), {}),
        ("PNG", rgb.quantize(64), {"transparency": bytes(range(64))}),
        ("PNG", grey16, {}),
        ("PNG", rgb.convert("1"), {}),
        ("PNG", rgb, frames),
        ("WEBP", rgb, {"exif": exif}),
        ("WEBP", rgb.convert("RGBA"), {"lossless": True}),
        ("WEBP", rgb, frames),
        ("GIF", rgb.quantize(64), {}),
        ("GIF", rgb, {**frames, "disposal": 2}),
        ("BMP", rgb, {}),
        ("BMP", rgb.quantize(64), {}),
        ("BMP", rgb.convert("1"), {}),
        ("DIB", rgb, {}),
        *(
            ("TIFF", rgb, {"compression": how})
            for how in (None, "tiff_lzw", "tiff_adobe_deflate", "tiff_jpeg", "packbits")
        ),
        ("TIFF", rgb.convert("1"), {"compression": "group4"}),
        ("TIFF", grey16, {"exif": exif}),
        ("TIFF", rgb.convert("F"), {}),
        ("TIFF", rgb, frames),
        ("AVIF", rgb, {"exif": exif}),
        ("AVIF", rgb.convert("RGBA"), {"speed": 10}),
        ("JPEG2000", rgb, {}),
        ("JPEG2000", rgb, {"no_jp2": True, "tile_size": (32, 32)}),
        ("PPM", rgb, {}),
        ("PPM", rgb.convert("1"), {}),
        ("PPM", grey16, {}),
        ("SGI", rgb, {"rle": True}),
        ("PCX", rgb, {}),
        ("PCX", rgb.quantize(64), {}),
        ("TGA", rgb, {"compression": "tga_rle"}),
        ("TGA", rgb.quantize(64), {}),
    ]
    originals = {}
    for number, (name, picture, options) in enumerate(kinds):
        file = io.BytesIO()
        options = {key: value for key, value in options.items() if value is not None}
        if "append_images" in options:  # Pillow leaves one format's settings in them for the next
            options["append_images"] = [frame.copy() for frame in frames["append_images"]]
        picture.copy().save(file, name, **options)
        originals[f"{name}:{number}"] = file.getvalue()
    originals["PPM:plain"] = b"P3\n# words\n2 2 255\n" + b"1 2 3 " * 4
    originals["BMP:rle"] = _run_length_bmp()
    return originals


def _run_length_bmp() -> bytes:
    """A BMP of 8 x 4 pixels whose rows are run lengths, which Pillow decodes in Python."""
    palette = bytes(range(256)) * 4
    rows = b"\x08\x05\0\0" * 3 + b"\0\x03\1\2\3\0\5\7\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(rows), 0, 0, 256, 0)
    place = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", place + len(rows), 0, 0, place) + header + palette + rows


def foreign() -> dict[str, bytes]:
    """Files that are no picture, or of a format that is not read."""
    rgb = Image.new("RGB", (61, 43), (200, 100, 50))

    def saved(name: str) -> bytes:
        file = io.BytesIO()
        rgb.save(file, name)
        return file.getvalue()

    kinds = {name: saved(name) for name in ("EPS", "PDF", "ICO", "ICNS", "IM", "DDS", "SPIDER")}
    kinds |= {
        "empty": b"",
        "zeros": bytes(5000),
        "WMF": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4HHI", 0, 0, 61, 43, 0, 0) + bytes(2) + b"\1\0\t\0" + bytes(100),
        "EMF": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(100),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500),
        "MP4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(500),
        "HTML": b"<!DOCTYPE html><html><body>404</body></html>" * 20,
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>' * 9,
        "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n",
        "ZIP": b"PK\3\4" + bytes(range(256)) * 4,
        "PSD": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x2b\0\0\0\x3d\0\x08\0\3" + bytes(3000),
        "text": "菜单 menu\n".encode() * 99,
        "noise": np.random.default_rng(1).bytes(5000),
        "QOI": b"qoif" + struct.pack(">IIBB", 61, 43, 3, 0) + bytes(3000),
        "FITS": b"SIMPLE  =                    T".ljust(2880) + bytes(2880),
        "XPM": b'/* XPM */\nstatic char *x[] = {\n"2 2 1 1",\n"a c #ff0000",\n"aa",\n"aa"};\n',
    }
    return {f"{FOREIGN}:{name}": content for name, content in kinds.items()}


# Mutations.

_EXTREMES = (
    *(0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *(9_000, 13_300, 14_000, 100_000),  # sides of pictures near what is read
)


def mutate(name: str, originals: dict[str, bytes], rng: np.random.Generator) -> bytes:
    """One to three mutations of an original, one after the other."""
    content = bytearray(originals[name])
    others = list(originals.values())
    for _ in range(rng.integers(1, 4)):
        content = MUTATIONS[rng.integers(len(MUTATIONS))](content, others, rng)
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        _mend_checksums(content)  # or nothing behind the first chunk would ever be read
    return bytes(content)


def flip_bits(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(content), rng.integers(1, 30)) if content else ():
        content[place] ^= 1 << rng.integers(8)
    return content


def cut(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    return content[: rng.integers(0, len(content) + 1)]


def remove_part(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    place = rng.integers(0, len(content) + 1)
    del content[place : place + rng.integers(1, 200)]
    return content


def repeat_part(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    first, second = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    part = content[first : first + min(second - first, 300)]
    content[second:second] = part * int(rng.integers(1, 5))
    return content


def splice(content: bytearray, others: list[bytes], rng: np.random.Generator) -> bytearray:
    other = others[rng.integers(len(others))]
    return content[: rng.integers(0, len(content) + 1)] + other[rng.integers(0, len(other) + 1) :]


def blank(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    place, length = rng.integers(0, len(content) + 1), int(rng.integers(1, 200))
    content[place : place + length] = bytes([rng.choice([0, 255])]) * len(content[place : place + length])
    return content


def edit_header(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    """Extreme numbers, of one, two or four bytes and either order, near the beginning, or in place of the sides."""
    code = "BHI"[rng.integers(3)]
    numbers = [number % (1 << 8 * struct.calcsize(code)) for number in rng.choice(_EXTREMES, 2).tolist()]
    if rng.random() < 0.5:
        for order in "<>":
            for number, side in zip(numbers, (61, 43), strict=True):
                place = content.find(struct.pack(f"{order}{code}", side))
                if 0 <= place < 300:
                    struct.pack_into(f"{order}{code}", content, place, number)
        return content
    for number in numbers:
        packed = struct.pack("<>"[rng.integers(2)] + code, number)
        place = int(rng.integers(0, max(1, min(len(content), 100))))
        content[place : place + len(packed)] = packed
    return content


def shuffle_bytes(content: bytearray, _: list[bytes], rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(0, len(content) + 1))
    length = len(content[place : place + 100])
    content[place : place + length] = rng.bytes(length)
    return content


MUTATIONS: tuple[Callable[[bytearray, list[bytes], np.random.Generator], bytearray], ...] = (
    *(flip_bits, cut, remove_part, repeat_part, splice, blank, edit_header, edit_header, shuffle_bytes),
)


def _mend_checksums(content: bytearray) -> None:
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(content):
            return
        content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
        place = end + 4


# The child.


class Child:
    """A process that decodes files, started anew when one ends it."""

    def __init__(self) -> None:
        self.peak = 0
        self._start()

    def decode(self, path: Path, compare: bool) -> tuple[str, str]:
        """The outcome, one of COLUMNS, and what there is to say about it."""
        self._pipe.send((str(path), compare))
        try:
            if self._pipe.poll(SECONDS):
                outcome, detail, peak = self._pipe.recv()
                self.peak = max(self.peak, peak)
                if outcome == "over memory":
                    self._restart()
                return outcome, detail
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._restart()
            return "died", f"exit code {code}"
        self._restart()
        return "hangs", f"no answer in {SECONDS:g} s"

    def end(self) -> None:
        self._process.kill()
        self._process.join()

    def _restart(self) -> None:
        self.end()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()


def serve(pipe: Connection) -> None:
    """Decodes what the pipe names until it is closed."""
    import warnings

    warnings.simplefilter("ignore")  # as cache.load_pictures does with Pillow's
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event in _PROGRAMS else None)
    while True:
        path, compare = pipe.recv()
        outcome, detail = decode_one(path, compare)
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )  # grows only: beyond, the child is started anew
        if started:
            outcome, detail = "programs", started.pop()
        elif peak > MOST_BYTES:
            outcome, detail = "over memory", f"{outcome}: {detail}"
        pipe.send((outcome, detail, peak))


_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile"}


def decode_one(path: str, compare: bool) -> tuple[str, str]:
    try:
        found = decode.decode_file(path, SIZE)
    except decode.DecodingError as error:
        reason = str(error)
        is_line = reason and "\n" not in reason and len(reason) < 250 and not re.search("0x[0-9a-f]{6}", reason)
        return ("refused in one line" if is_line else "tracebacks"), reason
    except BaseException as error:  # noqa: BLE001  # the campaign is there to find them
        return "tracebacks", f"{type(error).__name__}: {error}"
    if found.pixels.shape != (SIZE, SIZE, 3) or found.pixels.dtype != np.uint8:
        return "tracebacks", f"decoded to {found.pixels.shape} of {found.pixels.dtype}"
    if compare:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):  # Pillow clips 16 bits, and we do not
                return "decoded", ""
            expected = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if not np.array_equal(found.pixels, np.asarray(expected)):
            return "not Pillow's", "other pixels than Pillow's"
    return "decoded", ""


if __name__ == "__main__":
    main()
