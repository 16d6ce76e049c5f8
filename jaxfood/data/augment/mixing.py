"""Mixup and CutMix: a batch's pictures mixed with each other, and their labels with them.

Zhang et al. 2018, https://arxiv.org/abs/1710.09412, and Yun et al. 2019, https://arxiv.org/abs/1905.04899, as
torchvision has them: one share for the whole batch, and each picture's partner is the one before it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.augment import AugmentConfig
from jaxfood.errors import UserError


def check_mixing(config: AugmentConfig, batch_size: int) -> None:
    """Check that the batches have pictures to mix; one picture, where it is a smaller last batch, stays as it is.

    Raises:
        UserError: a batch is one picture.
    """
    name = "mixup" if config.mixup else "cutmix"
    if batch_size == 1 and getattr(config, name):
        raise UserError(
            f"augment.{name} = {getattr(config, name)} mixes the pictures of a batch, and here a batch is one picture: "
            f"set train.batch_size to 2 or more (of as many training pictures), or augment.{name} to 0"
        )


def mix(config: AugmentConfig, batch: Mapping[str, Any], key: jax.Array, axis_name: str | None) -> dict[str, Any]:
    """The batch with mixed images, float32, and `other_label` `[B]` and `share` `[B]`, the share of the own label.

    The partner comes from the whole batch, on whatever device it lies, and is never padding: the first picture's is the
    last one. A picture that is alone is its own partner.

    Args:
        config: `mixup`, `cutmix` and `mix_share` are read.
        batch: `image` `[B, H, W, 3]`, `label` `[B]`, `mask` `[B]` if there is padding, which comes last.
        key: of the update.
        axis_name: mapped axis over which the batch is split.
    """
    labels = batch["label"]
    mask = batch.get("mask", jnp.ones(len(labels)))
    others, other_labels = _previous((batch["image"], labels), mask, axis_name)
    mixed, share = _mixed(config, _to_float(batch["image"]), _to_float(others), key)
    return {
        **batch,
        "image": mixed,
        "other_label": other_labels,
        "share": jnp.full(len(labels), share, jnp.float32),
    }


def _previous(rows: Any, mask: jax.Array, axis_name: str | None) -> Any:
    """For each row of a batch the one before it, for the first the last that is no padding, for padding itself.

    Each device hands its last row on to the next, and the one that has the last picture hands that to all: two pictures
    for each device, where gathering the batch would put all of it on every one.
    """
    here, count = len(mask), jnp.sum(mask > 0)
    start = jnp.int32(0)
    if axis_name is not None:
        start, count = lax.axis_index(axis_name) * here, lax.psum(count, axis_name)
    numbers, last = start + jnp.arange(here), count - 1 - start

    def previous(leaf: jax.Array) -> jax.Array:
        before, of_first = leaf[-1:], leaf[jnp.clip(last, 0, here - 1)]
        if axis_name is not None:
            devices = lax.axis_size(axis_name)
            before = lax.ppermute(before, axis_name, [(device, (device + 1) % devices) for device in range(devices)])
            has_last = (last >= 0) & (last < here)
            of_first = lax.psum(jnp.where(has_last, of_first, 0), axis_name)  # selected: one device has it
        shifted = jnp.concatenate([before, leaf[:-1]])
        across = (-1,) + (1,) * (leaf.ndim - 1)
        shifted = jnp.where(numbers.reshape(across) == 0, of_first, shifted)
        return jnp.where((numbers < count).reshape(across), shifted, leaf)

    return jax.tree.map(previous, rows)


def _to_float(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def _mixed(config: AugmentConfig, images: jax.Array, others: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The pictures and the share of their own in them."""
    whether_key, which_key, mixup_key, cutmix_key = jax.random.split(key, 4)
    cuts = jax.random.bernoulli(which_key) if config.mixup and config.cutmix else jnp.asarray(config.cutmix > 0)
    mixup_share = jax.random.beta(mixup_key, config.mixup, config.mixup) if config.mixup else jnp.ones(())
    sides = (images.shape[1], images.shape[2])
    box = _draw_box(config.cutmix, sides, cutmix_key) if config.cutmix else jnp.zeros(sides, bool)
    # Of each pixel what is its own: one share for all of them, or all or nothing.
    own = jnp.where(cuts, 1 - box.astype(images.dtype), mixup_share.astype(images.dtype))
    own = jnp.where(jax.random.bernoulli(whether_key, config.mix_share), own, 1)[..., None]
    return own * images + (1 - own) * others, jnp.mean(own)


def _draw_box(alpha: float, sides: tuple[int, int], key: jax.Array) -> jax.Array:
    """A rectangle `[H, W]` of the picture's form around a random place, cut off at the edges; true inside."""
    share_key, place_key = jax.random.split(key)
    half = 0.5 * jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha)) * jnp.array(sides)
    centre = jax.random.randint(place_key, (2,), 0, jnp.array(sides))
    first, last = centre - half.astype(int), centre + half.astype(int)
    rows, columns = (jnp.arange(side) for side in sides)
    inside_rows, inside_columns = (rows >= first[0]) & (rows < last[0]), (columns >= first[1]) & (columns < last[1])
    return inside_rows[:, None] & inside_columns[None]
