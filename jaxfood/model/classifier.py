"""The CNN of the notes (`Classifier`) in Flax Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype

from jaxfood.model.convolution import conv3x3_max_pool
from jaxfood.model.layers import BatchNormReLU, torch_uniform

FEATURES = (64, 128, 256, 512, 512)
HIDDEN = (1024, 512)


class ConvBlock(nn.Module):
    """Convolution 3x3, BatchNorm, ReLU, 2x2 max pooling: `[B, H, W, in]` to `[B, H/2, W/2, features]`.

    Pooled first: BatchNorm and ReLU keep the order of values, or turn it around where BatchNorm's scale is negative, so
    that pooling finds the same places, and the rest is a quarter of the work. Values and gradients are the same.
    """

    features: int
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        init = torch_uniform(fan_in=9 * x.shape[-1])
        kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        norm = BatchNormReLU(self.features, axis_name=self.axis_name, name="norm")
        pooled = conv3x3_max_pool(x, kernel, norm.scale)
        return norm(pooled, conv_bias=bias, train=train, mask=mask)


class FoodClassifier(nn.Module):
    """The notes' `Classifier`: five blocks of convolution and pooling, three fully connected layers.

    Equal to the PyTorch module for equal weights (`jaxfood.from_torch`); starts from PyTorch's default distributions.

    Attributes:
        num_classes: number of classes.
        dtype: type to compute in; None is that of images and parameters together (float32, or float64 under
            `jax.enable_x64` with float64 parameters). Statistics and logits are at least float32.
        axis_name: mapped axis (of `jax.pmap`, or `jax.shard_map` with `check_vma=False`) over which the batch is split;
            BatchNorm then takes the whole batch's statistics (PyTorch's `SyncBatchNorm`). None: those of the batch that
            it sees.
    """

    num_classes: int = 11
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Logits `[B, num_classes]` of images `[B, H, W, 3]` in [0, 1], H and W divisible by 32.

        With `train=True` BatchNorm takes the batch's statistics and `batch_stats` must be mutable. `mask` `[B]` is 1
        for pictures and 0 for padding.

        Raises:
            TypeError: the images are integers.
            ValueError: the images have another shape.
        """
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(f"images are {images.dtype}: give floating-point values in [0, 1] (divide uint8 by 255)")
        if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % 32 or images.shape[2] % 32:
            raise ValueError(f"images have shape {images.shape}: give [B, H, W, 3] with H and W divisible by 32")
        x = images
        for i, features in enumerate(FEATURES, start=1):
            block = ConvBlock(features, dtype=self.dtype, axis_name=self.axis_name, name=f"block{i}")
            x = block(x, train=train, mask=mask)
        x = x.reshape(x.shape[0], -1)  # height, width, channel: PyTorch flattens channel, height, width
        for i, features in enumerate(HIDDEN, start=1):
            x = nn.relu(self._dense(x, features, name=f"dense{i}"))
        x = self._dense(x, self.num_classes, name="head")
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        init = torch_uniform(fan_in=x.shape[-1])
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, bias_init=init, name=name)(x)
