"""Food-11 of what people have: every year's layout as every kind of archive, and archives that nobody should trust."""

import io
import json
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from jaxfood import food11 as command
from jaxfood.config import load_config
from jaxfood.data import food11
from jaxfood.data.food11 import archives, years
from jaxfood.data.food11.layout import place_of
from jaxfood.data.index import index_pictures
from jaxfood.errors import UserError

LAYOUTS = {
    "2021": {
        **{f"food-11/training/labeled/{label:02}/{number}.jpg": "train" for label in range(2) for number in range(2)},
        **{f"food-11/training/unlabeled/00/{number}.jpg": "unlabeled" for number in range(3)},
        "food-11/validation/00/0.jpg": "valid",
        "food-11/testing/00/0000.jpg": "test",
    },
    "2022": {
        **{f"food11/training/{label}_{number}.jpg": "train" for label in range(2) for number in range(2)},
        "food11/validation/0_0.jpg": "valid",
        **{f"food11/test/{number:04}.jpg": "test" for number in range(1, 3)},
    },
    "2023": {"train/0_0.jpg": "train", "valid/1_0.jpg": "valid", "test/0001.jpg": "test"},
    "Food-11": {"training/Bread/0.jpg": "train", "validation/Soup/0.jpg": "valid", "evaluation/Soup/1.jpg": "test"},
}
MADE = {
    "2021": {"train/00/0.jpg", "train/01/1.jpg", "unlabeled/2.jpg", "valid/00/0.jpg", "test/0000.jpg"},
    "2022": {"train/1_1.jpg", "valid/0_0.jpg", "test/0002.jpg"},
    "2023": {"train/0_0.jpg", "valid/1_0.jpg", "test/0001.jpg"},
    "Food-11": {"train/Bread/0.jpg", "valid/Soup/0.jpg", "test/1.jpg"},
}


