"""Standard output, standard error and Ctrl-C of a command, each in a process of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jaxfood import cli

START = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(cli.__file__).parents[1])!r})
from jaxfood import cli, terminal
from jaxfood.errors import UserError
"""


def run(program: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A program that has `cli` at hand, in an empty folder."""
    words = [sys.executable, "-c", START + textwrap.dedent(program)]
    pipe = subprocess.PIPE
    return subprocess.run(words, cwd=tmp_path, env=os.environ | environment, stdout=pipe, stderr=pipe, timeout=60)


# Ctrl-C.

INTERRUPTED = (130, b"interrupted\n")


@pytest.mark.parametrize(
    "work",
    [
        "signal.raise_signal(signal.SIGTERM)",
        "import swallows",
        """
        try:
            signal.raise_signal(number)
        except BaseException:
            pass
        """,
        """
        try:
            signal.raise_signal(number)
        except BaseException:
            raise RuntimeError("what C++ makes of it")
        """,
        """
        class Mine:
            def __del__(self):
                signal.raise_signal(number)
        Mine()
        print("goes on", file=sys.stderr)
        """,
        """
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            print("waits", file=sys.stderr)
        """,
    ],
    ids=["by SIGTERM", "importing", "swallowed", "another error", "in a destructor", "twice"],
)
def test_a_signal_ends_a_command_with_one_line(work: str, tmp_path: Path) -> None:
    swallows = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"
    (tmp_path / "swallows.py").write_text(swallows)
    program = (
        f"number = signal.SIGINT\ndef main(argv):\n{textwrap.indent(textwrap.dedent(work), '    ')}\ncli.run(main)"
    )
    done = run(program, tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == INTERRUPTED


def test_what_was_printed_before_is_shown(tmp_path: Path) -> None:
    done = run("def main(argv):\n    print('a line')\n    signal.raise_signal(2)\ncli.run(main)", tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (*INTERRUPTED, b"a line\n")


@pytest.mark.parametrize(("raised", "status", "told"), [("", 0, b""), ("raise UserError('a')", 2, b"error: a\n")])
@pytest.mark.parametrize("late", ["atexit.register(signal.raise_signal, 2)", "sys.last = Last()"])
def test_a_signal_after_the_last_word_changes_nothing(
    late: str, raised: str, status: int, told: bytes, tmp_path: Path
) -> None:
    program = f"""
        import atexit
        class Last:  # goes when Python takes its modules apart
            def __del__(self, send=signal.raise_signal):
                send(2)
        def main(argv):
            {late}
            {raised or "pass"}
        cli.run(main)
    """
    done = run(program, tmp_path)
    assert (done.returncode, done.stderr) == (status, told)


def test_before_the_work_a_signal_is_heard_from_the_packages_first_line_on(tmp_path: Path) -> None:
    program = f"""
        import signal, sys
        # As Python has them while it imports the package of `python -m jaxfood.train`.
        sys.argv, sys.orig_argv = ["-m"], ["python", "-m", "jaxfood.train"]
        sys.path.insert(0, {str(Path(cli.__file__).parents[1])!r})
        import jaxfood
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            print("not here")
    """
    words = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (*INTERRUPTED, b"")


def test_the_library_takes_no_signal_and_ignored_ones_stay_so(tmp_path: Path) -> None:
    assert run("print(signal.getsignal(2) is signal.default_int_handler)", tmp_path).stdout == b"True\n"
    program = """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup has it
        def main(argv):
            signal.raise_signal(signal.SIGINT)
            print("goes on")
        cli.run(main)
    """
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"goes on\n", b"")


# Streams.


def test_where_nobody_reads_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    program = """
        reading, writing = os.pipe()
        for stream in (1, 2):
            os.dup2(writing, stream)
        os.close(reading)
        def main(argv):
            for _ in range(1000):
                print("a line")
                print("a line", file=sys.stderr)
            open("done", "w").write("all")
            raise UserError("a mistake")
        cli.run(main)
    """
    done = run(program, tmp_path)
    assert (done.returncode, (tmp_path / "done").read_text()) == (2, "all")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_takes_no_more_and_that_is_said_once(tmp_path: Path) -> None:
    program = """
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        def main(argv):
            for _ in range(10):
                print("a line")
        cli.run(main)
    """
    done = run(program, tmp_path)
    said = b"the output takes no more (No space left on device): going on without it\n"
    assert (done.returncode, done.stderr) == (0, said)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_text_can_be_shown_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    program = r"""
        def main(argv):
            print("食\udce4")
            cli.say("食\udce4\x1b[31m\n")
            raise UserError("食\udce4\x1b\n")
        cli.run(main)
    """
    done = run(program, tmp_path, PYTHONIOENCODING=encoding)
    food = "食" if encoding == "utf-8" else r"\u98df"
    assert done.stdout.decode(encoding) == rf"{food}\udce4" + "\n" + rf"{food}\xe4\x1b[31m\x0a" + "\n"
    assert done.stderr.decode(encoding) == rf"error: {food}\xe4\x1b\x0a" + "\n"
    assert done.returncode == 2


@pytest.mark.parametrize(("package", "is_default"), [("mine", True), ("jaxfood", False)])
def test_signals_of_another_program_are_left_alone(package: str, is_default: bool, tmp_path: Path) -> None:
    """It imports jaxfood as its first thing, while Python looks for its own command."""
    tell = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("import jaxfood")
    (tmp_path / "mine/told.py").write_text(tell)
    command = [sys.executable, "-m", "mine.told"]
    if package == "jaxfood":  # a command of ours, with the same question in place of its work
        (tmp_path / "sitecustomize.py").write_text(
            f"import atexit\natexit.register(lambda: exec({tell!r}))\n", encoding="utf-8"
        )
        command = [sys.executable, "-m", "jaxfood.predict", "--help"]
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == str(is_default)
