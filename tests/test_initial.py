"""What a run begins with by `train.init`: a run's weights or a file's, under other settings, with another head."""

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import NUM_CLASSES

from jaxfood import train
from jaxfood.config import Config
from jaxfood.config.loading import Source, merge, read_texts, to_toml
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.pytorch.weights import to_state_dict, to_torch
from jaxfood.runs.directory import load_run, read_config
from jaxfood.training.initial import check_settings, initial
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")

CLASSES = ("0", "1", "2")


def changed(config: Config, *overrides: str) -> Config:
    pairs = [tuple(override.split("=", 1)) for override in overrides]
    return merge(Source("config", tomllib.loads(to_toml(config))), read_texts(pairs))  # type: ignore[arg-type]


@pytest.fixture
def source(tiny_config: Config, tmp_path: Path) -> Callable[..., Path]:
    """Makes a run of new weights of another seed."""

    def make(*overrides: str, classes: tuple[str, ...] = ()) -> Path:
        path = tmp_path / f"source{len(list(tmp_path.iterdir()))}"
        config = changed(tiny_config, "train.seed=1", *overrides)
        begin_from(path, config, init_variables(config), classes=classes)
        return path

    return make


def begin(config: Config, path: Path | str, *overrides: str, classes: tuple[str, ...] = CLASSES) -> Any:
    config = changed(config, f"train.init={path}", *overrides)
    return initial(config, classes, make_mesh(config.device))


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
def test_a_runs_weights_are_taken_whole_where_the_classes_are_its_own(
    tiny_config: Config, source: Callable[..., Path]
) -> None:
    run = source()
    begun = begin(tiny_config, run, "optimizer.name=sgd", "schedule.name=one_cycle", "train.seed=5")
    assert_same(begun.variables, load_run(run)[1])
    assert begun.lines == [f"begins with the best weights of {run} (step 0)"]


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (("pie", "tea", "pho"), ("pie", "pho", "tea"), "{run} has other classes (1 is pho here and tea there)"),
        (("pie", "tea", "pho"), ("a", "b", "c", "d"), "4 classes ('a', 'b', 'c', ...), {run} has 3"),
        (("pie", "tea", "pho"), CLASSES, ""),
        (CLASSES, ("pie", "tea", "pho"), ""),
    ],
)
@pytest.mark.slow
def test_a_head_of_other_classes_is_made_anew_and_said(
    tiny_config: Config, source: Callable[..., Path], theirs: tuple[str, ...], ours: tuple[str, ...], said: str
) -> None:
    """Where one side knows numbers alone only their count can be compared."""
    run = source(classes=theirs)
    settings = (f"model.num_classes={len(ours)}", "model.normalize=0,0,0,1,1,1")
    begun = begin(tiny_config, run, *settings, classes=ours)
    whole = load_run(run)[1]
    assert_same(begun.variables["batch_stats"], whole["batch_stats"])
    for name, module in whole["params"].items():
        if name != "head" or not said:
            assert_same(begun.variables["params"][name], module)
    if said:
        fresh = init_variables(changed(tiny_config, *settings))["params"]["head"]
        assert_same(begun.variables["params"]["head"], fresh)
    lines = [f"the head is new: {said.format(run=run)}"] if said else []
    other = f"model.normalize is 0.0,0.0,0.0,1.0,1.0,1.0, and {run} was trained with none"
    assert begun.lines[1:] == [other, *lines]


def test_a_file_of_pytorch_is_taken_as_a_run_is(tiny_config: Config, tmp_path: Path) -> None:
    variables = init_variables(changed(tiny_config, "train.seed=1"))
    to_torch(variables, tmp_path / "best.safetensors")
    begun = begin(tiny_config, tmp_path / "best.safetensors", classes=("pie", "tea", "pho"))
    assert_same(begun.variables, variables)
    assert begun.lines == [f"begins with the weights of {tmp_path}/best.safetensors"]


