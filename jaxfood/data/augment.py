"""Random changes of training pictures, made on the devices, a batch at a time.

What a picture becomes is a function of the seed, the epoch and the picture alone: not of the batch it stands in, of the
number of devices, or of where a training was interrupted.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.sections import AugmentConfig


def changes(config: AugmentConfig) -> bool:
    """Whether a configuration changes pictures at all."""
    return config.flip or config.crop > 0


def augment(
    config: AugmentConfig, images: jax.Array, positions: jax.Array, key: jax.Array, *, size: int | None = None
) -> jax.Array:
    """Changed pictures, of the type of those given.

    Args:
        config: which changes.
        images: `[B, H, W, 3]`.
        positions: `[B]`, the number of each picture in its split.
        key: of the epoch.
        size: height and width of the result; None: as they are.
    """
    if size is not None and size != images.shape[1]:
        shape = (len(images), size, size, 3)
        images = jax.image.resize(images.astype(jnp.float32), shape, "linear").astype(images.dtype)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    flip_keys, crop_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if config.flip:
        chosen = jax.vmap(jax.random.bernoulli)(flip_keys)
        images = jnp.where(chosen[:, None, None, None], jnp.flip(images, axis=2), images)
    if config.crop:
        images = _crop(images, crop_keys, config.crop)
    return images


def _crop(images: jax.Array, keys: jax.Array, padding: int) -> jax.Array:
    """torchvision's `RandomCrop(size, padding=padding, padding_mode="reflect")`."""
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    corners = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * padding + 1))(keys)

    def cut(picture: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(picture, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, corners)
