"""What stands at a path, and whether something can be written there: no answer is a traceback."""

import os
import pwd
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxfood import files
from jaxfood.errors import UserError
from jaxfood.places import (
    check_work_directory,
    check_writable_file,
    check_writable_folder,
    entries,
    exists,
    is_file,
    is_folder,
    kind,
    similar,
)

LONG = "食" * 100  # 300 bytes, where a name may have 255


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder named `locked` may be looked into or written to, as it is for everybody but root."""

    def refuse(ask: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: object, *rest: object, **more: object) -> Any:
            if isinstance(path, str | Path) and "locked" in Path(path).parts:
                raise PermissionError(13, "Permission denied", str(path))
            return ask(path, *rest, **more)

        return checked

    monkeypatch.setattr(os, "stat", refuse(os.stat))
    monkeypatch.setattr(os, "listdir", refuse(os.listdir))


def test_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    kinds = {name: kind(tmp_path / name) for name in ("file", "link", "nowhere", "pipe", "gone", "file/below", ".")}
    assert kinds == {
        "file": "file",
        "link": "file",
        "nowhere": "",
        "pipe": "other",
        "gone": "",
        "file/below": "",
        ".": "folder",
    }
    assert is_file(tmp_path / "file")
    assert is_folder(tmp_path)
    assert exists(tmp_path / "pipe")
    assert not exists(tmp_path / "gone")
    assert entries(tmp_path)[0] == tmp_path / "file"


@pytest.mark.usefixtures("forbidden")
def test_what_cannot_be_seen_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path, reason in (
        (tmp_path / "locked" / "x", "no permission"),
        (tmp_path / LONG, "the name is too long"),
        (tmp_path / "a", "links that lead in a circle"),
    ):
        for ask in (kind, exists, is_file, is_folder):
            with pytest.raises(
                UserError, match=rf"what is there cannot be seen \({reason}\); mend that, or name another"
            ):
                ask(path)
    with pytest.raises(UserError, match="no path holds a null byte"):
        kind("a\0b")
    for folder in (tmp_path / "locked", tmp_path / "gone", tmp_path / LONG):
        with pytest.raises(UserError, match="cannot read"):
            entries(folder)


def test_a_name_that_differs_by_case_or_accents_is_offered(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "Café")).touch()
    (tmp_path / "Train").touch()
    assert similar(tmp_path / "train") == ": did you mean Train?"
    assert "the accents of the first are NFC and of the second NFD" in similar(tmp_path / "Café")
    assert similar(tmp_path / "Trian") == ": did you mean Train?"
    assert similar(tmp_path / "other") == similar(tmp_path / "no" / "x") == ""


def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Out").mkdir()
    (tmp_path / "there.csv").touch()
    for good in ("new.csv", "there.csv", "Out/new.csv", os.devnull):
        check_writable_file(Path(good), "--out")
    assert [path.name for path in (tmp_path / "Out").iterdir()] == []
    for bad, message in (
        (".", r"^--out \.: this is a folder; name a file in it, such as NAME$"),
        ("Out", r"^--out Out: this is a folder; name a file in it, such as Out/NAME$"),
        ("out/x.csv", r"^--out out/x\.csv: there is no folder .*/out: did you mean Out\?; make it first$"),
        ("there.csv/x.csv", r"there is no folder .*/there\.csv.*; make it first$"),
        (LONG, r"^cannot write to .* \(a name is longer than 255 bytes\); choose another --out$"),
    ):
        with pytest.raises(UserError, match=message):
            check_writable_file(Path(bad), "--out")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for good in (tmp_path, tmp_path / "a/b/c"):
        check_writable_folder(good, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for bad, message in (
        (tmp_path / "file", r"^cannot write to .*/file \(it is a file\); choose another --out$"),
        (tmp_path / "file/a", r"^cannot write to .*/file/a \(.*/file is a file\); choose another --out$"),
        (tmp_path / LONG / "a", r"longer than 255 bytes"),
    ):
        with pytest.raises(UserError, match=message):
            check_writable_folder(bad, "--out")


@pytest.mark.parametrize("check", [check_writable_file, check_writable_folder])
def test_no_permission_to_write(
    check: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**where: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(UserError, match=rf"^cannot write to {tmp_path} \(no permission\); choose another --out$"):
        check(tmp_path / "x", "--out")


def test_no_run_below_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    check_work_directory(tmp_path / "食べ物")
    with pytest.raises(UserError, match="checkpoints cannot be written below a folder whose name is not UTF-8"):
        check_work_directory(tmp_path / os.fsdecode(b"\xca\xb3\xce") / "run")


def test_where_no_home_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(UserError, match=r"^no home folder is known here: set HOME"):
        files.home()
    with pytest.raises(
        UserError, match=r"^~/food: no home folder is known here; set HOME, or write the path without ~$"
    ):
        files.to_path("~/food")


def test_the_home_folder_is_replaced_in_every_path_that_a_user_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (
        files.to_path("~/food")
        == files.to_path(Path("~/food"))
        == files.to_local_path("~/food", "--out")
        == tmp_path / "food"
    )
    assert files.to_path(files.to_path("./~food")) == tmp_path / "~food"
    with pytest.raises(UserError, match=r"^~nobody_here/x: there is no such user nobody_here; .* or \./~nobody_here"):
        files.to_path("~nobody_here/x")
    with pytest.raises(UserError, match=r"a\\x00b': no path holds a null byte"):
        files.to_path("a\0b")
