"""ResNet-18 and -34 as torchvision has them.

He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385, in the form of
https://docs.pytorch.org/vision/stable/models/resnet.html: a block's stride in its first convolution, a projection where
the shape changes, `zero_init_residual` off.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from jaxfood.model.layers import BatchNorm, Conv, max_pool, torch_uniform
from jaxfood.model.network import Network

FEATURES = (64, 128, 256, 512)  # of the four layers; each but the first halves height and width
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # in each layer, by the network's depth

# `nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")`, as torchvision starts its convolutions.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and what they are added to: `[B, H, W, features_in]` to `[B, H/stride, W/stride, features]`.

    Attributes:
        stride: of the first convolution and of the projection.
        dtype: as in `Network`; so are `axis_name` and `fused`.
    """

    features_in: int
    features: int
    stride: int = 1
    dtype: Dtype | None = None
    axis_name: str | None = None
    fused: bool = True

    def setup(self) -> None:
        self.conv1 = self._conv(self.features_in, size=3, stride=self.stride)
        self.bn1 = BatchNorm(self.features, self.axis_name)
        self.conv2 = self._conv(self.features, size=3, stride=1)
        self.bn2 = BatchNorm(self.features, self.axis_name)
        self.is_projected = self.stride > 1 or self.features_in != self.features
        if self.is_projected:
            self.downsample_conv = self._conv(self.features_in, size=1, stride=self.stride)
            self.downsample_bn = BatchNorm(self.features, self.axis_name)

    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        y = nn.relu(self.bn1(self.conv1(x), train=train, mask=mask))
        y = self.bn2(self.conv2(y), train=train, mask=mask)
        if self.is_projected:
            x = self.downsample_bn(self.downsample_conv(x), train=train, mask=mask)
        return nn.relu(y + x.astype(y.dtype))

    def _conv(self, features_in: int, size: int, stride: int) -> Conv:
        return convolution(features_in, self.features, size, stride, dtype=self.dtype, fused=self.fused)


class TorchvisionResNet(Network):
    """torchvision's `resnet18` or `resnet34`, with another number of classes.

    With the stem "imagenet" it is equal to the PyTorch module for equal weights (`jaxfood.from_torch`); it starts from
    torchvision's distributions.

    Attributes:
        depth: 18 or 34.
        stem: "imagenet", a 7x7 convolution and max pooling, both of stride 2; "small", a 3x3 convolution of stride 1
            and no pooling, for pictures of some 64 pixels.
    """

    depth: int = 18
    stem: str = "imagenet"

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
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = convolution(3, FEATURES[0], size, stride, dtype=self.dtype, fused=self.fused, name="conv1")(x)
        x = nn.relu(BatchNorm(FEATURES[0], self.axis_name, name="bn1")(x, train=train, mask=mask))
        if self.stem == "imagenet":
            x = max_pool(x, size=3, stride=2, padding=1)
        for name, features_in, features, stride in blocks(self.depth):
            block = BasicBlock(features_in, features, stride, self.dtype, self.axis_name, self.fused, name=name)
            x = block(x, train=train, mask=mask)
        x = jnp.mean(x, (1, 2))
        x = self.dropped(x, keys, train=train)
        init = torch_uniform(fan_in=x.shape[-1])
        x = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=init, bias_init=init, name="head")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def blocks(depth: int) -> list[tuple[str, int, int, int]]:
    """The blocks of a network, in their order: name, channels in and out, stride."""
    counts, found, features_in = BLOCKS[depth], [], FEATURES[0]
    for layer, (features, count) in enumerate(zip(FEATURES, counts, strict=True), start=1):
        for number in range(count):
            stride = 2 if layer > 1 and number == 0 else 1
            found.append((f"layer{layer}_{number}", features_in, features, stride))
            features_in = features
    return found


def convolution(
    features_in: int,
    features: int,
    size: int,
    stride: int,
    *,
    dtype: Dtype | None,
    fused: bool,
    name: str | None = None,
) -> Conv:
    """A convolution as torchvision's networks have it: padded by half its size, without bias."""
    return Conv(
        features_in, features, size, stride, size // 2, False, dtype, fused, kernel_init=kaiming_normal, name=name
    )
