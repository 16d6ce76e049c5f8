"""Random changes of training pictures, made on the devices, a batch at a time.

What a picture becomes is a function of the seed, the epoch and the picture alone: not of the batch it stands in, of the
number of devices, or of where a training was interrupted. Only what `mixing` does depends on the batch.

Of the libraries that have such operations dm-pix takes keys, but its brightness, contrast and saturation are not
torchvision's.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.augment import AugmentConfig
from jaxfood.data.augment import colour, geometry
from jaxfood.data.augment.mixing import check_mixing as check_mixing
from jaxfood.data.augment.mixing import mix as mix
from jaxfood.data.augment.trivial import trivial_augment

Change = Callable[[jax.Array, jax.Array], jax.Array]  # of a picture [H, W, 3] and a key


def changes(config: AugmentConfig) -> bool:
    """Whether a configuration changes pictures, beside mixing them."""
    return bool(_moves(config) or _recolours(config))


def mixes(config: AugmentConfig) -> bool:
    """Whether a configuration mixes pictures."""
    return bool(config.mixup or config.cutmix)


def augment(
    config: AugmentConfig, images: jax.Array, positions: jax.Array, key: jax.Array, *, size: int | None = None
) -> jax.Array:
    """Changed pictures `[B, size, size, 3]`: of the type of those given, or float32 in [0, 1] where values change.

    Args:
        config: which changes.
        images: `[B, H, W, 3]`, uint8 or floating-point in [0, 1].
        positions: `[B]`, the number of each picture in its split.
        key: of the epoch.
        size: height and width of the result; None: as they are.
    """
    size = size or images.shape[1]
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    change = partial(_augment_one, config, size=size)
    # One picture after the other does only what was drawn for it, and a CPU is quick at that. Accelerators are not:
    # there all pictures are changed at once, each in every way, and the results chosen from.
    return lax.platform_dependent(
        images,
        keys,
        cpu=lambda images, keys: lax.map(lambda pair: change(*pair), (images, keys)),
        default=jax.vmap(change),
    )


def _augment_one(config: AugmentConfig, image: jax.Array, key: jax.Array, *, size: int) -> jax.Array:
    flip_key, crop_key = jax.random.split(key)
    resizes = config.resized_crop > 0 or size != image.shape[0]
    if resizes or _recolours(config) or _warps(config):
        image = _to_float(image)
    if resizes:
        window = geometry.whole(image)
        if config.resized_crop:
            sides = (image.shape[0], image.shape[1])
            window = geometry.draw_window(crop_key, sides, config.resized_crop, config.resized_crop_ratio)
        image = geometry.resize(image, window, size)
    if config.flip:
        image = jnp.where(jax.random.bernoulli(flip_key), jnp.flip(image, axis=1), image)
    if config.vertical_flip:
        image = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 0)), jnp.flip(image, axis=0), image)
    if config.crop:
        image = geometry.crop(image, crop_key, config.crop)
    for number, (is_wanted, change) in enumerate(_later_changes(config), start=1):
        if is_wanted:
            image = change(image, jax.random.fold_in(key, number))
    return image


def _later_changes(config: AugmentConfig) -> list[tuple[bool, Change]]:
    """In their order; the number of each makes its key, so that one more leaves the others as they were."""
    return [
        (_warps(config), partial(geometry.random_affine, config)),
        (_jitters(config), partial(colour.jitter, config)),
        (config.grayscale > 0, partial(colour.random_grayscale, config.grayscale)),
        (config.trivial, trivial_augment),
        (config.erase > 0, partial(geometry.random_erasing, config.erase)),
    ]


def _moves(config: AugmentConfig) -> bool:
    return config.flip or config.vertical_flip or config.crop > 0 or config.resized_crop > 0 or _warps(config)


def _warps(config: AugmentConfig) -> bool:
    return any((config.rotation, config.translate, config.zoom, config.shear))


def _jitters(config: AugmentConfig) -> bool:
    return any((config.brightness, config.contrast, config.saturation, config.hue))


def _recolours(config: AugmentConfig) -> bool:
    return _jitters(config) or config.trivial or config.grayscale > 0 or config.erase > 0


def _to_float(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
