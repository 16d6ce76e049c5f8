"""Random changes of training pictures, made on the devices, a batch at a time.

What a picture becomes is a function of the seed, the epoch and the picture alone: not of the batch it stands in, of the
number of devices, or of where a training was interrupted. Only what `mixing` does depends on the batch.

Of the libraries that have such operations dm-pix takes keys, but its brightness, contrast and saturation are not
torchvision's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.augment import AugmentConfig
from jaxfood.data.augment import colour, geometry, trivial
from jaxfood.data.augment.mixing import check_mixing as check_mixing
from jaxfood.data.augment.mixing import mix as mix

_MIXING = 2**32 - 2  # no epoch has this number, of which the keys of pictures are made


class Change(NamedTuple):
    """One kind of change."""

    number: int  # makes its key from a picture's: one more kind leaves the others as they were
    draw: Callable[[jax.Array], Any]  # of a key
    apply: Callable[[jax.Array, Any], jax.Array]  # to a picture [3, H, W], what was drawn


def changes(config: AugmentConfig) -> bool:
    """Whether a configuration changes pictures, beside mixing them."""
    return bool(_moves(config) or _recolours(config))


def mixes(config: AugmentConfig) -> bool:
    """Whether a configuration mixes pictures."""
    return bool(config.mixup or config.cutmix)


def vary(
    config: AugmentConfig,
    batch: Mapping[str, Any],
    axis_name: str | None = None,
    *,
    seed: int,
    epoch: jax.Array | int,
    step: jax.Array | int,
    size: int | None = None,
) -> dict[str, Any]:
    """The batch as an update of a run gets it: its pictures changed and resized by `augment`, then mixed by `mix`.

    Args:
        config: which changes.
        batch: `image`, `position` and, where pictures are mixed, what `mix` needs.
        axis_name: mapped axis over which the batch is split.
        seed: of the run.
        epoch: from 0 on.
        step: updates before this one.
        size: as of `augment`.
    """
    batch = dict(batch)
    if changes(config) or size not in (None, batch["image"].shape[1]):
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        batch["image"] = augment(config, batch["image"], batch["position"], key, size=size)
    if mixes(config):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _MIXING), step)
        batch = mix(config, batch, key, axis_name)
    return batch


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
    sides = (images.shape[1], images.shape[2])
    size = size or sides[0]
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    wanted = _changes(config, sides, size)
    # Drawn for all pictures at once and outside the loop: in it XLA computes anew for every pixel what was drawn for a
    # picture (with that, resizing at 96 px took 280 us of a core instead of 75).
    drawn = [jax.vmap(change.draw)(jax.vmap(partial(_fold_in, change.number))(keys)) for change in wanted]
    to_float = _recolours(config) or _warps(config) or _resizes(config, sides, size)

    def apply(image: jax.Array, drawn: list[Any]) -> jax.Array:
        image = jnp.moveaxis(image, 2, 0)
        if to_float and image.dtype == jnp.uint8:
            image = image.astype(jnp.float32) / 255
        for change, values in zip(wanted, drawn, strict=True):
            image = change.apply(image, values)
        return jnp.moveaxis(image, 0, 2)

    # One picture after the other does only what was drawn for it, and a CPU is quick at that. Accelerators are not:
    # there all pictures are changed at once, each in every way, and the results chosen from. A loop for each core gains
    # nothing: XLA runs loops one after another.
    return lax.platform_dependent(
        images,
        drawn,
        cpu=lambda images, drawn: lax.map(lambda row: apply(*row), (images, drawn)),
        default=jax.vmap(apply),
    )


def _changes(config: AugmentConfig, sides: tuple[int, int], size: int) -> list[Change]:
    """Those that are asked for, in their order."""
    resizes, after = _resizes(config, sides, size), (size, size)
    kinds: list[tuple[bool, Change]] = [
        (resizes, Change(1, partial(geometry.draw_resize, config, sides, size), geometry.resize)),
        (config.flip, Change(0, jax.random.bernoulli, partial(geometry.flip, axis=2))),
        (config.vertical_flip, Change(2, jax.random.bernoulli, partial(geometry.flip, axis=1))),
        (config.crop > 0, Change(1, partial(geometry.draw_corner, config.crop), partial(geometry.crop, config.crop))),
        (_warps(config), Change(3, partial(geometry.draw_affine, config, after), geometry.transform)),
        (_jitters(config), Change(4, partial(colour.draw_jitter, config), partial(colour.jitter, config))),
        (
            config.grayscale > 0,
            Change(5, partial(jax.random.bernoulli, p=config.grayscale), colour.to_grayscale_if),
        ),
        (config.trivial, Change(6, trivial.draw, trivial.trivial_augment)),
        (config.erase > 0, Change(7, partial(geometry.draw_erased, config.erase, after), geometry.erase)),
    ]
    return [change for is_wanted, change in kinds if is_wanted]


def _fold_in(number: int, key: jax.Array) -> jax.Array:
    # Never beside `split` of the same key: its parts are the keys that fold_in makes of 0, 1, 2.
    return jax.random.fold_in(key, number)


def _resizes(config: AugmentConfig, sides: tuple[int, int], size: int) -> bool:
    return config.resized_crop > 0 or (size, size) != sides


def _moves(config: AugmentConfig) -> bool:
    return config.flip or config.vertical_flip or config.crop > 0 or config.resized_crop > 0 or _warps(config)


def _warps(config: AugmentConfig) -> bool:
    return any((config.rotation, config.translate, config.zoom, config.shear))


def _jitters(config: AugmentConfig) -> bool:
    return any((config.brightness, config.contrast, config.saturation, config.hue))


def _recolours(config: AugmentConfig) -> bool:
    return _jitters(config) or config.trivial or config.grayscale > 0 or config.erase > 0
