"""A coloured patch alone decides the class: every way to explain the answers must light up there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfood.evaluation.explanations.explaining import explain_pictures
from jaxfood.evaluation.explanations.scores import Variables
from jaxfood.evaluation.explanations.sheets import Explanations
from jaxfood.model.network import Network
from jaxfood.model.resnet import ResNet

pytestmark = pytest.mark.slow  # a training, and 300 programs' runs

SIDE, PATCH = 32, 8
COUNT = 6  # pictures that are explained


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a patch that is red (class 0) or green (class 1); which pixels are the patch's, `[N, H, W]`."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.6, (count, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(0, 2, count).astype(np.int32)
    patches = np.zeros((count, SIDE, SIDE), bool)
    for image, label, patch in zip(images, labels, patches, strict=True):
        row, column = rng.integers(0, SIDE - PATCH + 1, 2)
        patch[row : row + PATCH, column : column + PATCH] = True
        image[patch] = np.eye(3, dtype=np.float32)[label]
    return images, labels, patches


def train(model: Network) -> Variables:
    """Two hundred updates by Adam; the last batches are all right."""
    tx = optax.adam(3e-3)
    variables: Any = model.init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 3)))

    @jax.jit
    def update(variables: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            logits, changed = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        (loss, changed), gradient = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        steps, opt_state = tx.update(gradient, opt_state)
        return {"params": optax.apply_updates(variables["params"], steps), **changed}, opt_state, loss

    opt_state = tx.init(variables["params"])
    for step in range(200):
        images, labels, _ = draw(32, 1000 + step)
        variables, opt_state, loss = update(variables, opt_state, images, labels)
    assert float(loss) < 0.1
    return variables


@pytest.fixture(scope="module")
def explained() -> tuple[Explanations, np.ndarray]:
    """The explanations of pictures that training did not have, and where their patches are."""
    model = ResNet(num_classes=2, width=8, blocks=(0,), fused=False)
    images, labels, patches = draw(COUNT, 7)
    variables = train(model)
    answers = np.asarray(jax.jit(lambda images: model.apply(variables, images))(images)).argmax(1)
    np.testing.assert_array_equal(answers, labels)
    return explain_pictures(model, variables, images, labels), patches


@pytest.mark.parametrize("way", ["saliency", "smooth_grad", "integrated_gradients", "grad_cam", "occlusion", "lime"])
def test_the_patch_lights_up(explained: tuple[Explanations, np.ndarray], way: str) -> None:
    found, patches = explained
    for values, patch in zip(getattr(found, way), patches, strict=True):
        strength = np.maximum(values, 0)
        # Everywhere alike it would be 1; a coarse map reaches over the patch's edge.
        assert strength[patch].mean() > 2.5 * strength.mean()
        rows, columns = np.nonzero(patch)
        best = np.argwhere(strength >= np.percentile(strength, 99)).mean(0)
        assert np.abs(best - (rows.mean(), columns.mean())).max() <= PATCH


def test_the_contributions_are_complete(explained: tuple[Explanations, np.ndarray]) -> None:
    found, _ = explained
    assert found.gap.max() < 0.05


def test_a_linear_model_answers_as_the_network(explained: tuple[Explanations, np.ndarray]) -> None:
    found, _ = explained
    assert found.lime_r2.min() > 0.5
