"""The blocks that networks are made of: the notes', and a residual one."""

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype

from jaxfood.model.fused.block import conv_norm_relu_pool
from jaxfood.model.layers import BatchNorm, Conv, identity_normal, max_pool


class ConvBlock(nn.Module):
    """Convolution 3x3, BatchNorm, ReLU, 2x2 max pooling: `[B, H, W, features_in]` to `[B, H/2, W/2, features]`.

    Attributes:
        fused: all four as one operation, the same values and gradients in less time (`model.fused.block`); false: one
            layer after the other, which is the reference for it and also has `jvp`.
        use_bias: of the convolution, which BatchNorm takes off again; the notes' have one.
        kernel_init: what the convolution's kernel and bias start from; None: PyTorch's default.
    """

    features_in: int
    features: int
    dtype: Dtype | None = None
    axis_name: str | None = None
    fused: bool = True
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer | None = None

    def setup(self) -> None:
        self.conv = Conv(
            *(self.features_in, self.features),
            size=3,
            padding=1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            fused=False,
            kernel_init=self.kernel_init,
        )
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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to what they are given: ReLU(x + f(x)), `[B, H, W, features]`.

    He et al. 2016, "Deep residual learning", https://arxiv.org/abs/1512.03385. The convolutions start as identities
    (`identity_normal`), which was measured to be better than a last scale of 0 (NOTES.md).
    """

    features: int
    dtype: Dtype | None = None
    axis_name: str | None = None
    fused: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        y = x
        for number in (1, 2):
            y = Conv(
                *(self.features, self.features),
                size=3,
                padding=1,
                use_bias=False,
                dtype=self.dtype,
                fused=self.fused,
                kernel_init=identity_normal,
                name=f"conv{number}",
            )(y)
            y = BatchNorm(self.features, axis_name=self.axis_name, name=f"norm{number}")(y, train=train, mask=mask)
            y = nn.relu(y) if number == 1 else nn.relu(x + y)
        return y
