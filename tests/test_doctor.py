"""What the doctor says of a machine and of a data folder, and the list of commands."""

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxfood import __main__, doctor
from jaxfood.data.layout import find_layout
from jaxfood.diagnosis import devices, folder, in_words, lines_on, machine
from jaxfood.diagnosis.devices import Surroundings, why_no_accelerator
from jaxfood.diagnosis.folder import describe_folder
from jaxfood.errors import UserError


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main([])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("jaxfood ")
    assert [line.split()[0] for line in lines] == list(__main__.COMMANDS)
    assert all(len(line.split()) > 4 for line in lines)
    package = Path(__main__.__file__).parent
    runnable = {
        path.relative_to(package).with_suffix("").as_posix().removesuffix("/__main__").replace("/", ".")
        for path in package.rglob("*.py")
        if "cli.run(main)" in path.read_text()
    }
    assert runnable - {"__main__"} == set(__main__.COMMANDS)
    assert all(callable(importlib.import_module(module).main) for module in __main__.COMMANDS.values())


def test_an_argument_to_the_list_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("(see python -m jaxfood --help)")):
        __main__.main(["trian"])


def test_a_command_after_a_blank_is_named_as_it_is_typed() -> None:
    with pytest.raises(UserError, match=re.escape("python -m jaxfood.predict") + "$"):
        __main__.main(["predict", "runs/demo-1"])


@pytest.mark.smoke
def test_a_usable_folder(tiny_food: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe_step", lambda: iter(["a step"]))
    doctor.main([str(tiny_food)])
    said = capsys.readouterr().out
    for words in (
        "jaxfood 0.",
        "jax 0.",
        "8 cpu",
        "CPU cores for this process",
        "a step",
        "test: 5 pictures to predict",
    ):
        assert words in said
    assert re.search(r"35 pictures that were tried decode; all 35 take about \d+ s", said)
    assert re.search(r"^ +0 0 +7 +3$", said, re.MULTILINE)
    assert said.endswith(f"command   python -m jaxfood.train --data.root {tiny_food}\n")


@pytest.mark.slow
def test_the_step_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SECONDS", 0.01)
    monkeypatch.setattr(machine, "_PRODUCT_SIDE", 64)
    first, second, third = machine.describe_step()
    assert "bfloat16 is slower here than model.dtype = float32: switched off for the tests" in third
    assert "an update of a small network works" in first
    assert re.search(r"reaches [\d,]+ GFLOP/s", second)


@pytest.mark.parametrize(
    ("names", "expected", "flags"),
    [
        (("train/a/1.png", "train/b/2.png", "valid/a/3.png"), ("train", "valid", ""), ""),
        (
            ("training/a/1.png", "training/b/2.png", "validation/a/3.png", "evaluation/4.png"),
            ("training", "validation", "evaluation"),
            " --data.train training --data.valid validation",
        ),
        (
            ("training/labeled/00/1.png", "training/labeled/01/2.png", "testing/4.png"),
            ("training/labeled", "", "testing"),
            " --data.train training/labeled --data.valid_fraction 0.2",
        ),
        (("cake/1.png", "soup/2.png"), (".", "", ""), " --data.train . --data.valid_fraction 0.2"),
    ],
)
def test_layouts(food: Callable[..., Path], names: tuple[str, ...], expected: tuple[str, str, str], flags: str) -> None:
    root = food(*names)
    assert find_layout(root) == expected
    *_, command = describe_folder(root)
    assert command == f"command   python -m jaxfood.train --data.root {root}{flags}"


def test_what_is_not_as_it_should_be_is_said(food: Callable[..., Path]) -> None:
    root = food("train/cake/1.png", "train/soup/2.png", "valid/cake/3.png")
    (root / "train" / "cake" / "notes.docx").write_text("x")
    (root / "train" / "soup" / "4.jpg").write_bytes(b"no picture")
    said = "\n".join(describe_folder(root))
    assert "1 .docx" in said
    assert "1 of 4 pictures that were tried cannot be read (soup/4.jpg: " in said


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/1.png",), "1 of the 1 pictures in"),
        (("train/a/1.png", "valid/a/1.png"), "are all of one class"),
        (("my/photos/train/a/1.png", "my/photos/valid/a/1.png"), "/my/photos has: python -m jaxfood.doctor "),
        (("valid/a/1.png",), "has no training folder (train, "),
    ],
)
def test_unusable_folders_are_refused(food: Callable[..., Path], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        list(describe_folder(food(*names)))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list(describe_folder(tmp_path / "x"))


LINUX = Surroundings(jaxlib="0.10.2")
DRIVEN = replace(LINUX, driver="580.65.06", gpus=2)


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (LINUX, ["no NVIDIA driver is loaded here"]),
        (replace(LINUX, plugins={"13": "0.10.2"}), ["nvidia-smi should list"]),
        (replace(LINUX, environment={"JAX_PLATFORMS": "cpu"}), ["JAX_PLATFORMS = cpu"]),
        (replace(LINUX, tpu_chips=True), ["jaxfood[tpu]", "no NVIDIA driver"]),
        (replace(LINUX, system="Windows"), ["WSL2"]),
        (replace(LINUX, system="Darwin"), ["Mac's CPU"]),
        (DRIVEN, ["pip install 'jaxfood[cuda]'"]),
        (replace(DRIVEN, driver="550.1"), ["pip install 'jax[cuda12]'"]),
        (replace(DRIVEN, driver="470.1"), ["jax[cuda12]", "older than 525"]),
        (replace(DRIVEN, driver="550.1", plugins={"13": "0.10.2"}), ["needs 580: upgrade it, or take 'jax[cuda12]'"]),
        (replace(DRIVEN, plugins={"13": "0.9.0"}), ["they must be the same"]),
        (replace(DRIVEN, plugins={"13": "0.10.2"}, environment={"CUDA_VISIBLE_DEVICES": ""}), ["hides every GPU"]),
        (
            replace(DRIVEN, plugins={"13": "0.10.2"}, environment={"LD_LIBRARY_PATH": "/x"}, cuda_error="no cuDNN"),
            ["LD_LIBRARY_PATH is set", "JAX says: no cuDNN"],
        ),
    ],
)
def test_why_there_is_no_accelerator(around: Surroundings, words: list[str]) -> None:
    lines = list(why_no_accelerator(around))
    assert len(lines) == len(words)
    for line, expected in zip(lines, words, strict=True):
        assert expected in line


