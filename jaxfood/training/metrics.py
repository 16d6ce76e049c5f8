"""Metrics as sums over pictures, which add up over batches, parts and devices; their means; a line of metrics.jsonl."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.optim.losses import Loss

Batch = Mapping[str, Any]  # arrays; "unlabeled" is a batch itself
Sums = dict[str, jax.Array]


def batch_sums(loss: Loss, logits: jax.Array, batch: Batch) -> Sums:
    """Sums over the batch's pictures, padding left out: of losses and their weights, of right answers, of pictures.

    A mixed picture (`other_label` and `share`) has the losses of both labels by their shares, which for cross-entropy
    is that of PyTorch's soft targets; right is the label of the larger share. As for soft targets there, its weight in
    the mean is 1, whatever the weights of its classes, which its loss has.
    """
    mask = jnp.asarray(batch.get("mask", jnp.ones(len(logits))), logits.dtype)
    labels = batch["label"]
    losses, weights = loss(logits, labels)
    if "share" in batch:
        share, (other_losses, _) = batch["share"].astype(losses.dtype), loss(logits, batch["other_label"])
        losses = share * losses + (1 - share) * other_losses
        weights = jnp.ones_like(weights)
        labels = jnp.where(share >= 0.5, labels, batch["other_label"])
    right = jnp.argmax(logits, axis=-1) == labels

    def total(values: jax.Array) -> jax.Array:  # selected: times 0 the NaN of a padded row would stay
        return jnp.sum(jnp.where(mask > 0, values * mask, 0))

    return {"loss": total(losses), "weight": total(weights), "correct": total(right), "count": jnp.sum(mask)}


def means(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and accuracy of a picture, of updates also gradient norm and share of pseudo-labels; JAX's or NumPy's."""
    weight = sums["weight"] + (sums["weight"] == 0)
    result = {"loss": sums["loss"] / weight, "accuracy": sums["correct"] / sums["count"].clip(1)}
    if "updates" in sums:
        result["grad_norm"] = sums["grad_norm"] / sums["updates"].clip(1)
    if "unlabeled" in sums:
        result["pseudo_label_share"] = sums["pseudo_labels"] / sums["unlabeled"].clip(1)
    return result


def confusion_sums(logits: jax.Array, batch: Batch) -> jax.Array:
    """Pictures of the batch, padding left out, by their label (rows) and the answer (columns): [C, C]."""
    mask = jnp.asarray(batch.get("mask", jnp.ones(len(logits))), jnp.float32)
    count = logits.shape[-1]
    truth = jax.nn.one_hot(batch["label"], count) * (mask > 0)[:, None]
    return truth.T @ jax.nn.one_hot(jnp.argmax(logits, axis=-1), count)


def zero_sums(*, updates: bool, unlabeled: bool = False, confusion: int = 0) -> Sums:
    """Sums of nothing yet, for an epoch of updates (with unlabelled pictures or without) or for an evaluation.

    With `confusion`, a number of classes, the evaluation also counts its pictures by label and answer.
    """
    names = ("loss", "weight", "correct", "count") + (("grad_norm", "updates") if updates else ())
    names += ("pseudo_labels", "unlabeled") if unlabeled else ()
    sums = {name: jnp.zeros([]) for name in names}
    return sums | {"confusion": jnp.zeros((confusion, confusion))} if confusion else sums


def read_means(sums: Sums) -> dict[str, float]:
    """Plain numbers, divided on the host in float64 (348 of 750 is 0.464); waits for the device."""
    host = {name: np.float64(value) for name, value in jax.device_get(sums).items()}
    return {name: float(value) for name, value in means(host).items()}


def finite_or_none(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as strict JSON has it, which knows no NaN and no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def epoch_record(
    epoch: int,
    step: int,
    train: Mapping[str, float],
    valid: Mapping[str, float],
    *,
    learning_rate: float,
    seconds: float,
    images_per_second: float,
) -> dict[str, Any]:
    """An epoch's line of metrics.jsonl.

    Args:
        epoch: from 1 on.
        step: updates done by its end.
        train: means over its updates, as `read_means` gives them.
        valid: means of the evaluation after it.
        learning_rate: of its last update.
        seconds: for updates and evaluation.
        images_per_second: of the updates.
    """
    record = {
        "epoch": epoch,
        "step": step,
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "valid_loss": valid["loss"],
        "valid_accuracy": valid["accuracy"],
        "learning_rate": learning_rate,
        "grad_norm": train["grad_norm"],
        "seconds": seconds,
        "images_per_second": images_per_second,
    }
    if "pseudo_label_share" in train:
        record["pseudo_label_share"] = train["pseudo_label_share"]
    return record
