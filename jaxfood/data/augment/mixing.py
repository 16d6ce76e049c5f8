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
    images, labels = batch["image"], batch["label"]
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    mask = batch.get("mask", jnp.ones(len(labels)))
    rows, everything = jnp.arange(len(labels)), (images, labels, mask)
    if axis_name is not None:
        rows += lax.axis_index(axis_name) * len(labels)
        everything = lax.all_gather(everything, axis_name, tiled=True)
    all_images, all_labels, all_masks = everything
    count = jnp.maximum(jnp.sum(all_masks > 0), 1)
    partner = jnp.where(rows < count, (rows - 1) % count, rows)
    mixed, share = _mixed(config, images, all_images[partner], key)
    return {
        **batch,
        "image": mixed,
        "other_label": all_labels[partner],
        "share": jnp.full(len(labels), share, jnp.float32),
    }


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
