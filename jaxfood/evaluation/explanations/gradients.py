"""Explanations by the gradient of the answered class's logit: saliency, SmoothGrad, integrated gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.evaluation.explanations.scores import Variables, input_gradients
from jaxfood.model.network import Network


def saliency(model: Network, variables: Variables, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much a small change of each pixel would change the logit: `max_c |dS/dx|`, `[B, H, W]`.

    Simonyan, Vedaldi and Zisserman 2014, https://arxiv.org/abs/1312.6034.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: `[B, H, W, 3]` in [0, 1].
        labels: `[B]`, the class of each to explain.
    """
    return strength(np.asarray(input_gradients(model, variables, images, labels)))


def smooth_grad(
    model: Network,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    samples: int = 32,
    sigma: float = 0.15,
    seed: int = 0,
) -> np.ndarray:
    """The mean of the gradient over noisy copies of each picture, `[B, H, W, 3]`.

    Smilkov et al. 2017, https://arxiv.org/abs/1706.03825. The noise of a copy is the same for all pictures of a batch,
    so that a picture's result does not depend on which others are there.

    Args:
        model: as in `saliency`; so are `variables`, `images` and `labels`.
        variables: see there.
        images: see there.
        labels: see there.
        samples: how many copies.
        sigma: the noise's standard deviation, as a share of the range from a picture's darkest value to its brightest.
        seed: of the noise.
    """
    x = jnp.asarray(images)
    spread = sigma * (jnp.max(x, (1, 2, 3), keepdims=True) - jnp.min(x, (1, 2, 3), keepdims=True))
    total = jnp.zeros_like(x)
    for sample in range(samples):
        key = jax.random.fold_in(jax.random.key(seed), sample)
        noise = jax.random.normal(key, x.shape[1:], x.dtype)
        total += input_gradients(model, variables, x + spread * noise, labels)
    return np.asarray(total / samples)


def integrated_gradients(
    model: Network,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int = 64,
    baseline: float | np.ndarray = 0.0,
) -> np.ndarray:
    """What each value contributes to the logit, counted from a baseline, `[B, H, W, 3]`.

    `(x - b) * mean over a in [0, 1] of dS/dx at b + a (x - b)`, by the midpoint rule (Sundararajan, Taly and Yan 2017,
    https://arxiv.org/abs/1703.01365). The contributions of a picture sum up to `S(x) - S(b)` (completeness), the better
    the more steps.

    Args:
        model: as in `saliency`; so are `variables`, `images` and `labels`.
        variables: see there.
        images: see there.
        labels: see there.
        steps: of the mean.
        baseline: a picture without content, black by default; what broadcasts to `[B, H, W, 3]`.
    """
    x = jnp.asarray(images)
    difference = x - jnp.asarray(baseline, x.dtype)
    total = jnp.zeros_like(x)
    for step in range(steps):
        # From the picture's end: x - (1 - a) * difference.
        total += input_gradients(model, variables, x - (1 - (step + 0.5) / steps) * difference, labels)
    return np.asarray(difference * total / steps)


def strength(values: np.ndarray) -> np.ndarray:
    """The largest of the absolute values of red, green and blue: `[B, H, W, 3]` to `[B, H, W]`."""
    return np.abs(values).max(axis=-1)
