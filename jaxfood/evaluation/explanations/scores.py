"""What explanations ask of a network: a class's logit, its gradient by the picture, a class's probability.

Pictures of a batch do not influence each other, as the network answers by its running statistics: a batch's gradient
is that of each picture. Loops over noise, steps and hidden parts are Python's, over programs compiled once for a batch:
inside a compiled loop the CPU's convolutions take one thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.model.network import Network
from jaxfood.model.networks import predict_logits

PART = 32  # pictures that are asked for at a time, where each is one of many variants

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}
Way = Callable[[np.ndarray, np.ndarray], Any]  # pictures [B, H, W, 3] and classes [B] to an array [B, ...]
Variants = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [P] numbers to [P, H, W, 3] pictures, [P] labels


@partial(jax.jit, static_argnames="model")
def class_logits(model: Network, variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit `[B]` that each of the images `[B, H, W, 3]`, in [0, 1], has for its class `labels` `[B]`."""
    return _of_class(predict_logits(model, variables, images), labels)


@partial(jax.jit, static_argnames="model")
def input_gradients(model: Network, variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The gradient of `class_logits` by the images, `[B, H, W, 3]`."""
    return jax.grad(lambda images: jnp.sum(class_logits(model, variables, images, labels)))(images)


@partial(jax.jit, static_argnames="model")
def all_probabilities(model: Network, variables: Variables, images: jax.Array) -> jax.Array:
    """The probability of every class, `[B, num_classes]`; the images may also be uint8."""
    return jax.nn.softmax(predict_logits(model, variables, images))


@partial(jax.jit, static_argnames="model")
def class_probabilities(model: Network, variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The probability `[B]` that each of the images has for its class."""
    return _of_class(all_probabilities(model, variables, images), labels)


def probabilities_of_variants(model: Network, variables: Variables, count: int, variants: Variants) -> np.ndarray:
    """`class_probabilities` `[count]` of many variants of pictures, made a few at a time.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        count: how many there are.
        variants: makes those of given numbers, 0 to `count` - 1.
    """
    found = []
    for start in range(0, count, PART):
        # The last part is filled up with its last variant, so that one program serves all.
        numbers = np.minimum(np.arange(start, start + PART), count - 1)
        found.append(class_probabilities(model, variables, *variants(numbers)))
    return np.concatenate([np.asarray(part) for part in found])[:count]


def in_parts(way: Way, images: np.ndarray, labels: np.ndarray, *, most: int = PART // 2) -> np.ndarray:
    """`way(images, labels)` `[B, ...]` of a few pictures at a time, which bounds the memory that gradients take."""
    size = min(most, len(images))
    found = []
    for start in range(0, len(images), size):
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        found.append(np.asarray(way(images[rows], labels[rows])))
    return np.concatenate(found)[: len(images)]


def _of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, jnp.asarray(labels)[:, None], axis=1)[:, 0]
