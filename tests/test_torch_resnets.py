"""Residual networks to and from PyTorch: files, wrappers, the optimizer with them, the commands, what is refused."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from jaxfood import convert, train
from jaxfood.config import Config, load_config
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.training_checkpoint import read, to_checkpoint
from jaxfood.pytorch.weights import from_torch, to_state_dict, to_torch
from jaxfood.runs.directory import load_run, read_config
from jaxfood.training.saved import begin_from
from jaxfood.training.state import TrainState

pytestmark = pytest.mark.usefixtures("narrow")

NORMALIZE = "0.485,0.456,0.406,0.229,0.224,0.225"


def config_of(*overrides: str) -> Config:
    return load_config(None, ("model.name=resnet18", "model.num_classes=3", "data.image_size=32", *overrides))


def weights(*overrides: str) -> dict[str, np.ndarray]:
    """A state dict of drawn numbers."""
    shapes = jax.eval_shape(lambda: init_variables(config_of(*overrides)))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)
    return to_state_dict(drawn)


def assert_same(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(ours[name], tensor)


WRAPPED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "torchvision": lambda tensors: tensors,
    "DataParallel": lambda tensors: {"state_dict": {f"module.{name}": tensors[name] for name in tensors}},
    "Lightning, compiled": lambda tensors: {"state_dict": {f"net._orig_mod.{name}": tensors[name] for name in tensors}},
    "without counters": lambda tensors: {name: tensors[name] for name in tensors if "num_batches" not in name},
    "sorted": lambda tensors: dict(sorted(tensors.items())),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_wrapped_names(wrap: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    theirs = weights()
    assert_same(to_state_dict(from_torch(wrap(theirs))), theirs)


@pytest.mark.parametrize("name", ["model.name=resnet34", "model.stem=small"])
def test_every_network_keeps_its_bits_through_a_file(name: str, tmp_path: Path) -> None:
    theirs = weights(name)
    safetensors.numpy.save_file(theirs, tmp_path / "a.safetensors")
    to_torch(from_torch(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    back = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert_same({key: back[key] for key in theirs}, theirs)
    model = table_of_variables(from_torch(theirs)).model
    config = config_of(name).model
    assert (model["name"], model["stem"], model["num_classes"]) == (config.name, config.stem, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [8, 96, 128])
@pytest.mark.slow
def test_the_notes_classifier_of_another_width_is_told_by_its_sizes(width: int, tmp_path: Path) -> None:
    config = load_config(None, (f"model.width={width}", "model.num_classes=3", "data.image_size=64"))
    variables = init_variables(config)
    to_torch(variables, tmp_path / "wide.safetensors")
    back = from_torch(tmp_path / "wide.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    table = table_of_variables(back)
    assert (table.model["width"], table.image_size, table.num_classes) == (width, 64, 3)


def test_what_is_no_whole_network_is_told_in_one_line() -> None:
    theirs = weights()
    for change, said in {
        "fc.weight": "missing fc.weight: give the weights of resnet18",
        "layer1.0.bn1.running_var": "missing layer1.0.bn1.running_var: give the weights of resnet18",
    }.items():
        with pytest.raises(UserError) as caught:
            from_torch({name: tensor for name, tensor in theirs.items() if name != change})
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"^unexpected layer1\.2\.conv1\.weight: give the weights of resnet18$"):
        from_torch(theirs | {"layer1.2.conv1.weight": np.ones((8, 8, 3, 3), np.float32)})
    with pytest.raises(UserError, match=r"^layer1\.0\.conv1\.weight has shape \[8, 8, 1, 1\], expected \[8, 8, 3, 3\]"):
        from_torch(theirs | {"layer1.0.conv1.weight": np.ones((8, 8, 1, 1), np.float32)})
    for shape in ((), (3,), (8, 3, 3), (8, 3, 5, 5)):
        with pytest.raises(
            UserError, match=r"^conv1\.weight has shape \[.*\], expected \[8, 3, 7, 7\]: give the weigh"
        ):
            from_torch(theirs | {"conv1.weight": np.ones(shape, np.float32)})


# The commands.


def test_a_file_becomes_a_run_of_its_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = weights("model.stem=small")
    path, run = tmp_path / "timm.safetensors", tmp_path / "run"
    safetensors.numpy.save_file({f"model.{name}": tensor for name, tensor in theirs.items()}, path)
    convert.main(["from-torch", str(path), str(run), "--data.image_size", "96"])
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: torchvision's ImageNet weights expect --model.normalize {NORMALIZE}, which is not set",
        f"{run}: weights of resnet18 for 96 px and 3 classes; a fresh adam",
    ]
    config = read_config(run)
    assert (config.model.name, config.data.image_size) == ("resnet18", 96)
    assert config.model.stem == "small"  # type: ignore[attr-defined]
    convert.main(["to-torch", str(run), str(tmp_path / "back.safetensors")])
    back = safetensors.numpy.load_file(tmp_path / "back.safetensors")
    assert_same({key: back[key] for key in theirs}, theirs)
    capsys.readouterr()
    convert.main(["from-torch", str(path), str(tmp_path / "normal"), "--model.normalize", NORMALIZE])
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model.name", "classifier"), "model.name = resnet18, not model.name = classifier: leave out model.name"),
        (("--model.name", "resnet34"), "model.name = resnet18, not model.name = resnet34: leave out model.name"),
        (("--model.stem", "small"), "model.stem = imagenet, not model.stem = small: leave out model.stem"),
        (("--model.num_classes", "5"), "model.num_classes = 3, not model.num_classes = 5: leave out model.num_classes"),
    ],
)
def test_what_contradicts_the_file_is_refused(flags: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    safetensors.numpy.save_file(weights(), path)
    with pytest.raises(UserError) as caught:
        convert.main(["from-torch", str(path), str(tmp_path / "run"), *flags])
    assert str(caught.value) == f"{path} is of resnet18 and for {said}"
    assert not (tmp_path / "run").exists()


# The optimizer with them.


def stepped_state(*overrides: str) -> TrainState:
    """A state whose moments are drawn numbers, after 5 steps."""
    config = config_of(*overrides)
    variables = from_torch(weights(*[each for each in overrides if each.startswith("model")]))
    state = TrainState.create(config, variables, total_steps=100)
    rng = np.random.default_rng(1)

    def drawn(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), tree)

    moments = {name: drawn(optax.tree.get(state.opt_state, name)) for name in ("mu", "nu")}
    return state.replace(opt_state=optax.tree.set(state.opt_state, steps=jnp.int32(5), **moments))


@pytest.mark.torch
@pytest.mark.parametrize("freeze", ["conv1,layer1", *(pytest.param(f, marks=pytest.mark.slow) for f in ("", "body"))])
def test_the_optimizer_goes_to_pytorch_and_back(freeze: str, tmp_path: Path) -> None:
    """What is frozen has no state there, as what PyTorch never stepped."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    import torch_resnet

    from jaxfood.model import torchvision_resnet

    settings = ("optimizer.name=adamw", "optimizer.weight_decay=0.3", f"train.freeze={freeze}")
    state = stepped_state(*settings)
    content = to_checkpoint(state.variables, state.opt_state, state.config, step=5, total_steps=100, epoch=1)
    module = torch_resnet.ResNet(18, 3, widths=torchvision_resnet.FEATURES)
    module.load_state_dict(content["model"])
    optimizer = torch.optim.AdamW(module.parameters())
    optimizer.load_state_dict(content["optimizer"])
    named = dict(module.named_parameters())
    head = optimizer.state[named["fc.weight"]]
    mu = optax.tree.get(state.opt_state, "mu")
    np.testing.assert_array_equal(head["exp_avg"].numpy(), np.asarray(mu["head"]["kernel"]).T)
    assert ("exp_avg" in optimizer.state.get(named["layer1.0.conv1.weight"], {})) == (not freeze)
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.pt")
    checkpoint = read(tmp_path / "last.pt")
    assert checkpoint.optimizer is not None
    if freeze:  # one number is kept for all, and PyTorch has none for those never stepped
        assert not checkpoint.optimizer.kept["conv1.weight"]
    back = checkpoint.optimizer.opt_state(state.config, checkpoint.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, back, state.opt_state)