def picture(number: int) -> bytes:
    """A JPEG of a grey of its own."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256,) * 3).save(file, "JPEG")
    return file.getvalue()


def contents(names: Mapping[str, str]) -> dict[str, bytes]:
    return {name: picture(9 * number) for number, name in enumerate(names)}


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def unpack(path: Path, out: Path) -> list[str]:
    return food11.unpack(food11.open_sources([path]), out)


MAKERS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "zip": lambda path, files: make_zip(path / "a.zip", files),
    "tar": lambda path, files: make_tar(path / "a.tar", files),
    "tar.gz": lambda path, files: make_tar(path / "a.tar.gz", files, "w:gz"),
    "tar.xz": lambda path, files: make_tar(path / "a.tar.xz", files, "w:xz"),
    "tar.bz2": lambda path, files: make_tar(path / "a.tgz", files, "w:bz2"),  # its content decides
    "folder": lambda path, files: make_folder(path / "a", files),
}


@pytest.mark.parametrize("year", LAYOUTS)
@pytest.mark.parametrize("maker", MAKERS)
def test_every_layout_of_every_kind_becomes_the_same_folder(tmp_path: Path, year: str, maker: str) -> None:
    files = contents(LAYOUTS[year])
    source = MAKERS[maker](tmp_path, {**files, "__MACOSX/food11/._0_0.jpg": b"x", "food11/readme.txt": b"x"})
    lines = unpack(source, tmp_path / "out")
    made = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.jpg")
    }
    assert set(made) >= MADE[year]
    assert sorted(made.values()) == sorted(files.values())
    assert any("passed over: 1 " in line for line in lines)
    counts = json.loads((tmp_path / "out" / food11.MARK).read_bytes())["counts"]
    assert counts == {split: list(LAYOUTS[year].values()).count(split) for split in counts}
    assert not list(tmp_path.glob("out~*"))


def test_a_training_reads_what_was_made(tmp_path: Path) -> None:
    unpack(make_zip(tmp_path / "a.zip", contents(LAYOUTS["2021"])), tmp_path / "out")
    assert index_pictures(tmp_path / "out" / "train").labels.tolist() == [0, 0, 1, 1]


def test_the_next_command_is_one_that_train_takes(tmp_path: Path) -> None:
    lines = unpack(make_zip(tmp_path / "a.zip", contents(LAYOUTS["2021"])), tmp_path / "the out")
    words = next(line for line in lines if line.startswith("with its pictures without labels"))
    settings = words.split("--config hw3 ")[1].replace(f"'{tmp_path / 'the out'}'", str(tmp_path / "the out"))
    pairs = [part.strip().partition(" ") for part in settings.split("--") if part]
    config = load_config("hw3", [f"{name}={value}" for name, _, value in pairs])
    assert (config.data.root, config.data.train, config.data.unlabeled) == (
        str(tmp_path / "the out"),
        "train",
        "unlabeled",
    )
    assert any(f"--images '{tmp_path / 'the out' / 'test'}'" in line for line in lines)


def test_without_out_a_folder_is_only_looked_at(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", contents(LAYOUTS["2021"]))
    lines = food11.look(food11.open_sources([folder]))
    assert f"--data.root {folder} --data.train food-11/training/labeled --data.valid food-11/validation" in lines[1]
    assert os.listdir(tmp_path) == ["a"]
    archive = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2021"]))
    assert food11.look(food11.open_sources([archive]))[-1] == "unpack it with --out DIR"


def test_archives_of_one_split_each_and_a_folder_of_archives(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    make_zip(tmp_path / "downloads" / "training.zip", {"0_0.jpg": picture(1)})
    make_zip(tmp_path / "downloads" / "validation.zip", {"validation/0_0.jpg": picture(2)})
    lines = unpack(tmp_path / "downloads", tmp_path / "out")
    assert (tmp_path / "out" / "train" / "0_0.jpg").read_bytes() == picture(1)
    assert (tmp_path / "out" / "valid" / "0_0.jpg").read_bytes() == picture(2)
    assert lines[0].startswith("train 1, valid 1 pictures")


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2022"]))
    unpack(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert unpack(source, tmp_path / "out")[0] == f"{tmp_path / 'out'} is whole already, made of a.zip: left as it is"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    (tmp_path / "out" / "train" / "0_0.jpg").unlink()
    with pytest.raises(UserError, match=r"with train 4, valid 1, test 2 pictures, and now it holds train 3.*remove it"):
        unpack(source, tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2022"]))
    make_folder(tmp_path / "out", {"mine.txt": b"x"})
    with pytest.raises(UserError, match="this command did not make: choose another --out"):
        unpack(source, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").unlink()
    unpack(source, tmp_path / "out")  # an empty one is taken
    assert (tmp_path / "out" / food11.MARK).exists()


def test_an_interrupted_one_is_never_whole_and_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2022"]))

    def interrupt(path: Path, content: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(food11, "write_whole", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    left = tmp_path / food11.temporary_name("out")
    make_folder(left, {"train/0_0.jpg": b"half"})
    monkeypatch.setattr(food11, "is_abandoned", lambda path: path == left)  # as after kill -9
    unpack(source, tmp_path / "out")
    assert not left.exists()
    assert (tmp_path / "out" / "train" / "0_0.jpg").read_bytes() == picture(0)


def test_counts_tell_the_year() -> None:
    assert years.compare({"train": 3080, "unlabeled": 6786, "valid": 660, "test": 3347}).startswith(
        "exactly as many as the 2021 homework"
    )
    assert years.compare({"train": 9866, "valid": 3430, "test": 3347}).startswith(
        "exactly as many as the 2022 homework"
    )
    assert years.compare({"train": 10000, "valid": 3643, "test": 3000}).startswith("exactly as many as the 2023")
    said = years.compare({"train": 9860, "valid": 3430})
    assert said.startswith("nearest to the 2022 homework")
    assert "train has 9,860 of 9,866, test is missing" in said
    assert "unlabeled is not of that year" in years.compare(
        {"train": 10000, "valid": 3643, "test": 3000, "unlabeled": 5}
    )
    for counts in ({"train": 5, "valid": 5}, {"train": 3000, "valid": 750, "test": 1250}):
        assert years.compare(counts) == "no year's homework has such counts: another data set, or a part of one"
    assert years.compare({"valid": 3643}).startswith("nearest to the 2023 homework")


def test_the_innermost_folder_decides() -> None:
    assert place_of("test/food-11/Training/Bread/0.jpg") == ("train", "test/food-11/Training", "Bread/0.jpg")
    assert place_of("a/b/0.jpg") is None
    assert place_of("0_0.jpg", "training") == ("train", "", "0_0.jpg")


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "train/../../evil.jpg", "/tmp/evil.jpg", "C:/evil.jpg", "train\\..\\..\\e.jpg"]
)
@pytest.mark.parametrize("maker", ["zip", "tar.gz"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str, maker: str) -> None:
    source = MAKERS[maker](tmp_path, {"train/0_0.jpg": picture(1), name: picture(2)})
    with pytest.raises(UserError, match="leads out of the folder"):
        unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [source.name]


def test_windows_names_are_refused_there_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_zip(tmp_path / "a.zip", {"train/0_0.jpg": picture(1), "train/con.jpg": picture(2)})
    unpack(source, tmp_path / "out")
    monkeypatch.setattr(archives, "os", SimpleNamespace(name="nt"))
    with pytest.raises(UserError, match=r"Windows takes no file called 'con.jpg'"):
        archives.ZipSource(source).members()


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("train/0_1.jpg", tarfile.SYMTYPE),
            ("train/0_2.jpg", tarfile.LNKTYPE),
            ("train/0_3.jpg", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("train/0_0.jpg")
        info.size = len(picture(1))
        archive.addfile(info, io.BytesIO(picture(1)))
    assert "passed over: 3 links or devices" in unpack(tmp_path / "a.tar", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        link = zipfile.ZipInfo("train/0_1.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("train/0_0.jpg", picture(1))
    assert "passed over: 1 links or devices" in unpack(tmp_path / "a.zip", tmp_path / "out2")
    assert [path.name for path in (tmp_path / "out2" / "train").iterdir()] == ["0_0.jpg"]


@pytest.mark.parametrize("maker", ["zip", "tar.gz"])
def test_bombs_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 10**6)
    source = MAKERS[maker](tmp_path, {"train/0_0.jpg": picture(1), "zeros.bin": bytes(2 * 10**6)})
    with pytest.raises(UserError, match="would take more than"):
        unpack(source, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    with pytest.raises(UserError, match="more than 1 files"):
        unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [source.name]


def test_a_file_of_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    content = picture(1) * 50
    source = make_zip(tmp_path / "a.zip", {"train/0_0.jpg": content})
    honest = source.read_bytes()
    declared = struct.pack("<II", len(content), len(content))  # stored: as long packed as unpacked
    source.write_bytes(honest.replace(declared, struct.pack("<II", len(content), 100)))
    assert source.read_bytes() != honest
    with pytest.raises(UserError, match="damaged or cut short"):
        unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tar_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(2**16))
    with pytest.raises(UserError, match=r"a header of it declares 1,073,741,824 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("maker", ["zip", "tar", "tar.gz"])
def test_a_download_that_was_cut_short_is_said(tmp_path: Path, maker: str) -> None:
    source = MAKERS[maker](tmp_path, contents(LAYOUTS["2022"]))
    whole = source.read_bytes()
    for length in (len(whole) // 2, len(whole) // 3, len(whole) // 4):
        source.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"is damaged or cut short.*fetch it again"):
            unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [source.name]


def test_a_tar_cut_between_two_files_is_not_taken_for_whole(tmp_path: Path) -> None:
    source = make_tar(tmp_path / "a.tar", contents(LAYOUTS["2022"]))
    size = len(picture(0))
    source.write_bytes(source.read_bytes()[: 512 + -(-size // 512) * 512])  # a header and its file
    with pytest.raises(UserError, match="cut short"):
        unpack(source, tmp_path / "out")


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2022"]))
    content = bytearray(source.read_bytes())
    content[300] ^= 1
    source.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


def test_the_checksum_of_a_compressed_tar_is_compared(tmp_path: Path) -> None:
    """tarfile stops reading before it; it is what tells a changed byte of a picture."""
    source = make_tar(tmp_path / "a.tar.gz", contents(LAYOUTS["2022"]), "w:gz")
    content = bytearray(source.read_bytes())
    content[-8] ^= 1
    source.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz"]


def test_a_password_is_said(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "a.zip", {"train/0_0.jpg": picture(1)})
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(content)
    with pytest.raises(UserError, match="protected by a password"):
        unpack(source, tmp_path / "out")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    for content, said in (
        (
            b"<html><body>Log in</body></html>",
            "an HTML page, as a download that failed leaves: fetch the archive again",
        ),
        (b"7z\xbc\xaf'\x1c", "a 7z archive; unpack it with its own program"),
        (b"", "an empty file; name another"),
    ):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(UserError, match=said):
            food11.open_sources([tmp_path / "a.zip"])
    with pytest.raises(UserError, match=r"nothing is there: did you mean a.zip"):
        food11.open_sources([tmp_path / "A.zip"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither pictures nor archives"):
        food11.open_sources([tmp_path / "empty"])


def test_what_is_not_clear_is_refused(tmp_path: Path) -> None:
    for files, said in (
        ({"a/train/0_0.jpg": b"1", "b/valid/0_0.jpg": b"2"}, "more than one data folder"),
        ({"a/train/0_0.jpg": b"1", "b/train/0_0.jpg": b"2"}, "the pictures of train are in two places"),
        ({"train/0_0.jpg": b"1", "train/0_0.JPG": b"2"}, "would both become train/0_0"),
        ({"pictures/0_0.jpg": b"1"}, "no pictures below a folder named train, training"),
    ):
        with pytest.raises(UserError, match=said):
            unpack(make_zip(tmp_path / "a.zip", files), tmp_path / "out")
    make_tar(tmp_path / "b.tar", {"./train/0_0.jpg": b"1", "train/0_0.jpg": b"2"})
    with pytest.raises(UserError, match=r"holds train/0_0.jpg twice"):
        unpack(tmp_path / "b.tar", tmp_path / "out")


def test_a_disk_without_room_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2022"]))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(food11.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"that takes 0.1 GB, and the disk has 0.0 GB left: make room"):
        unpack(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A data set as Hugging Face keeps it: two files of train, one of test without labels."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    told = json.dumps({"info": {"features": {"label": {"names": ["Bread", "Soup"], "_type": "ClassLabel"}}}})

    def write(name: str, labels: list[int | None], path: str) -> None:
        rows = [{"bytes": picture(number), "path": path.format(number) or None} for number in range(len(labels))]
        columns = {"image": rows, "label": pyarrow.array(labels, pyarrow.int64())}
        table = pyarrow.table(columns).replace_schema_metadata({"huggingface": told})
        parquet.write_table(table, folder / name)

    write("train-00000-of-00002-ab12.parquet", [0, 1, 1], "x{}.png")
    write("train-00001-of-00002-cd34.parquet", [0], "")
    write("validation-00000-of-00001.parquet", [1], "")
    write("test-00000-of-00001.parquet", [None, -1], "..\\..\\tmp/000{}.jpg")  # of which the last part counts
    return folder.parent


def test_parquet_files_become_the_homeworks_names(tmp_path: Path, parquet: Path) -> None:
    unpack(parquet, tmp_path / "out")
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*g")}
    assert made == {
        *("train/0_0.png", "train/1_1.png", "train/1_2.png", "train/0_3.jpg"),
        *("valid/1_0.jpg", "test/0000.jpg", "test/0001.jpg"),
    }
    assert (tmp_path / "out" / "train" / "1_2.png").read_bytes() == picture(2)
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["Bread", "Soup"]


def test_a_broken_or_foreign_parquet_file_is_said(tmp_path: Path, parquet: Path) -> None:
    file = next(parquet.rglob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"is no whole \.parquet file"):
        unpack(file, tmp_path / "out")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(UserError, match="no column image with bytes and path, but text"):
        unpack(tmp_path / "text.parquet", tmp_path / "out")


def test_without_from_it_says_what_to_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    command.main([])
    printed = capsys.readouterr().out
    assert "Kaggle competition ml2023spring-hw3 " in printed
    assert max(map(len, printed.splitlines())) <= 120
    with pytest.raises(UserError, match="--out needs --from"):
        command.main(["--out", "x"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_zip(tmp_path / "a.zip", contents(LAYOUTS["2023"]))
    command.main(["--from", str(source), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train 1, valid 1, test 1 pictures, 0 MB: no year's homework has such counts")
    assert lines[1] == f"made {tmp_path / 'out'}"
    assert lines[2] == f"next: python -m jaxfood.train --config hw3 --data.root {tmp_path / 'out'}"
    assert lines[3] == f"then: python -m jaxfood.predict RUN --images {tmp_path / 'out' / 'test'}"
    with pytest.raises(UserError, match="only what is on this machine"):
        command.main(["--from", "https://www.kaggle.com/a.zip"])
