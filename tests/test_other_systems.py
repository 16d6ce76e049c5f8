"""What is other on Windows and macOS, simulated: `os.name` as a module sees it, and what the system would raise."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jaxfood import files
from jaxfood.data import cache_folder
from jaxfood.data.index import index_pictures
from jaxfood.data.walk import walk_folder
from jaxfood.runs import faults

ROOT = Path(__file__).parents[1]


class Windows:
    """`os` with Windows' name, and with functions of another behaviour; pathlib keeps the real one."""

    name = "nt"

    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def be_windows(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType, **functions: Any) -> None:
    for module in modules:
        monkeypatch.setattr(module, "os", Windows(**functions))


class InUse:
    """`os.replace` that is refused so many times, as while a virus scanner has the file open."""

    def __init__(self, refused: int) -> None:
        self.left = refused

    def __call__(self, source: Path, target: Path) -> None:
        if self.left:
            self.left -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        os.replace(source, target)


def test_a_file_that_a_scanner_has_open_is_replaced_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TRIES", 3)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    (tmp_path / "submission.csv").write_text("old", encoding="utf-8")
    be_windows(monkeypatch, files, replace=InUse(2))
    files.write_whole(tmp_path / "submission.csv", "new")
    assert (tmp_path / "submission.csv").read_text(encoding="utf-8") == "new"
    be_windows(monkeypatch, files, replace=InUse(3))
    with pytest.raises(PermissionError):
        files.write_whole(tmp_path / "submission.csv", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]


def test_elsewhere_a_refusal_is_one_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "replace", InUse(1))
    with pytest.raises(PermissionError):
        files.write_whole(tmp_path / "a", "b")


def test_a_file_that_another_program_has_open_is_said_so() -> None:
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    assert files.reason(error) == "no permission"
    error.winerror = 32  # type: ignore[attr-defined]
    assert files.reason(error) == "another program has it open"


def test_what_another_process_has_mapped_and_is_the_same_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that decode the same pictures: the second cannot replace what the first has mapped."""
    monkeypatch.setattr(files, "_TRIES", 1)
    be_windows(monkeypatch, files, replace=InUse(2))
    be_windows(monkeypatch, cache_folder)
    mapped, mine = tmp_path / "f.npy", tmp_path / "f.npy.tmp"
    mine.write_bytes(b"pictures")
    with pytest.raises(PermissionError):
        cache_folder.publish(mine, mapped)  # nothing is there: the folder may not be written to
    mapped.write_bytes(b"pictures")
    cache_folder.publish(mine, mapped)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npy"]


def test_no_process_is_ended_by_the_question_whether_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' `os.kill(pid, 0)` ends it."""
    be_windows(monkeypatch, cache_folder, kill=lambda *_: pytest.fail("os.kill was called"))
    temporary = tmp_path / cache_folder.temporary_name("entry")
    temporary.touch()
    assert not cache_folder.is_abandoned(temporary)
    os.utime(temporary, (0, 0))
    assert cache_folder.is_abandoned(temporary)


def test_the_numbers_of_windows_are_not_taken_for_those_of_unix(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorStore tells them: 112 is a full disk, and on Linux "Host is down"."""
    full = ValueError("Failed to write 7 bytes: There is not enough space on the disk. [os_error_code='112']")
    other = ValueError("Failed to open: The handle is invalid. [os_error_code='6']")
    be_windows(monkeypatch, faults)
    assert (faults.reason_of(full), faults.mend_of(full)) == ("No space left on device", "free some space")
    assert faults.reason_of(other).startswith("Failed to open: The handle is invalid.")


def test_a_list_that_was_written_on_windows_is_read(tmp_path: Path, tiny_food: Path) -> None:
    shutil.copytree(tiny_food / "train", tmp_path / "data" / "train")
    listed = "data\\train\\0_0.jpg\r\ndata\\train\\1_0.jpg\r\n"
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
    assert index_pictures(tmp_path / "mine.txt").labels.tolist() == [0, 1]
    (tmp_path / "with_labels.txt").write_text("data\\train\\0_0.jpg 1\ndata\\train\\1_0.jpg 0\n", encoding="utf-8")
    assert index_pictures(tmp_path / "with_labels.txt").labels.tolist() == [1, 0]


def test_a_disk_that_numbers_no_files_loses_none(tiny_food: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of Windows' file systems give every folder the number 0, which is no sign that one was seen before."""
    whole = walk_folder(tiny_food)
    real = os.stat

    def numberless(path: Any, **how: Any) -> os.stat_result:
        values = list(real(path, **how))
        values[1] = 0  # st_ino
        return os.stat_result(values)

    monkeypatch.setattr("jaxfood.data.walk.os.stat", numberless)
    assert walk_folder(tiny_food).pictures == whole.pictures


@pytest.mark.parametrize("encoding", ["cp1252", "cp936"])
def test_a_pipe_of_windows_takes_every_name_and_may_close(tmp_path: Path, encoding: str) -> None:
    """As `python -m jaxfood.train | more` there, in a console's own encoding; a closed pipe is an invalid argument."""
    program = f"""
        import errno, os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from jaxfood import terminal

        class Windows:
            name = "nt"
            def __getattr__(self, name):
                return getattr(os, name)

        terminal.os = Windows()
        terminal.open_streams()
        print("caf\\u00e9 \\u98df \\U0001f35c")
        class Closed(terminal.io.FileIO):
            def write(self, data):
                raise OSError(errno.EINVAL, "Invalid argument")
        terminal._Output.__bases__ = (Closed,)
        print("dropped")
        print("dropped too")
    """
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = "caf\u00e9 \u98df \U0001f35c".encode(encoding, "backslashreplace")
    assert done.stdout.rstrip(b"\r\n") == shown


def test_no_text_is_read_or_written_in_the_systems_own_encoding() -> None:
    """Which is cp1252 or cp936 on Windows, so that a file of one machine would be another on the next."""
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if ruff is None:
        pytest.skip("ruff is not installed")
    words = [ruff, "check", "--isolated", "--preview", "--no-cache", "--select", "PLW1514", "jaxfood", "examples"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_only_unix_has_is_imported() -> None:
    """Modules and functions that Windows does not have, checked for or not."""
    unix = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "posix", "syslog"}
    functions = ("os.fork", "os.preadv", "os.pread", "os.getuid", "os.geteuid", "os.statvfs", "os.uname", "os.mkfifo")
    for path in (ROOT / "jaxfood").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = {word.split(".")[0] for line in text.splitlines() for word in _imported(line.strip())}
        assert not imported & unix, path
        assert not [name for name in functions if f"{name}(" in text], path


def _imported(line: str) -> list[str]:
    words = line.split()
    return words[1:2] if words[:1] in (["import"], ["from"]) else []


def test_no_two_files_differ_by_case_alone_and_windows_takes_every_name() -> None:
    """On macOS and Windows one of two such would be lost at a checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no checkout of git")
    names = done.stdout.splitlines()
    assert len({name.casefold() for name in names}) == len(names)
    stems = {part.partition(".")[0].lower() for name in names for part in name.split("/")}
    assert not stems & {"con", "prn", "aux", "nul", "com1", "lpt1"}
    assert not [name for name in names if set(name) & set('<>:"|?*\\')]
