"""Decoding to the bit as Pillow does, and a cache that is reused, rebuilt and cleaned when it should be."""

import errno
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxfood.data import cache, decode
from jaxfood.data.cache import load_pictures
from jaxfood.data.cache_folder import cache_folder, default_cache_dir, is_abandoned
from jaxfood.data.cached_pictures import CachedPictures
from jaxfood.data.decode import DecodedFile, decode_file_or_reason, decode_picture
from jaxfood.data.index import PictureIndex, index_pictures
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError

PHOTOGRAPHS = Path(os.environ.get("JAXFOOD_TEST_DATA") or Path(__file__).parents[2] / "shared/data") / "food10_original"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save_pictures(folder: Path, count: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(noise(20, 30, 3, seed=number)).save(folder / f"{number % 2}_{number}.jpg")
    return folder


def spoil(folder: Path) -> list[str]:
    """Adds one of each kind of unreadable picture; returns their names."""
    whole = (folder / "0_0.jpg").read_bytes()
    (folder / "0_text.jpg").write_text("<html>404 not found</html>")
    (folder / "0_zero.jpg").touch()
    (folder / "1_cut.jpg").write_bytes(whole[: len(whole) // 2])
    return ["0_text.jpg", "0_zero.jpg", "1_cut.jpg"]


def as_pillow_has_it(path: Path, size: int) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "decode_file_or_reason", lambda path, **_: pytest.fail(f"decoded {path} again"))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def index(tmp_path: Path) -> PictureIndex:
    return index_pictures(save_pictures(tmp_path / "train"))


@pytest.fixture
def load(tmp_path: Path):
    def load(index: PictureIndex, image_size: int = 16, **options) -> Pictures:
        return load_pictures(index, image_size, cache_dir=tmp_path / "cache", progress=False, **options)

    return load


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1"])
def test_jpeg_modes_decode_as_pillow_does(tmp_path, mode):
    path = tmp_path / "x.jpg"
    Image.fromarray(noise(40, 60, 3)).convert(mode).convert("L" if mode == "1" else mode).save(path)
    picture = decode_picture(path, 24)
    assert picture.shape == (24, 24, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, as_pillow_has_it(path, 24))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "1"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_png_and_webp_modes_decode_as_pillow_does(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise(40, 60, 4), "RGBA").convert(mode).save(path)
    np.testing.assert_array_equal(decode_picture(path, 24), as_pillow_has_it(path, 24))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palette_with_transparency_warns_of_nothing(tmp_path, transparency):
    path = tmp_path / "x.png"
    palette = Image.fromarray(noise(40, 60, 3)).quantize(256)
    palette.save(path, transparency=transparency)
    same_without = tmp_path / "y.png"
    palette.save(same_without)
    np.testing.assert_array_equal(decode_picture(path, 24), as_pillow_has_it(same_without, 24))


def test_sixteen_bit_grey_is_scaled(tmp_path):
    path = tmp_path / "x.png"
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(path)
    np.testing.assert_array_equal(
        decode_picture(path, 64), np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    )


def test_exif_orientation_is_ignored_as_in_the_notes(tmp_path):
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 60, 3)).save(path, exif=exif)
    plain = tmp_path / "y.jpg"
    Image.fromarray(noise(40, 60, 3)).save(plain)
    np.testing.assert_array_equal(decode_picture(path, 24), as_pillow_has_it(plain, 24))


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs in {PHOTOGRAPHS}")
def test_photographs_decode_as_pillow_does(load):
    index = index_pictures(PHOTOGRAPHS).subset(slice(0, 250, 50))
    pictures = load(index, 128)
    np.testing.assert_array_equal(pictures.images, [as_pillow_has_it(path, 128) for path in index.paths])
    assert pictures.labels.tolist() == index.labels.tolist()


def test_loaded_pictures(index, load):
    pictures = load(index)
    assert isinstance(pictures.images, np.memmap)
    assert not pictures.images.flags.writeable
    assert pictures.images.shape == (5, 16, 16, 3)
    assert pictures.images.dtype == np.uint8
    np.testing.assert_array_equal(pictures.images, [as_pillow_has_it(path, 16) for path in index.paths])
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1]
    assert pictures.labels.dtype == np.int32
    assert pictures.paths == index.paths
    assert pictures.skipped == {}
    assert len(pictures) == 5


