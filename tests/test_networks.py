"""What every network must be: equal in its plain and its fused form, and usable from NNX. With few features."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxfood import FoodClassifier

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.smoke
def test_the_plain_network_is_the_fused_one_and_has_a_derivative_of_its_own() -> None:
    """`jvp` of the logits, which the fused blocks lack: against a finite difference."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images, tangent = rng.uniform(size=(2, 32, 32, 3)), rng.normal(size=(2, 32, 32, 3))
        variables = jax.tree.map(
            lambda leaf: rng.normal(0.01, 0.05, leaf.shape),
            jax.eval_shape(FoodClassifier().init, jax.random.key(0), images),
        )
        variables["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables["batch_stats"])

        @jax.jit
        def plain(images: jax.Array) -> jax.Array:
            return FoodClassifier(fused=False).apply(variables, images)

        np.testing.assert_allclose(jax.jit(FoodClassifier().apply)(variables, images), plain(images), rtol=1e-9)
        _, slope = jax.jit(lambda: jax.jvp(plain, (images,), (tangent,)))()
        step = 1e-6
        difference = (plain(images + step * tangent) - plain(images - step * tangent)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_in_nnx_by_flaxs_bridge_it_is_the_same_network() -> None:
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    model = nnx.bridge.ToNNX(FoodClassifier(), rngs=nnx.Rngs(0))
    model.lazy_init(images)
    params, statistics = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    expected = FoodClassifier().apply({"params": params, "batch_stats": statistics}, images)
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-6)