def test_the_driver_is_what_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices._nvidia() == ("580.65.06", 2)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert devices._nvidia() == ("", 0)


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "/proc/meminfo": "MemTotal: 8000 kB\nMemAvailable: 6000 kB\n",
        "/sys/fs/cgroup/memory.max": "3072000\n",
        "/sys/fs/cgroup/memory.current": "1024000\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path, **_: told[path.as_posix()])
    assert machine._free_and_all_memory() == (2048000, 3072000)
    told["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine._free_and_all_memory() == (6000 * 1024, 8000 * 1024)


def test_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "not there yet" in next(machine.describe_caches())
    (tmp_path / "jaxfood" / "compiled").mkdir(parents=True)
    (tmp_path / "jaxfood" / "compiled" / "x").write_bytes(bytes(2000))
    (tmp_path / "jaxfood" / "food.npy").write_bytes(bytes(5_000_000))
    assert "decoded pictures 5.0 MB in 1 files and folders, compiled steps 2.0 kB" in next(machine.describe_caches())


def test_lines_and_sizes() -> None:
    assert list(lines_on("a", ["b", "c"])) == ["a         b", "          c"]
    assert [in_words(size) for size in (12, 1500, 2.5e6, 3e9)] == ["12 bytes", "1.5 kB", "2.5 MB", "3.0 GB"]


def test_a_sample_spreads_over_all(monkeypatch: pytest.MonkeyPatch, food: Callable[..., Path]) -> None:
    root = food(*(f"train/{'ab'[number % 2]}/{number}.png" for number in range(12)))
    monkeypatch.setattr(folder, "_SAMPLE", 5)
    seen: list[Path] = []
    decode = folder.decode_picture

    def spy(path: Path, size: int) -> np.ndarray:
        seen.append(path)
        return decode(path, size)

    monkeypatch.setattr(folder, "decode_picture", spy)
    list(describe_folder(root))
    assert len(set(seen)) == 5
    assert {path.parent.name for path in seen} == {"a", "b"}