def test_order_survives_uneven_decoding(tmp_path, load, monkeypatch):
    index = index_pictures(save_pictures(tmp_path / "many", 60))

    def decode_slowly(path: Path, **options) -> DecodedFile | str:
        time.sleep(0.02 if path.name == "0_0.jpg" else 0)
        return decode_file_or_reason(path, **options)

    monkeypatch.setattr(cache, "decode_file_or_reason", decode_slowly)
    np.testing.assert_array_equal(load(index).images, [as_pillow_has_it(path, 16) for path in index.paths])


def test_second_load_decodes_nothing(index, load, monkeypatch):
    first = load(index)
    forbid_decoding(monkeypatch)
    second = load(index)
    np.testing.assert_array_equal(first.images, second.images)
    assert second.paths == first.paths


def test_labels_are_those_of_the_index(index, load):
    load(index)
    relabelled = PictureIndex(index.root, index.paths, index.labels + 5)
    assert load(relabelled).labels.tolist() == [5, 5, 5, 6, 6]


def change_content(path: Path) -> None:
    Image.fromarray(noise(10, 12, 3, seed=99)).save(path)


def change_time_only(path: Path) -> None:
    os.utime(path, ns=(0, 1_000_000_000))


@pytest.mark.parametrize("change", [change_content, change_time_only, Path.unlink])
def test_changed_folder_is_decoded_again_and_replaces_the_old(index, load, tmp_path, change):
    load(index)
    old = set(files_in(tmp_path / "cache"))
    change(index.paths[2])
    changed = index_pictures(index.root)
    pictures = load(changed)
    np.testing.assert_array_equal(pictures.images, [as_pillow_has_it(path, 16) for path in changed.paths])
    new = set(files_in(tmp_path / "cache"))
    assert len(new) == 2
    assert not new & old


def test_every_root_and_size_has_its_own_entry(index, load, tmp_path, monkeypatch):
    other = index_pictures(save_pictures(tmp_path / "elsewhere/train", 3))
    load(index), load(index, 8), load(other)
    forbid_decoding(monkeypatch)
    assert len(load(index)) == 5
    assert load(index, 8).images.shape[1] == 8
    assert len(load(other)) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_unreadable_pictures_are_all_named(index, load, tmp_path):
    names = spoil(index.root)
    with pytest.raises(UserError) as error:
        load(index_pictures(index.root))
    message = str(error.value)
    assert all(name in message for name in names)
    assert "0_0.jpg" not in message
    assert "data.skip_corrupt" in message
    assert "3 of the 8" in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").iterdir())


def test_skip_corrupt_leaves_them_out(index, load, monkeypatch):
    whole = load(index)
    names = spoil(index.root)
    spoiled = index_pictures(index.root)
    for _ in ("decoded", "reused"):
        pictures = load(spoiled, skip_corrupt=True)
        assert [path.name for path in pictures.skipped] == names
        assert pictures.paths == index.paths
        assert pictures.labels.tolist() == index.labels.tolist()
        np.testing.assert_array_equal(pictures.images, whole.images)
        forbid_decoding(monkeypatch)


def test_skipping_does_not_excuse_later_loads(index, load):
    spoil(index.root)
    spoiled = index_pictures(index.root)
    load(spoiled, skip_corrupt=True)
    with pytest.raises(UserError):
        load(spoiled)


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path, load):
    (tmp_path / "1_0.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"1_0\.jpg"):
        load(index_pictures(tmp_path), skip_corrupt=True)


@pytest.mark.parametrize("skip_corrupt", [False, True])
def test_a_file_that_cannot_be_read_is_no_broken_picture(index, load, tmp_path, monkeypatch, skip_corrupt):
    """A disk that fails for a moment must leave no picture out of the cache for ever."""

    def fail(path: str, flags: int) -> int:
        if path == str(index.paths[3]):
            raise OSError(errno.EIO, "Input/output error")
        return os.open(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(decode, "_open_at_once", fail)
        with pytest.raises(UserError, match=rf"^cannot read {index.paths[3]} \(Input/output error\): mend that"):
            load(index, skip_corrupt=skip_corrupt)
    assert not list((tmp_path / "cache").iterdir())
    assert len(load(index, skip_corrupt=skip_corrupt)) == 5


def make_folder(path: Path) -> None:
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.symlink_to("gone.jpg")


@pytest.mark.parametrize("make", [make_folder, link_to_nothing])
def test_what_is_no_file_is_named_even_when_skipping(tmp_path, index, load, make):
    make(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"cannot read .*x\.jpg \("):
        load(PictureIndex(tmp_path, (*index.paths, tmp_path / "x.jpg"), np.zeros(6, np.int32)), skip_corrupt=True)


def test_large_pictures_are_read_and_monstrous_ones_named(index, load, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # of 600: Pillow warns
    assert len(load(index)) == 5
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow refuses, as what has 200 million by its own limit
    assert len(load(index, 8)) == 5
    monkeypatch.setattr(decode, "MAX_PIXELS", 500)
    with pytest.raises(UserError, match=r"none of the pictures .*0_0\.jpg \(too large: 30 x 20 pixels"):
        load(index, 4)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, AssertionError])
def test_interrupted_decoding_leaves_nothing(index, load, tmp_path, monkeypatch, failure):
    def interrupt(path: Path, **options) -> DecodedFile | str:
        if path == index.paths[3]:
            raise failure
        return decode_file_or_reason(path, **options)

    monkeypatch.setattr(cache, "decode_file_or_reason", interrupt)
    with pytest.raises(failure):
        load(index)
    assert not list((tmp_path / "cache").iterdir())


def test_failure_keeps_the_older_version(index, load, tmp_path):
    load(index)
    before = files_in(tmp_path / "cache")
    spoil(index.root)
    with pytest.raises(UserError):
        load(index_pictures(index.root))
    assert files_in(tmp_path / "cache") == before


def test_full_disk_is_the_users_to_mend(index, load, tmp_path, monkeypatch):
    def fill_disk(file, header) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fill_disk)
    with pytest.raises(UserError, match=r"the disk is full.*data\.cache_dir"):
        load(index)
    assert not list((tmp_path / "cache").iterdir())


