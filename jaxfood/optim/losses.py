"""Losses of single pictures; the step takes their mean over the batch."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`nn.CrossEntropyLoss(reduction="none")`: logits `[B, num_classes]` and labels `[B]` to losses `[B]` in nats."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