@pytest.mark.slow
def test_a_residual_network_of_a_file_takes_any_size_and_another_head(tiny_config: Config, tmp_path: Path) -> None:
    settings = ("model.name=resnet18", "data.image_size=64")
    variables = init_variables(changed(tiny_config, *settings, "model.num_classes=7", "train.seed=1"))
    path = tmp_path / "timm.safetensors"
    safetensors.numpy.save_file({f"model.{name}": array for name, array in to_state_dict(variables).items()}, path)
    begun = begin(tiny_config, path, *settings)
    assert_same(begun.variables["params"]["layer4_1"], variables["params"]["layer4_1"])
    assert begun.variables["params"]["head"]["kernel"].shape == (16, 3)
    expected = "0.485,0.456,0.406,0.229,0.224,0.225"
    assert begun.lines == [
        f"begins with the weights of {path}",
        f"{path}: torchvision's ImageNet weights expect --model.normalize {expected}, which is not set",
        f"the head is new: 3 classes ('0', '1', '2'), {path} has 7",
    ]
    assert len(begin(tiny_config, path, *settings, f"model.normalize={expected}").lines) == 2


def test_what_does_not_fit_is_refused_by_name(tiny_config: Config, source: Callable[..., Path], tmp_path: Path) -> None:
    run = source()
    with pytest.raises(
        UserError, match=r"is of model\.name = classifier, model\.width = 64, and this run of model\.na"
    ):
        begin(tiny_config, run, "model.name=resnet18")
    with pytest.raises(UserError, match=r"^train\.init = .*source0 is of .*width = 64, and this run of .*width = 32:"):
        check_settings(changed(tiny_config, f"train.init={run}", "model.width=32"), tmp_path)
    with pytest.raises(
        UserError, match=r"dense1/kernel is \[8, 16\] there and \[32, 16\] in this run: set data\.image_"
    ):
        begin(tiny_config, run, "data.image_size=64")
    with pytest.raises(UserError, match=r"^train\.init = .*source1: it does not exist: did you mean source0\?; name"):
        check_settings(changed(tiny_config, f"train.init={tmp_path}/source1"), tmp_path)
    with pytest.raises(UserError, match=r"source0 is the run that --overwrite replaces: take another --workdir"):
        check_settings(changed(tiny_config, f"train.init={run}"), run)
    (tmp_path / "food").mkdir()
    with pytest.raises(UserError, match=r"food is not a run"):
        check_settings(changed(tiny_config, f"train.init={tmp_path}/food"), tmp_path / "run")
    with pytest.raises(UserError, match=r"no parameter's name begins with 'layer1'"):
        check_settings(changed(tiny_config, "train.freeze=layer1", "model.num_classes=0"), tmp_path)


@pytest.mark.slow
def test_a_run_begins_so_by_command_and_resumes_without_its_source(
    tiny_config: Config, source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = source("model.num_classes=5"), ("--optimizer.name", "sgd", "--optimizer.learning_rate", "0")
    monkeypatch.chdir(tmp_path)
    flags = [
        *("--data.root", tiny_config.data.root, "--data.image_size", "32", "--train.batch_size", "8"),
        *("--device.count", "1", "--logging.progress", "false", "--train.epochs", "1", *settings),
    ]
    train.main(["--workdir", "tuned", "--train.init", run.name, *flags])
    assert read_config(tmp_path / "tuned").train.init == str(run)
    log = (tmp_path / "tuned" / "log.txt").read_text()
    assert f"the head is new: 3 classes ('0', '1', '2'), {run} has 5" in log
    whole, tuned = load_run(run)[1], load_run(tmp_path / "tuned")[1]
    assert_same(whole["params"]["block1"], tuned["params"]["block1"])  # by a rate of 0
    assert tuned["params"]["head"]["kernel"].shape == (8, NUM_CLASSES)
    shutil.rmtree(run)
    train.main(["--workdir", "tuned", "--resume", "--train.epochs", "2"])
    with pytest.raises(UserError, match=r"--resume cannot change train\.init"):
        train.main(["--workdir", "tuned", "--resume", "--train.init", "other"])


@pytest.mark.slow
def test_a_run_ended_before_its_first_checkpoint_begins_so_again(
    tiny_config: Config, source: Callable[..., Path], tmp_path: Path
) -> None:
    config = changed(tiny_config, f"train.init={source()}")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    mesh = make_mesh(config.device)
    assert initial(config, CLASSES, mesh, resumed=tmp_path / "run").variables is not None
    begin_from(tmp_path / "begun", config, init_variables(config))
    assert initial(config, CLASSES, mesh, resumed=tmp_path / "begun").variables is None
