"""The CNN of the notes (`Classifier`) in Flax Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfood.model.blocks import ConvBlock
from jaxfood.model.layers import torch_uniform
from jaxfood.model.network import Network

WIDTH = 64  # the notes'
FEATURES = (64, 128, 256, 512, 512)  # of the blocks at that width
HIDDEN = (1024, 512)


class FoodClassifier(Network):
    """The notes' `Classifier`: five blocks of convolution and pooling, three fully connected layers.

    Equal to the PyTorch module for equal weights (`jaxfood.from_torch`); starts from PyTorch's default distributions.

    Attributes:
        width: channels of the first block; all others in proportion.
    """

    width: int = WIDTH

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        x = self.prepared(images)
        for i, features in enumerate(map(self._scaled, FEATURES), start=1):
            block = ConvBlock(x.shape[-1], features, self.dtype, self.axis_name, self.fused, name=f"block{i}")
            x = block(x, train=train, mask=mask)
        x = x.reshape(x.shape[0], -1)  # height, width, channel: PyTorch flattens channel, height, width
        for i, features in enumerate(map(self._scaled, HIDDEN), start=1):
            x = nn.relu(self._dense(x, features, name=f"dense{i}"))
            x = self.dropped(x, keys, train=train, layer=i)
        x = self._dense(x, self.num_classes, name="head")
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _scaled(self, features: int) -> int:
        return features * self.width // WIDTH

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        init = torch_uniform(fan_in=x.shape[-1])
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, bias_init=init, name=name)(x)
