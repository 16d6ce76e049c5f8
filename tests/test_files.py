"""Files written whole, and which paths are this machine's. Buckets: test_remote.py."""

import os
import threading
from pathlib import Path

import pytest

from jaxfood.errors import UserError
from jaxfood.files import remove, to_local_path, to_path, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for content in ("麵\n", b"bytes"):
        write_whole(tmp_path / "a.txt", content)
    assert (tmp_path / "a.txt").read_bytes() == b"bytes"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("there", [True, False])
def test_of_a_link_what_it_leads_to_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk/a.txt").write_text("old")
    (tmp_path / "first").symlink_to("disk/a.txt")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    write_whole(tmp_path / "second", "new")
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "first").is_symlink()
    assert [path.read_text() for path in (tmp_path / "disk").iterdir()] == ["new"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_whole(tmp_path / "pipe", "rows")
    reader.join(timeout=10)
    assert read == [b"rows"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *paths: pytest.fail("replaced"))  # root may do that to the machine's own
    (tmp_path / "nowhere").symlink_to(os.devnull)
    write_whole(tmp_path / "nowhere", "rows")
    assert (tmp_path / "nowhere").is_char_device()
    assert (tmp_path / "nowhere").is_symlink()


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "rows")


@pytest.mark.parametrize("path", ["a/b", "C:/food", "a:b", Path("a")])
def test_paths_of_this_machine(path: str | Path) -> None:
    assert to_local_path(path, "--out") == to_path(path) == Path(path)


@pytest.mark.parametrize("path", ["gs://food/a", Path("gs://food/a"), "s3://food", Path("https://food.org/a")])
def test_where_a_path_must_be_this_machines(path: str | Path) -> None:
    with pytest.raises(
        UserError, match=rf"^--out {path}: only what is on this machine will do here; set a local folder$"
    ):
        to_local_path(path, "--out")


def test_pathlib_hides_no_other_service() -> None:
    with pytest.raises(UserError, match="only gs://BUCKET"):
        to_path(Path("s3://food/a"))


def test_the_longest_name_that_a_disk_takes_is_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "食" * 85):
        write_whole(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_that_is_not_utf_8_keeps_its_bytes(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.csv", os.fsdecode(b"Id,Category\n\xca\xb3\xce,1\n"))
    assert (tmp_path / "a.csv").read_bytes() == b"Id,Category\n\xca\xb3\xce,1\n"
    write_whole(tmp_path / "a.csv", "\ud800,1")
    assert (tmp_path / "a.csv").read_bytes() == b"\\ud800,1"


def test_content_and_then_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(number: int) -> None:
        done.append("folder" if os.path.isdir(f"/dev/fd/{number}") else "file")
        sync(number)

    def note_replace(one: Path, other: Path) -> None:
        done.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_whole(tmp_path / "a.txt", "rows")
    assert done == ["file", "replace", "folder"]


def test_a_disk_that_cannot_sync_folders_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Path, how: int, *rest: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "as Windows says")
        return opened(path, how, *rest)

    monkeypatch.setattr(os, "open", refuse)
    write_whole(tmp_path / "a.txt", "rows")
    assert (tmp_path / "a.txt").read_text() == "rows"


def test_of_a_link_to_a_folder_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/mine").touch()
    (tmp_path / "link").symlink_to("disk")
    remove(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    assert (tmp_path / "disk/mine").exists()