def test_unwritable_cache_dir_is_named(index, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        load_pictures(index, 16, cache_dir=tmp_path / "file/cache", progress=False)
    assert str(tmp_path / "file/cache") in str(error.value)
    assert "data.cache_dir" in str(error.value)


def cut_array(entry: Path) -> None:
    array = next(entry.glob("*.npy"))
    array.write_bytes(array.read_bytes()[:500])


def empty_array(entry: Path) -> None:
    next(entry.glob("*.npy")).write_bytes(b"")


def reshape_array(entry: Path) -> None:
    np.save(next(entry.glob("*.npy")), np.zeros((4, 16, 16, 3), np.uint8))


def break_description(entry: Path) -> None:
    next(entry.glob("*.json")).write_text('{"skipped"')


def lose_description(entry: Path) -> None:
    next(entry.glob("*.json")).unlink()


def damage_header(entry: Path) -> None:
    array = next(entry.glob("*.npy"))
    content = bytearray(array.read_bytes())
    content[20:60] = b"(" * 40
    array.write_bytes(content)


def lengthen_array(entry: Path) -> None:
    with next(entry.glob("*.npy")).open("ab") as file:
        file.write(b"more")


def empty_description(entry: Path) -> None:
    next(entry.glob("*.json")).write_text("[]")


def describe_by_bytes(entry: Path) -> None:
    next(entry.glob("*.json")).write_bytes(b"\xff" * 100)


def forget_digests(entry: Path) -> None:
    path = next(entry.glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "digests": ["0"]}))


DAMAGES = [cut_array, empty_array, reshape_array, damage_header, lengthen_array]
DAMAGES += [break_description, lose_description, empty_description, describe_by_bytes, forget_digests]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_rebuilt(index, load, tmp_path, damage):
    expected = load(index)
    whole = {path: path.read_bytes() for path in files_in(tmp_path / "cache")}
    damage(next((tmp_path / "cache").iterdir()))
    pictures = load(index)
    np.testing.assert_array_equal(pictures.images, [as_pillow_has_it(path, 16) for path in index.paths])
    assert pictures.digests == expected.digests
    assert {path: path.read_bytes() for path in files_in(tmp_path / "cache")} == whole


def test_leftovers_of_dead_writers_are_removed_but_not_those_of_live_ones(index, load, tmp_path):
    load(index)
    entry = next((tmp_path / "cache").iterdir())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = platform.node()
    dead, live = entry / f"abc~{host}~{ended.pid}~0.tmp", entry / f"abc~{host}~{os.getpid()}~0.tmp"
    elsewhere, long_ago = entry / "abc~elsewhere~1~0.tmp", entry / "abc~elsewhere~1~1.tmp"
    for temporary in (dead, live, elsewhere, long_ago):
        temporary.touch()
    os.utime(long_ago, (0, 0))
    change_time_only(index.paths[0])
    load(index)
    assert live.exists()
    assert elsewhere.exists()
    assert not dead.exists()
    assert not long_ago.exists()


