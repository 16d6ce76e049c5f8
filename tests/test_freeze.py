"""Frozen parameters: which they are, that nothing moves them, and PyTorch's numbers for the rest."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfood import train
from jaxfood.config import Config, load_config
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.optim.freeze import describe_frozen, frozen_mask
from jaxfood.optim.optimizers import make_optimizer
from jaxfood.runs.directory import load_run
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step

pytestmark = pytest.mark.usefixtures("narrow")

PARAMS = {
    "block1": {"kernel": np.ones((2, 2)), "norm": {"scale": np.ones(2)}},
    "block10": {"kernel": np.full((2, 2), 2.0)},
    "head": {"kernel": np.full((2, 3), 3.0), "bias": np.ones(3)},
}


def names_of(mask: Any) -> set[str]:
    leaves = jax.tree_util.tree_leaves_with_path(mask)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, frozen in leaves if frozen}


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("", set()),
        ("block1", {"block1.kernel", "block1.norm.scale"}),  # not block10
        ("block", {"block1.kernel", "block1.norm.scale", "block10.kernel"}),
        ("block1.k, head.bias", {"block1.kernel", "head.bias"}),
        ("body", {"block1.kernel", "block1.norm.scale", "block10.kernel"}),
    ],
)
def test_the_beginnings_of_names_choose(freeze: str, frozen: set[str]) -> None:
    assert names_of(frozen_mask(PARAMS, freeze)) == frozen


def test_what_chooses_nothing_or_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.freeze = 'layer1': no parameter's .* \(all but the head\), block1, "):
        frozen_mask(PARAMS, "layer1")
    with pytest.raises(UserError, match=r"^train\.freeze = 'head,body' leaves nothing to train: leave the head out"):
        frozen_mask(PARAMS, "head,body")
    assert describe_frozen(PARAMS, "body").startswith("train.freeze = body: 10 of 19 parameters stay")


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "notes_adam"])
@pytest.mark.slow
def test_what_is_frozen_has_no_update_no_decay_and_no_moments(optimizer: str) -> None:
    settings = (f"optimizer.name={optimizer}", "optimizer.weight_decay=0.5", "optimizer.clip_norm=1")
    config, plain = load_config(None, ("train.freeze=body", *settings)), load_config(None, settings)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    tx = make_optimizer(config, total_steps=10)
    state = tx.init(PARAMS)
    updates, _ = tx.update(grads, state, PARAMS)
    for part in ("block1", "block10"):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates[part]))
    head = make_optimizer(plain, total_steps=10)  # of the head alone: the norm that is clipped is its own
    alone, _ = head.update({"head": grads["head"]}, head.init({"head": PARAMS["head"]}), {"head": PARAMS["head"]})
    jax.tree.map(np.testing.assert_array_equal, updates["head"], alone["head"])
    assert np.any(alone["head"]["kernel"])
    assert {leaf.size for leaf in jax.tree.leaves(state) if np.ndim(leaf)} == {6, 3}  # the head's kernel and bias


@pytest.mark.slow
def test_a_run_leaves_what_is_frozen_to_the_bit_and_resumes(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, freeze="block1,block2.norm"))
    train.train_and_evaluate(config, tmp_path / "run")
    said = capsys.readouterr()
    assert "train.freeze = block1,block2.norm: " in said.out + said.err
    _, variables, _ = load_run(tmp_path / "run", "last")
    begun = init_variables(config)
    params, first = variables["params"], begun["params"]
    jax.tree.map(np.testing.assert_array_equal, params["block1"], first["block1"])
    jax.tree.map(np.testing.assert_array_equal, params["block2"]["norm"], first["block2"]["norm"])
    for name in ("block1", "block2"):
        jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"][name], begun["batch_stats"][name])
    assert np.any(variables["batch_stats"]["block3"]["norm"]["mean"])
    for moved in ("block2", "head"):
        assert not np.array_equal(params[moved]["kernel"], first[moved]["kernel"])
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))
    train.train_and_evaluate(longer, tmp_path / "run", resume=True)
    train.train_and_evaluate(longer, tmp_path / "whole")
    both = [load_run(tmp_path / name, "last")[1] for name in ("run", "whole")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    with pytest.raises(UserError, match=r"--resume cannot change train\.freeze"):
        train.train_and_evaluate(tiny_config, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.torch
def test_two_steps_are_pytorchs_with_requires_grad_false_and_eval() -> None:
    """A residual network in float64: frozen layers in `eval()` as fine-tuners do; clipped by the norm of the rest."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    import torch_resnet
    from test_torchvision_resnet import make_module

    from jaxfood.pytorch.weights import from_state_dict, to_state_dict

    module = make_module(torch_resnet, 18, "small")
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(6, 32, 32, 3)), np.array([0, 1, 2, 1, 0, 2])
    settings = ("optimizer.name=adam", "optimizer.learning_rate=0.01", "optimizer.weight_decay=0.1")
    names = ("train.freeze=conv1,bn1,layer1,layer2_0.conv1", "optimizer.clip_norm=0.5")
    config = load_config(None, ("model.name=resnet18", "model.num_classes=3", "model.stem=small", *settings, *names))
    with jax.enable_x64(True):
        start = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
        state = TrainState.create(config, from_state_dict(start), total_steps=2)
        norms = []
        for _ in range(2):
            state, metrics = train_step(state, {"image": images, "label": labels})
            norms.append(float(metrics["grad_norm"]))
        ours = to_state_dict(state.variables)

    frozen = [module.conv1, module.bn1, module.layer1]
    for part in (*frozen, module.layer2[0].conv1):
        part.requires_grad_(False)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01, weight_decay=0.1)
    own = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for norm in norms:
        module.train()
        for part in frozen:
            part.eval()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(own), torch.from_numpy(labels)).backward()
        theirs = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        optimizer.step()
        assert norm == pytest.approx(theirs.item(), rel=1e-8)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(ours[name], tensor.numpy(), rtol=1e-6, atol=1e-9, err_msg=name)
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.bn1.running_var", "layer2.0.conv1.weight"):
        np.testing.assert_array_equal(ours[name], start[name])
    assert not np.array_equal(ours["layer2.0.bn1.running_mean"], start["layer2.0.bn1.running_mean"])


def test_moments_of_the_trained_alone_are_kept(tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, freeze="body"))
    shapes = jax.eval_shape(lambda: TrainState.create(config, init_variables(config), 10).opt_state)
    moments = optax.tree.get(shapes, "mu")
    assert [leaf.shape for leaf in jax.tree.leaves(moments)] == [(3,), (8, 3)]
