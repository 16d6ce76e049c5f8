"""A residual network for small pictures and small machines."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfood.model.blocks import ConvBlock, ResidualBlock
from jaxfood.model.layers import BatchNorm, Conv, identity_normal, torch_uniform
from jaxfood.model.network import Network


class ResNet(Network):
    """A stem at half the size, then stages of a pooling block and residual blocks, each of half the size before.

    The stem sees squares of 2x2 pixels as one with twelve channels: a 6x6 convolution with stride 2 for the price of a
    small one. The halvings convolve before they pool (`ConvBlock`), as the notes' network does. Where they end, a mean
    over the picture leaves one vector, whatever the picture's size. All convolutions but the stem start as identities.

    Attributes:
        width: channels of the stem; each stage has twice those of the one before.
        blocks: residual blocks in each stage.
    """

    width: int = 32
    blocks: tuple[int, ...] = (1, 1, 1)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        x = _space_to_depth(self.prepared(images))
        stem = Conv(
            *(x.shape[-1], self.width),
            size=3,
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            fused=self.fused,
            kernel_init=nn.initializers.he_normal(),
            name="stem",
        )
        x = BatchNorm(self.width, axis_name=self.axis_name, name="stem_norm")(stem(x), train=train, mask=mask)
        x = nn.relu(x)
        shared: dict[str, Any] = {"dtype": self.dtype, "axis_name": self.axis_name, "fused": self.fused}
        for stage, blocks in enumerate(self.blocks, start=1):
            features = self.width * 2**stage
            halving = ConvBlock(
                x.shape[-1], features, **shared, use_bias=False, kernel_init=identity_normal, name=f"stage{stage}"
            )
            x = halving(x, train=train, mask=mask)
            for block in range(1, blocks + 1):
                x = ResidualBlock(features, **shared, name=f"stage{stage}_block{block}")(x, train=train, mask=mask)
        x = self.dropped(jnp.mean(x, (1, 2)), keys, train=train)
        x = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=torch_uniform(x.shape[-1]), name="head")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _space_to_depth(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` to `[B, H/2, W/2, 4 C]`: `nn.PixelUnshuffle(2)`, with the channels innermost."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    return squares.reshape(batch, height // 2, width // 2, 4 * channels)
