"""ResNet-18 and -34: torchvision's, live against PyTorch where it is installed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import load_config
from jaxfood.model import torchvision_resnet
from jaxfood.model.networks import init_variables, make_model, to_float
from jaxfood.model.torchvision_resnet import TorchvisionResNet
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.tables import resnet_table
from jaxfood.pytorch.weights import from_state_dict, to_state_dict

pytestmark = pytest.mark.usefixtures("narrow")

CLASSES = 3


@pytest.fixture
def torch_resnet() -> Any:
    pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    import torch_resnet

    return torch_resnet


def shapes_of(model: TorchvisionResNet, size: int = 32) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))


def make_module(torch_resnet: Any, depth: int, stem: str) -> Any:
    """In float64, as wide as ours, its BatchNorm's vectors away from their defaults, so that mixing them up shows."""
    import torch

    torch.manual_seed(0)
    module = torch_resnet.ResNet(depth, CLASSES, stem, torchvision_resnet.FEATURES).double()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                for vector in (part.weight, part.running_var):
                    vector.uniform_(0.5, 1.5)
                for vector in (part.bias, part.running_mean):
                    vector.uniform_(-0.5, 0.5)
    return module


def tensors_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("depth", "stem"), [(18, "imagenet"), (18, "small"), (34, "imagenet")])
def test_the_table_has_every_leaf_and_its_shape(depth: int, stem: str) -> None:
    shapes = shapes_of(TorchvisionResNet(CLASSES, depth=depth, stem=stem))
    table = table_of_variables(shapes)
    assert table.model == {"name": f"resnet{depth}", "num_classes": CLASSES, "stem": stem}
    assert table.image_size is None


@pytest.mark.torch
@pytest.mark.parametrize(("depth", "stem"), [(18, "imagenet"), (18, "small"), (34, "imagenet")])
def test_names_order_and_shapes_are_the_modules(torch_resnet: Any, depth: int, stem: str) -> None:
    shapes = shapes_of(TorchvisionResNet(CLASSES, depth=depth, stem=stem))
    ours = to_state_dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    theirs = torch_resnet.ResNet(depth, CLASSES, stem, torchvision_resnet.FEATURES).state_dict()
    assert [(name, tensor.shape) for name, tensor in ours.items()] == [
        (name, tuple(tensor.shape)) for name, tensor in theirs.items()
    ]


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(("depth", "stem"), [(18, "imagenet"), (18, "small"), (34, "imagenet")])
def test_logits_gradients_and_statistics_are_pytorchs(torch_resnet: Any, depth: int, stem: str) -> None:
    """In float64, of a training batch with a mask here and without the masked picture there, and in evaluation."""
    import torch

    module = make_module(torch_resnet, depth, stem)
    rng = np.random.default_rng(0)
    images, labels = (
        rng.uniform(size=(5, 32, 32, 3)) if stem == "small" else rng.uniform(size=(5, 64, 64, 3)),
        np.array([0, 1, 2, 1]),
    )
    with jax.enable_x64(True):
        variables = from_state_dict(tensors_of(module))
        model = TorchvisionResNet(CLASSES, depth=depth, stem=stem)

        @jax.jit
        def backward(params: Any, images: jax.Array) -> Any:
            def loss(params: Any) -> Any:
                logits, new = model.apply(
                    {**variables, "params": params},
                    images,
                    train=True,
                    mask=jnp.array([1, 1, 1, 1, 0]),
                    mutable=["batch_stats"],
                )
                return -jnp.mean(jax.nn.log_softmax(logits[:4])[jnp.arange(4), labels]), (logits, new)

            return jax.grad(loss, has_aux=True)(params)

        gradient, (logits, new) = backward(variables["params"], images)
        ours = to_state_dict({"params": gradient, **new})
        evaluation = jax.jit(model.apply)(variables, images)

    own = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        theirs = module.eval()(own)
    np.testing.assert_allclose(evaluation, theirs.numpy(), rtol=1e-10, atol=1e-12)
    theirs = module.train()(own[:4])
    torch.nn.functional.cross_entropy(theirs, torch.from_numpy(labels)).backward()
    np.testing.assert_allclose(logits[:4], theirs.detach().numpy(), rtol=1e-10, atol=1e-12)
    wanted = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    wanted |= {name: buffer.numpy() for name, buffer in module.named_buffers() if "running" in name}
    assert len(wanted) == len(resnet_table(depth, {}).entries)
    for name, tensor in wanted.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=1e-8, atol=1e-10 * np.abs(tensor).max(), err_msg=name)
        assert np.linalg.norm(ours[name] - tensor) <= 1e-10 * np.linalg.norm(tensor), name


@pytest.mark.slow
def test_it_starts_from_torchvisions_distributions() -> None:
    """`kaiming_normal_` by what goes out of a convolution; BatchNorm's ones and zeros; `nn.Linear`'s uniform."""
    config = load_config(None, ("model.name=resnet18", "model.num_classes=50", "data.image_size=32"))
    for path, leaf in jax.tree_util.tree_leaves_with_path(init_variables(config)["params"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        values = np.asarray(leaf)
        if name.startswith("head"):
            assert 0.8 < np.abs(values).max() * torchvision_resnet.FEATURES[-1] ** 0.5 <= 1, name
        elif name.endswith("kernel"):
            height, width, _, features = values.shape
            normal = values.ravel() / np.sqrt(2 / (height * width * features))
            assert normal.std() == pytest.approx(1, abs=4 / (2 * normal.size) ** 0.5), name
            assert normal.size < 1000 or np.abs(normal).max() > 2.5, name  # neither uniform nor cut at two deviations
        else:
            np.testing.assert_array_equal(values, 1 if name.endswith("scale") else 0, err_msg=name)


@pytest.mark.slow
def test_settings_reach_the_network() -> None:
    settings = ("model.stem=small", "model.dropout=0.5", "model.dtype=bfloat16", "model.num_classes=3")
    config = load_config(None, ("model.name=resnet34", *settings))
    model = make_model(config.model)
    assert model == TorchvisionResNet(3, jnp.bfloat16, dropout=0.5, depth=34, stem="small")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    shallow = model.clone(depth=18)
    variables = jax.jit(shallow.init)(jax.random.key(0), to_float(images))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    apply = jax.jit(partial(shallow.apply, train=True, mutable=["batch_stats"]))
    one, two = (apply(variables, to_float(images), keys=jax.random.split(jax.random.key(seed), 2)) for seed in (0, 1))
    assert one[0].dtype == jnp.float32
    assert not np.array_equal(one[0], two[0])  # dropout draws from the keys
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(two[1]), strict=True):  # and comes after all statistics
        np.testing.assert_array_equal(a, b)
