"""What the parts of a network hand on: their names, shapes, and values, of any network and with its fused blocks.

A part is a module that the network itself has: `block1` of the notes' classifier, `stage2_block1` of the residual one.
Its output is seen, and can be changed, by an interceptor of Flax around the module's call: the networks know nothing of
it, and a fused block is one part as the plain one is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfood.errors import UserError
from jaxfood.evaluation.explanations.scores import Variables
from jaxfood.model.network import Network
from jaxfood.model.networks import predict_logits

HEAD = "head"  # the last layer of every network

Tap = Callable[[str, jax.Array, jax.Array], jax.Array]  # a part's name, input and output to what it hands on


class Features(NamedTuple):
    """What a network makes of B pictures on the way.

    Attributes:
        layer: `[B, h, w, C]`, what the layer asked for hands on.
        hidden: `[B, D]`, what enters the last layer.
        logits: `[B, num_classes]`.
    """

    layer: jax.Array
    hidden: jax.Array
    logits: jax.Array


def tapped_logits(model: Network, variables: Variables, images: jax.Array, tap: Tap) -> jax.Array:
    """The logits `[B, num_classes]` of images `[B, H, W, 3]`, where each part hands on what `tap` makes of its output.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: in [0, 1].
        tap: called for the parts in their order.
    """

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        is_part = context.method_name == "__call__" and isinstance(context.module.parent, Network)
        return tap(str(context.module.name), args[0], output) if is_part else output

    with nn.intercept_methods(intercept):
        return predict_logits(model, variables, images)


def convolutional_layers(model: Network, variables: Variables, side: int) -> dict[str, tuple[int, int, int]]:
    """The parts that hand on pictures of features, in their order, and the shape `(h, w, C)` of these.

    Args:
        model: the network.
        variables: its parameters and running statistics; shapes are enough.
        side: height and width of the network's images, in pixels.
    """
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(name: str, _: jax.Array, output: jax.Array) -> jax.Array:
        if output.ndim == 4:
            shapes[name] = (output.shape[1], output.shape[2], output.shape[3])
        return output

    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    jax.eval_shape(lambda variables, image: tapped_logits(model, variables, image, note), variables, image)
    return shapes


def last_layer(model: Network, variables: Variables, side: int) -> str:
    """The name of the last convolutional layer."""
    return list(convolutional_layers(model, variables, side))[-1]


def middle_layer(model: Network, variables: Variables, side: int) -> str:
    """The name of the convolutional layer half way through the network."""
    names = list(convolutional_layers(model, variables, side))
    return names[len(names) // 2]


def check_layer(model: Network, variables: Variables, side: int, layer: str) -> None:
    """Check that a network has a convolutional layer.

    Raises:
        UserError: it does not.
    """
    if layer not in (names := convolutional_layers(model, variables, side)):
        raise UserError(f"the network has no convolutional layer {layer}: it has {', '.join(names)}")


@partial(jax.jit, static_argnames=("model", "layer"))
def features(model: Network, variables: Variables, images: jax.Array, layer: str) -> Features:
    """What a convolutional layer and the last hidden one hand on for images `[B, H, W, 3]`."""
    seen: dict[str, jax.Array] = {}

    def note(name: str, given: jax.Array, output: jax.Array) -> jax.Array:
        seen.update({HEAD: given} if name == HEAD else {name: output})
        return output

    logits = tapped_logits(model, variables, images, note)
    return Features(seen[layer], seen[HEAD], logits)