def test_entry_says_what_it_was_made_from(index, load, tmp_path):
    load(index)
    entry = next((tmp_path / "cache").iterdir())
    description = json.loads(next(entry.glob("*.json")).read_text())
    assert description["root"] == str(index.root)
    assert description["pictures"] == 5
    assert "train-16px" in entry.name


def test_progress_bar_is_on_standard_error(index, tmp_path, capsys):
    load_pictures(index, 16, cache_dir=tmp_path / "cache", description="train")
    out, err = capsys.readouterr()
    assert "train" in err
    assert "5/5" in err
    assert not out
    load_pictures(index, 8, cache_dir=tmp_path / "cache", progress=False)
    assert capsys.readouterr() == ("", "")


def test_subset_and_concatenation(index, load):
    pictures = load(index)
    picked = pictures.subset([4, 0])
    np.testing.assert_array_equal(picked.images, pictures.images[[4, 0]])
    assert picked.labels.tolist() == [1, 0]
    assert picked.paths == (index.paths[4], index.paths[0])
    joined = picked + pictures.subset(slice(2))
    np.testing.assert_array_equal(joined.images, pictures.images[[4, 0, 0, 1]])
    assert joined.labels.tolist() == [1, 0, 0, 0]
    assert len(joined) == 4


def test_empty_index_is_refused(index, load):
    with pytest.raises(ValueError, match="at least one"):
        load(index.subset([]))


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "jaxfood"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache/jaxfood"


def test_entry_holds_digests_reasons_and_orientation(index, load, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(20, 30, 3)).save(index.root / "1_9.jpg", exif=exif)
    spoil(index.root)
    spoiled = index_pictures(index.root)
    expected = tuple(
        hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in (*index.paths, index.root / "1_9.jpg")
    )
    for _ in ("decoded", "reused"):
        pictures = load(spoiled, skip_corrupt=True)
        assert pictures.digests == expected
        assert pictures.oriented == 1
        assert pictures.skipped[index.root / "0_zero.jpg"] == "an empty file"
        assert pictures.skipped[index.root / "0_text.jpg"].startswith("an HTML page")
    subset = pictures.subset([2, 0])
    assert subset.digests == (expected[2], expected[0])
    assert (subset + subset).digests == (expected[2], expected[0]) * 2
    assert CachedPictures([pictures], [2, 0]).digests == (expected[2], expected[0])
    assert CachedPictures([pictures], [5]).labels.tolist() == [1]
    upright = load(spoiled, skip_corrupt=True, exif_orientation=True)
    np.testing.assert_array_equal(upright.images[:5], pictures.images[:5])
    assert (upright.images[5] != pictures.images[5]).any()


def test_many_unreadable_pictures_are_listed_in_a_file(index, load, tmp_path):
    for number in range(30):
        (index.root / f"0_broken{number:02}.jpg").touch()
    with pytest.raises(UserError) as error:
        load(index_pictures(index.root))
    message = str(error.value)
    assert "30 of the 35 pictures" in message
    assert "0_broken09.jpg (an empty file), and 20 more, all listed in " in message
    assert "0_broken10.jpg" not in message
    entry = next((tmp_path / "cache").iterdir())
    assert f"all listed in {entry / 'unreadable.txt'}: mend or remove them" in message
    assert len((entry / "unreadable.txt").read_text().splitlines()) == 30
    assert [path.name for path in entry.iterdir()] == ["unreadable.txt"]
    load(index_pictures(index.root), skip_corrupt=True)
    assert not (entry / "unreadable.txt").exists()


# Several processes at once.


def replace_by_another_version(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "0123.npy").touch()


@pytest.mark.parametrize("moves_what_is_mapped", [True, False])
def test_an_entry_replaced_as_soon_as_it_is_written(index, load, monkeypatch, moves_what_is_mapped):
    """By another process with other versions of the same files."""
    expected = [as_pillow_has_it(path, 16) for path in index.paths]
    write, times = cache._Entry.write, []

    def write_and_lose(entry, bar):
        pictures = write(entry, bar)
        times.append(1)
        if len(times) < 3:
            replace_by_another_version(entry.folder)
        return pictures

    monkeypatch.setattr(cache, "_MOVES_WHAT_IS_MAPPED", moves_what_is_mapped and os.name == "posix")
    monkeypatch.setattr(cache._Entry, "write", write_and_lose)
    pictures = load(index)
    np.testing.assert_array_equal(pictures.images, expected)
    # Also where they are read from the file, not the map.
    np.testing.assert_array_equal(CachedPictures([pictures]).read(np.array([3, 1]))[0], [expected[3], expected[1]])
    assert len(times) == (1 if moves_what_is_mapped else 3)