@pytest.mark.slow
@pytest.mark.torch
def test_a_frozen_run_of_a_residual_network_is_trained_converted_and_gone_on_with(
    tiny_config: Config, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    settings = dataclasses.replace(tiny_config.train, epochs=1, freeze="conv1,bn1,layer1,layer2,layer3")
    config = dataclasses.replace(tiny_config, model=config_of().model, train=settings)
    train.train_and_evaluate(config, tmp_path / "run")
    path = tmp_path / "last.pt"
    convert.main(["to-torch", str(tmp_path / "run"), str(path), "--with_optimizer"])
    content = torch.load(path, weights_only=True)
    assert_same(
        {name: tensor.numpy() for name, tensor in content["model"].items()},
        to_state_dict(load_run(tmp_path / "run", "last")[1]),
    )
    again = ["--train.freeze", settings.freeze, "--data.root", config.data.root, "--train.batch_size", "8"]
    convert.main(
        ["from-torch", str(path), str(tmp_path / "again"), *again, "--data.image_size", "32", "--train.epochs", "1"]
    )
    train.main(["--workdir", str(tmp_path / "again"), "--resume"])
    record = json.loads((tmp_path / "again" / "metrics.jsonl").read_text())
    assert record["step"] == 3


@pytest.mark.slow
def test_a_network_that_pytorch_lacks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxfood.pytorch import tables

    config = config_of()
    begin_from(tmp_path / "run", config, init_variables(config))
    others = {name: make for name, make in tables.MAKERS.items() if name != "resnet18"}
    monkeypatch.setattr(tables, "MAKERS", others)
    with pytest.raises(
        UserError, match=r"run is of resnet18, which PyTorch has no module for; it has the notes' Class"
    ):
        convert.main(["to-torch", str(tmp_path / "run"), str(tmp_path / "x.safetensors")])
