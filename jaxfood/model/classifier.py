"""The CNN of the notes (`Classifier`) in Flax Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype

from jaxfood.model.fused.block import conv_norm_relu_pool
from jaxfood.model.layers import BatchNorm, Conv, max_pool, torch_uniform
from jaxfood.model.network import Network

WIDTH = 64  # the notes'
FEATURES = (64, 128, 256, 512, 512)  # of the blocks at that width
HIDDEN = (1024, 512)


class ConvBlock(nn.Module):
    """Convolution 3x3, BatchNorm, ReLU, 2x2 max pooling: `[B, H, W, features_in]` to `[B, H/2, W/2, features]`.

    Attributes:
        fused: all four as one operation, the same values and gradients in less time (`model.fused.block`); false: one
            layer after the other, which is the reference for it and also has `jvp`.
    """

    features_in: int
    features: int
    dtype: Dtype | None = None
    axis_name: str | None = None
    fused: bool = True

    def setup(self) -> None:
        self.conv = Conv(self.features_in, self.features, size=3, stride=1, padding=1, dtype=self.dtype, fused=False)
        self.norm = BatchNorm(self.features, axis_name=self.axis_name)
        nn.share_scope(self, self.conv)  # its kernel and bias are the block's own

    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        if self.fused:
            return self._fused(x, train=train, mask=mask)
        x = self.conv(x)
        x = self.norm(x, train=train, mask=mask)
        x = nn.relu(x)
        return max_pool(x, size=2, stride=2)

    def _fused(self, x: jax.Array, *, train: bool, mask: jax.Array | None) -> jax.Array:
        conv, norm = self.conv, self.norm
        x, kernel = promote_dtype(x, conv.kernel, dtype=self.dtype)
        x, statistics = conv_norm_relu_pool(
            x,
            kernel,
            conv.bias,
            norm.scale,
            norm.bias,
            norm.statistics,
            train=train,
            mask=mask,
            axis_name=self.axis_name,
        )
        if train:
            norm.keep(statistics)
        return x


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
