"""Grad-CAM: where the last convolutional features speak for the answered class."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.evaluation.explanations.features import check_layer, convolutional_layers, last_layer, tapped_logits
from jaxfood.evaluation.explanations.scores import Variables
from jaxfood.model.network import Network


def grad_cam(
    model: Network, variables: Variables, images: np.ndarray, labels: np.ndarray, *, layer: str = ""
) -> np.ndarray:
    """`relu(sum_k a_k A_k)` of a layer's features `A_k`, brought to the picture's size: `[B, H, W]`, 0 and above.

    `a_k` is the mean over all places of the logit's gradient by `A_k`. Selvaraju et al. 2017,
    https://arxiv.org/abs/1610.02391.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: `[B, H, W, 3]` in [0, 1].
        labels: `[B]`, the class of each to explain.
        layer: the name of a convolutional layer; "": the last one.

    Raises:
        UserError: the network has no such layer.
    """
    side = images.shape[1]
    if layer:
        check_layer(model, variables, side, layer)
    coarse = layer_map(model, variables, images, labels, layer or last_layer(model, variables, side))
    return np.asarray(jax.image.resize(coarse, (len(images), *images.shape[1:3]), "linear"))


@partial(jax.jit, static_argnames=("model", "layer"))
def layer_map(model: Network, variables: Variables, images: jax.Array, labels: jax.Array, layer: str) -> jax.Array:
    """`grad_cam` in the layer's own size, `[B, h, w]`."""

    def logits_and_features(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = []

        def tap(name: str, _: jax.Array, output: jax.Array) -> jax.Array:
            if name != layer:
                return output
            seen.append(output)
            return output + offset.astype(output.dtype)

        logits = tapped_logits(model, variables, images, tap)
        return jnp.sum(jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], axis=1)), seen[0]

    shape = convolutional_layers(model, variables, images.shape[1])[layer]
    # The gradient by what is added to the features is the gradient by the features.
    nothing = jnp.zeros((len(images), *shape), images.dtype)
    gradient, features = jax.grad(logits_and_features, has_aux=True)(nothing)
    return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features, jnp.mean(gradient, (1, 2))))
