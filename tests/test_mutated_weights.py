"""A hundred damaged files of PyTorch weights and checkpoints: the campaign of scripts/, small."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "campaigns" / "mutated_weights.py"


@pytest.fixture(scope="module")
def campaign(narrow: None) -> Iterator[ModuleType]:
    pytest.importorskip("torch", reason="reads PyTorch's files")
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop(SCRIPT.stem, None)


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_mutated_files_are_refused_in_one_line_or_right(campaign: ModuleType, tmp_path: Path, first: int) -> None:
    """Other files than those of the campaign's first seeds."""
    for trial in range(first, first + 25):
        path, kind, mutation = campaign.make_file(trial, seed=100, folder=tmp_path)
        outcome, said = campaign.read_one(path)
        assert outcome in ("refused", "right"), (trial, kind, mutation, said)


@pytest.mark.parametrize("kind", [".pt", ".ckpt", ".pth", ".safetensors"])
def test_whole_files_are_right(campaign: ModuleType, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"whole{kind}"
    path.write_bytes(campaign.encode(campaign.make_content(), kind))
    assert campaign.read_one(path) == ("right", "")


def test_a_wrong_value_is_noticed(campaign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "whole.pt"
    path.write_bytes(campaign.encode(campaign.make_content(), ".pt"))
    whole = campaign.reference(path)
    whole["module.fc.4.bias"][2] += 1
    monkeypatch.setattr(campaign, "reference", lambda path: whole)
    assert campaign.read_one(path) == ("wrong", "fc.4.bias is not PyTorch's module.fc.4.bias")
