"""Explanations of single pictures, held to what they promise on networks whose answer is known by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxfood.errors import UserError
from jaxfood.evaluation.explanations.features import convolutional_layers, features, last_layer, middle_layer
from jaxfood.evaluation.explanations.grad_cam import grad_cam, layer_map
from jaxfood.evaluation.explanations.gradients import integrated_gradients, saliency, smooth_grad
from jaxfood.evaluation.explanations.lime import draw_masks, fit_surrogate, lime
from jaxfood.evaluation.explanations.occlusion import occlusion, square_windows
from jaxfood.evaluation.explanations.scores import (
    PART,
    class_logits,
    class_probabilities,
    in_parts,
    input_gradients,
    probabilities_of_variants,
)
from jaxfood.evaluation.explanations.segments import superpixels
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.network import Network
from jaxfood.model.resnet import ResNet
from jaxfood.model.torchvision_resnet import TorchvisionResNet

SIDE = 32
Explained = tuple[Network, dict[str, Any], np.ndarray, np.ndarray]  # network, variables, images, labels


class MeanNetwork(Network):
    """A convolution, ReLU by way of a softplus, a mean over the picture, a linear head: smooth, and known by hand."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, mask: Any = None, keys: Any = None) -> jax.Array:
        x = nn.Conv(4, (4, 4), strides=(4, 4), name="conv")(self.prepared(images))
        return nn.Dense(self.num_classes, name="head")(jnp.mean(nn.softplus(x), (1, 2)))