def test_an_entry_that_is_always_removed_ends_in_one_line(index, load, monkeypatch):
    def write_and_lose(entry, bar):
        write(entry, bar)
        replace_by_another_version(entry.folder)

    write = cache._Entry.write
    monkeypatch.setattr(cache._Entry, "write", write_and_lose)
    with pytest.raises(UserError, match=r"^.*train-16px-\w+: decoded 3 times and never there .*data\.cache_dir"):
        load(index)


@pytest.mark.slow
def test_processes_that_change_the_files_under_each_other(tmp_path):
    """Each gets the pictures that it indexed, or those that came in their place, whole; none stops."""
    folder = save_pictures(tmp_path / "train", 20)
    program = (
        "import os, sys\n"
        "from jaxfood.data.cache import load_pictures\n"
        "from jaxfood.data.cached_pictures import CachedPictures\n"
        "from jaxfood.data.index import index_pictures\n"
        "for turn in range(40):\n"
        "    if sys.argv[3] == 'change':\n"
        "        os.utime(sys.argv[1] + '/0_0.jpg')\n"
        "    pictures = load_pictures(index_pictures(sys.argv[1]), 16, cache_dir=sys.argv[2], progress=False)\n"
        "    images, _ = CachedPictures([pictures]).read([*range(20)])\n"
        "    assert (images == pictures.images).all()\n"
        "    print(pictures.images.sum(), len(set(pictures.digests)))\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
    running = [
        subprocess.Popen([*command, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for what in ("change", "change", "watch", "watch")
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [error for _, error in outputs] == [""] * 4
    lines = [line for out, _ in outputs for line in out.splitlines()]
    assert len(lines) == 160
    assert len(set(lines)) == 1


# Names and places.


def test_names_that_are_not_utf8_or_very_long(tmp_path, load):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xd6\xd0" + b"\xce\xc4" * 50)) / ("食" * 80) / ("x" * 250)
    try:
        save_pictures(folder)
    except OSError:
        pytest.skip("this file system takes no such names")
    (folder / os.fsdecode(b"0_\xff.jpg")).touch()
    index = index_pictures(folder)
    for _ in ("decoded", "reused"):
        pictures = load(index, skip_corrupt=True)
        assert len(pictures) == 5
        assert list(pictures.skipped.values()) == ["an empty file"]
    entry = next((tmp_path / "cache").iterdir())
    assert len(os.fsencode(entry.name)) < 100
    for number in range(20):
        (folder / os.fsdecode(b"0_\xfe%d.jpg" % number)).touch()
    with pytest.raises(UserError, match="and 11 more, all listed in"):
        load(index_pictures(folder))


def test_no_home_folder_is_named(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match=r"^no home folder is known here: set HOME"):
        cache_folder()


@pytest.mark.parametrize("cache_dir", ["~nobody-of-this-name/cache", "a\0b"])
def test_cache_folders_that_cannot_be(cache_dir):
    with pytest.raises(UserError, match=r"there is no such user|no path holds a null byte"):
        cache_folder(cache_dir)


def test_no_current_folder(monkeypatch):
    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    with pytest.raises(UserError, match=r"^data\.cache_dir = cache: the current folder is gone"):
        cache_folder("cache")


def test_names_of_temporaries_that_nobody_wrote():
    for name in (f"a~{platform.node()}~{10**30}~0.tmp", f"a~{platform.node()}~x~0.tmp", "a.tmp"):
        assert not is_abandoned(Path(name))


@pytest.mark.parametrize("place", ["fsync", "replace", "write_text"])
def test_a_disk_that_fills_late_leaves_nothing(index, load, tmp_path, monkeypatch, place):
    def fill_disk(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if place == "write_text" else os, place, fill_disk)
        with pytest.raises(UserError, match=r"^cannot write to the cache folder .* \(the disk is full\): mend"):
            load(index)
    assert not list((tmp_path / "cache").iterdir())
    assert len(load(index)) == 5


def test_what_is_renamed_is_on_the_disk(index, load, monkeypatch):
    """Array, description, and the folder that has their names."""
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append(Path(names[1]).suffix), replace(*names)))
    load(index)
    assert events == ["fsync", ".npy", "fsync", "fsync", ".json", "fsync"]
