"""What every network must be: equal in its plain and its fused form, blind to padding, usable from NNX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxfood import FoodClassifier, load_config
from jaxfood.config.model import MODELS
from jaxfood.errors import UserError
from jaxfood.model.network import Network
from jaxfood.model.networks import check_image_sizes, make_model
from jaxfood.model.resnet import ResNet

NETWORKS = [FoodClassifier(width=4), ResNet(width=4)]
named = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)


def drawn(network: Network, images: np.ndarray) -> dict[str, Any]:
    """Variables of which none is 0 or 1, in float64."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    variables: dict[str, Any] = jax.tree.map(lambda leaf: rng.normal(0.01, 0.1, leaf.shape), shapes)
    variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables["batch_stats"])
    return variables


def test_each_choice_of_the_configuration_is_a_network_with_a_head() -> None:
    for name in MODELS:
        config = load_config(None, (f"model.name={name}", "model.num_classes=5"))
        model = make_model(config.model)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert shapes["params"]["head"]["kernel"].shape[-1] == 5


@pytest.mark.smoke
@named
def test_the_plain_network_is_the_fused_one_and_has_a_derivative_of_its_own(network: Network) -> None:
    """`jvp` of the logits, which the fused blocks lack: against a finite difference."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images, tangent = rng.uniform(size=(2, 32, 32, 3)), rng.normal(size=(2, 32, 32, 3))
        variables = drawn(network, images)

        @jax.jit
        def plain(images: jax.Array) -> jax.Array:
            return network.clone(fused=False).apply(variables, images)

        np.testing.assert_allclose(jax.jit(network.apply)(variables, images), plain(images), rtol=1e-9)
        _, slope = jax.jit(lambda: jax.jvp(plain, (images,), (tangent,)))()
        step = 1e-6
        difference = (plain(images + step * tangent) - plain(images - step * tangent)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@named
def test_the_forms_have_one_gradient_and_padding_enters_nothing(network: Network) -> None:
    """Of three pictures alone, and of the same with two rows of padding that hold anything."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images, labels = rng.uniform(size=(5, 32, 32, 3)), np.array([0, 1, 2, 0, 0])
        mask = np.array([1.0, 1, 1, 0, 0])
        variables = drawn(network, images)

        def loss(params: Any, network: Network, rows: int, mask: Any) -> tuple[jax.Array, Any]:
            logits, new = network.apply(
                {**variables, "params": params}, images[:rows], train=True, mask=mask, mutable=["batch_stats"]
            )
            losses = -jax.nn.log_softmax(logits)[np.arange(rows), labels[:rows]]
            return jnp.sum(losses[:3]), new["batch_stats"]

        def gradient(network: Network, rows: int, mask: Any) -> Any:
            return jax.jit(jax.grad(lambda params: loss(params, network, rows, mask), has_aux=True))(
                variables["params"]
            )

        whole = gradient(network, 3, None)
        for other in (gradient(network.clone(fused=False), 3, None), gradient(network, 5, mask)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), other, whole)


@named
def test_pictures_are_normalised_inside(network: Network) -> None:
    images = np.random.default_rng(0).uniform(size=(1, 32, 32, 3))
    mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    prepared = network.clone(normalize=(*mean, *deviation)).prepared(jnp.asarray(images))
    np.testing.assert_allclose(prepared, (images - mean) / deviation, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", ["0.4", "1,2,3,4,5", "0.4,0.5,0.6,0.2,0,0.2"])
def test_what_is_no_mean_and_deviation(value: str) -> None:
    with pytest.raises(UserError, match=r"model\.normalize = "):
        load_config(None, (f"model.normalize={value}",))


def test_sizes_that_a_network_cannot_take() -> None:
    sizes = ("model.num_classes=3", "data.image_size=64", "model.width=4")
    check_image_sizes(load_config(None, (*sizes, "model.name=resnet", "train.image_sizes=32,64")))
    with pytest.raises(UserError, match="layers made for pictures of one size"):
        check_image_sizes(load_config(None, (*sizes, "train.image_sizes=32,64")))
    with pytest.raises(UserError, match=r"has 96, and pictures are kept at data.image_size = 64"):
        check_image_sizes(load_config(None, (*sizes, "model.name=resnet", "train.image_sizes=32,96")))
    with pytest.raises(UserError, match="a multiple of 32"):
        load_config(None, ("train.image_sizes=40",))
    with pytest.raises(UserError, match=r"model\.blocks has 5 numbers"):
        load_config(None, ("model.name=resnet", "model.blocks=1,1,1,1,1"))


@pytest.mark.slow
@named
def test_in_nnx_by_flaxs_bridge_it_is_the_same_network(network: Network) -> None:
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    model = nnx.bridge.ToNNX(network, rngs=nnx.Rngs(0))
    model.lazy_init(images)
    params, statistics = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    expected = network.apply({"params": params, "batch_stats": statistics}, images)
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)
