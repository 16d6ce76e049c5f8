"""What every network is: a Linen module of pictures to logits, whatever lies between."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from jaxfood.model.layers import dropout


class Network(nn.Module):
    """An image classifier.

    Attributes:
        num_classes: number of classes.
        dtype: type to compute in; None is that of images and parameters together (float32, or float64 under
            `jax.enable_x64` with float64 parameters). Statistics and logits are at least float32.
        axis_name: mapped axis (of `jax.pmap`, or `jax.shard_map` with `check_vma=False`) over which the batch is split;
            BatchNorm then takes the whole batch's statistics (PyTorch's `SyncBatchNorm`). None: those of the batch that
            it sees.
        fused: layers in the platform's own form (`model.fused`), the same values and gradients in less time; false: one
            layer after the other, which is the reference for it and also has `jvp`.
        dropout: share of what enters the last fully connected layers that is set to 0 in training.
        normalize: mean and deviation of red, green and blue, which the network takes off its images; empty: none.
    """

    num_classes: int = 11
    dtype: Dtype | None = None
    axis_name: str | None = None
    fused: bool = True
    dropout: float = 0.0
    normalize: tuple[float, ...] = ()

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Logits `[B, num_classes]` of images `[B, H, W, 3]` in [0, 1], H and W divisible by 32.

        Args:
            images: floating-point.
            train: BatchNorm takes the batch's statistics and `batch_stats` must be mutable.
            mask: `[B]`, 1 for pictures and 0 for padding.
            keys: `[B]`, a random key for each picture: what dropout is drawn from in training.

        Raises:
            TypeError: the images are integers.
            ValueError: the images have another shape, or dropout has no keys.
        """
        raise NotImplementedError

    def prepared(self, images: jax.Array) -> jax.Array:
        """The images, checked and normalised."""
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(f"images are {images.dtype}: give floating-point values in [0, 1] (divide uint8 by 255)")
        if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] % 32 or images.shape[2] % 32:
            raise ValueError(f"images have shape {images.shape}: give [B, H, W, 3] with H and W divisible by 32")
        if not self.normalize:
            return images
        mean, deviation = jnp.asarray(self.normalize, images.dtype).reshape(2, 3)
        return (images - mean) / deviation

    def dropped(self, x: jax.Array, keys: jax.Array | None, *, train: bool, layer: int = 0) -> jax.Array:
        """`layers.dropout` of `[B, features]` in training; `layer` is its number, where a network has several."""
        if not (train and self.dropout) or self.is_initializing():
            return x
        if keys is None:
            raise ValueError(f"dropout = {self.dropout}: give keys [B], a random key for each picture")
        return dropout(x, self.dropout, keys, layer)