class RightHalf(Network):
    """Sees the mean squares of the right half's colours alone."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, mask: Any = None, keys: Any = None) -> jax.Array:
        return nn.Dense(self.num_classes, name="head")(jnp.mean(jnp.square(images[:, :, SIDE // 2 :]), (1, 2)))


def make(model: Network, count: int = 2, dtype: Any = np.float32) -> Explained:
    rng = np.random.default_rng(0)
    images = rng.random((count, SIDE, SIDE, 3)).astype(dtype)
    variables = jax.jit(model.init)(jax.random.key(1), images)
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    return model, variables, images, rng.integers(0, model.num_classes, count).astype(np.int32)


def test_gradients_are_those_of_finite_differences() -> None:
    with jax.enable_x64():
        model, variables, images, labels = make(MeanNetwork(num_classes=3), dtype=np.float64)
        gradients = np.asarray(input_gradients(model, variables, images, labels))
        direction = np.random.default_rng(1).standard_normal(images.shape)
        step = 1e-5
        ahead, behind = (class_logits(model, variables, images + sign * step * direction, labels) for sign in (1, -1))
        expected = np.asarray((ahead - behind) / (2 * step))
        assert gradients.dtype == np.float64
        np.testing.assert_allclose((gradients * direction).sum((1, 2, 3)), expected, rtol=1e-8)
        np.testing.assert_array_equal(saliency(model, variables, images, labels), np.abs(gradients).max(-1))


def test_integrated_gradients_are_complete() -> None:
    model, variables, images, labels = make(MeanNetwork(num_classes=3))
    for baseline in (0.0, 0.5):
        contributions = integrated_gradients(model, variables, images, labels, steps=16, baseline=baseline)
        there = np.full_like(images, baseline)
        difference = class_logits(model, variables, images, labels) - class_logits(model, variables, there, labels)
        np.testing.assert_allclose(contributions.sum((1, 2, 3)), difference, rtol=1e-3, atol=1e-5)


def test_smooth_grad_without_noise_is_the_gradient() -> None:
    explained = make(MeanNetwork(num_classes=3))
    plain = np.asarray(input_gradients(*explained))
    np.testing.assert_allclose(smooth_grad(*explained, samples=3, sigma=0), plain, rtol=1e-5)
    noisy = partial(smooth_grad, *explained, samples=3)
    assert np.abs(noisy() - plain).max() > 1e-6
    np.testing.assert_array_equal(noisy(), noisy())
    assert np.abs(noisy(seed=1) - noisy()).max() > 0
    model, variables, images, labels = explained
    alone = smooth_grad(model, variables, images[1:], labels[1:], samples=3)
    np.testing.assert_allclose(alone, noisy()[1:], rtol=1e-5, atol=1e-8)


def test_grad_cam_is_what_the_hand_computes() -> None:
    model, variables, images, labels = make(MeanNetwork(num_classes=3))
    kernel = np.asarray(variables["params"]["head"]["kernel"])
    values = np.asarray(features(model, variables, images, "conv").layer)
    slope = np.asarray(jax.nn.sigmoid(values)).mean((1, 2)) / 64  # of the mean of softplus over 8 x 8 places
    expected = np.maximum(np.einsum("bhwc,bc->bhw", values, slope * kernel[:, labels].T), 0)
    np.testing.assert_allclose(layer_map(model, variables, images, labels, "conv"), expected, rtol=1e-4, atol=1e-7)
    whole = grad_cam(model, variables, images, labels)
    assert whole.shape == (2, SIDE, SIDE)
    np.testing.assert_allclose(whole, jax.image.resize(expected, whole.shape, "linear"), rtol=1e-4, atol=1e-7)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^the network has no convolutional layer block9: it has conv$"):
        grad_cam(*make(MeanNetwork(num_classes=3)), layer="block9")


@pytest.mark.parametrize(
    ("model", "middle", "last", "hidden"),
    [
        (FoodClassifier(num_classes=3, width=8), "block3", "block5", 64),
        (ResNet(num_classes=3, width=4, blocks=(1,)), "stage1", "stage1_block1", 8),
        pytest.param(TorchvisionResNet(num_classes=3), "layer2_1", "layer4_1", 512, marks=pytest.mark.slow),
    ],
)
def test_the_layers_of_each_network(model: Network, middle: str, last: str, hidden: int) -> None:
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    for form in (model, model.clone(fused=False)):
        shapes = convolutional_layers(form, variables, SIDE)
        assert (middle_layer(form, variables, SIDE), last_layer(form, variables, SIDE)) == (middle, last)
        found = jax.eval_shape(partial(features, form, layer=last), variables, image)
        assert found.layer.shape == (1, *shapes[last])
        assert (found.hidden.shape, found.logits.shape) == ((1, hidden), (1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("model", [FoodClassifier(num_classes=3, width=8), ResNet(num_classes=3, width=4, blocks=(1,))])
def test_fused_blocks_are_explained_as_plain_ones(model: Network) -> None:
    model, variables, images, labels = make(model)
    plain = model.clone(fused=False)
    for way in (saliency, grad_cam):
        maps = [  # of every class: what speaks against one everywhere has a Grad-CAM of 0
            [way(form, variables, images, np.full_like(labels, label)) for label in range(3)] for form in (model, plain)
        ]
        found, expected = np.array(maps)
        assert expected.max() > 0
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_occlusion_of_what_is_ignored_is_nothing() -> None:
    model, variables, images, labels = make(RightHalf(num_classes=2))
    drops = occlusion(model, variables, images, labels, size=8, stride=4, fill=0.0)
    assert np.abs(drops[:, :, SIDE // 2 :]).min() > 0
    np.testing.assert_allclose(drops[:, :, : SIDE // 2 - 7], 0, atol=1e-7)


def test_occlusion_is_the_mean_drop_of_the_squares_over_a_pixel() -> None:
    model, variables, images, labels = make(RightHalf(num_classes=2), count=1)
    drops = occlusion(model, variables, images, labels, size=20, stride=12)  # begin at 0 and 12, in both directions
    hidden = images.copy()
    hidden[:, 12:, 12:] = images.mean((1, 2), keepdims=True)
    whole, without = (class_probabilities(model, variables, seen, labels)[0] for seen in (images, hidden))
    np.testing.assert_allclose(drops[0, -1, -1], whole - without, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(drops[0, 15, 15], drops[0][[0, 0, -1, -1], [0, -1, 0, -1]].mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("size", "stride"), [(5, 2), (7, 7), (32, 1), (1, 9)])
def test_squares_cover_the_picture(size: int, stride: int) -> None:
    windows = square_windows(SIDE, SIDE + 4, size, stride)
    assert windows.any(0).all() or stride > size
    assert windows.sum((1, 2)).tolist() == [size * size] * len(windows)
    assert windows[0, 0, 0]
    assert windows[-1, -1, -1]


def test_lime_finds_a_linear_function_of_the_segments() -> None:
    masks = draw_masks(200, 9, seed=0)
    weights = np.random.default_rng(1).standard_normal(9)
    fit = fit_surrogate(masks, 0.3 + masks @ weights, ridge=1e-8)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-6)
    np.testing.assert_allclose((fit.intercept, fit.r2), (0.3, 1), atol=1e-6)
    noise = np.random.default_rng(2).standard_normal(200)
    assert fit_surrogate(masks, noise).r2 < 0.05
    assert fit_surrogate(masks, np.ones(200)).r2 == 1
    noisy = masks @ weights + noise
    left_out = []
    for row in range(200):
        rest = np.arange(200) != row
        fit = fit_surrogate(masks[rest], noisy[rest], ridge=1e-8)
        left_out.append(noisy[row] - fit.intercept - masks[row] @ fit.weights)
    importance = np.exp(-np.square((1 - np.sqrt(masks.mean(1))) / 0.25))
    spread = np.cov(noisy, aweights=importance, bias=True)
    expected = 1 - np.average(np.square(left_out), weights=importance) / spread
    assert fit_surrogate(masks, noisy, ridge=1e-8).r2 == pytest.approx(expected, abs=1e-6)
    assert masks[0].all()
    np.testing.assert_array_equal(masks, draw_masks(200, 9, seed=0))


def test_lime_sees_what_the_network_sees() -> None:
    model, variables, images, _ = make(RightHalf(num_classes=2), count=2)
    variables["params"]["head"]["kernel"] = jnp.array([[0.0, 1], [0, 1], [0, 1]])  # hiding takes away squares: class 1
    images, labels = 0.5 + 0.2 * (images - 0.5), np.array([0, 1])  # a little noise: segments of pixels that touch
    maps, r2 = lime(model, variables, images, labels, samples=1000, segments=16)
    for image, weights, sign in zip(images, maps, (-1, 1), strict=True):
        segments = superpixels(image, 16)
        ignored = ~np.isin(segments, segments[:, SIDE // 2 :])
        assert ignored.any()
        seen = sign * weights[:, SIDE // 2 :].mean()
        assert seen > 0
        assert np.abs(weights[ignored]).max() < 0.05 * seen
    assert r2.min() > 0.98
    again = lime(model, variables, images, labels, samples=1000, segments=16)
    np.testing.assert_array_equal(again.maps, maps)


def test_superpixels_keep_to_colours() -> None:
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    image[:, 13:] = 1
    segments = superpixels(image, 10)
    assert np.unique(segments).tolist() == list(range(segments.max() + 1))
    assert 4 <= segments.max() + 1 <= 9
    assert not set(segments[:, :13].ravel()) & set(segments[:, 13:].ravel())
    squares = superpixels(np.zeros_like(image), 16)
    assert np.bincount(squares.ravel()).tolist() == [64] * 16


def test_many_are_asked_a_few_at_a_time() -> None:
    model, variables, images, labels = make(RightHalf(num_classes=2), count=PART + 3)
    expected = np.asarray(class_probabilities(model, variables, images, labels))
    asked: list[int] = []

    def variants(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(numbers))
        return images[numbers], labels[numbers]

    found = probabilities_of_variants(model, variables, len(images), variants)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert asked == [PART, PART]
    parted = in_parts(partial(class_probabilities, model, variables), images, labels, most=10)
    np.testing.assert_allclose(parted, expected, rtol=1e-6)
