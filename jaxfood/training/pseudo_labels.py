"""Unlabelled pictures in an update: the network's confident answers to them are their labels.

FixMatch (Sohn et al. 2020, https://arxiv.org/abs/2001.07685): a picture is answered in a weak view, little changed, and
where one class has nearly all of the probability the network is trained to answer so in a strong view too.

Unlike the paper's code the answers are given by the running statistics, and by the moving average of the weights where
a run keeps one; the loss is the run's own, with its class weights and label smoothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxfood.config.sections import AugmentConfig, Config
from jaxfood.data.augment import augment, changes
from jaxfood.errors import UserError
from jaxfood.model.networks import predict_logits, to_float
from jaxfood.optim.losses import Loss
from jaxfood.training.metrics import Batch, Sums, batch_sums
from jaxfood.training.state import TrainState

_STREAM = 2**32 - 3  # no epoch has this number, and no other stream of keys


def check_unlabeled(config: Config) -> None:
    """Check that a run can be trained on unlabelled pictures, if it is to be, before any picture is read.

    Raises:
        UserError: it has no augmentation, which strong views are made by.
    """
    if config.data.unlabeled and not changes(config.augment):
        raise UserError(
            f"data.unlabeled = {config.data.unlabeled}: unlabelled pictures are trained on in changed views, and no "
            "augment setting changes any: set some (augment.flip, augment.crop), or leave data.unlabeled out"
        )


def weak(config: AugmentConfig) -> AugmentConfig:
    """The changes of a weak view: of the run's own mirroring and shifting alone."""
    return AugmentConfig(flip=config.flip, crop=config.crop)


def pseudo_labelled(
    state: TrainState, batch: Batch, *, config: AugmentConfig, seed: int, size: int | None, threshold: float
) -> Batch:
    """A batch of unlabelled pictures as they are trained on.

    Args:
        state: answers.
        batch: `"image"` `[B, H, W, 3]`, `"position"` `[B]` among the unlabelled pictures and `"mask"` `[B]`.
        config: the changes of the strong view.
        seed: a view is a function of it, the step and the picture.
        size: height and width of the views; None: as the pictures are.
        threshold: the probability from which on an answer is a label; 1: never.

    Returns:
        `"image"`, the strong views, `"label"` `[B]`, `"sure"` `[B]`, 1 where the label counts, `"mask"`, and `"key"`
        where the network draws random numbers.
    """
    positions = batch["position"]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), state.step)
    weak_key, strong_key, dropout_key = jax.random.split(key, 3)

    def view(config: AugmentConfig, key: jax.Array) -> jax.Array:
        return augment(config, batch["image"], positions, key, size=size)

    def answer(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(predict_logits(state.model, state.evaluated, images))

    probabilities = in_parts(answer, view(weak(config), weak_key), state.config.train.accumulate)
    labelled = {
        "image": view(config, strong_key),
        "label": jnp.argmax(probabilities, axis=-1).astype(jnp.int32),
        "sure": sure_of(probabilities, threshold).astype(jnp.float32),
        "mask": batch["mask"],
    }
    if state.model.dropout:
        labelled["key"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(dropout_key, positions)
    return labelled


def sure_of(probabilities: jax.Array, threshold: float) -> jax.Array:
    """Which of the answers `[B, num_classes]` count, `[B]`: of at least this probability; none where that is 1."""
    highest = jnp.max(probabilities, axis=-1)
    # By rounding a probability can be 1.
    return highest >= threshold if threshold < 1 else jnp.zeros_like(highest, bool)


def with_unlabeled(batch: Batch) -> Batch:
    """What the network sees of a batch: images, mask and keys, of the unlabelled pictures after the others."""
    if "unlabeled" not in batch:
        return batch
    more = batch["unlabeled"]
    mask = batch.get("mask", jnp.ones(len(batch["label"]), more["mask"].dtype))
    seen = {
        "image": jnp.concatenate((to_float(batch["image"]), to_float(more["image"]))),
        "mask": jnp.concatenate((mask, more["mask"])),
    }
    return {**seen, "key": jnp.concatenate((batch["key"], more["key"]))} if "key" in more else seen


def unlabeled_sums(loss: Loss, logits: jax.Array, batch: Batch) -> tuple[jax.Array, Sums]:
    """The sum of the losses of sure labels, and how many these and the unlabelled pictures are."""
    sums = batch_sums(loss, logits, {"label": batch["label"], "mask": batch["mask"] * batch["sure"]})
    return sums["loss"], {"pseudo_labels": sums["count"], "unlabeled": jnp.sum(batch["mask"], dtype=logits.dtype)}


def in_parts(answer: Callable[[jax.Array], jax.Array], images: jax.Array, parts: int) -> jax.Array:
    """`answer` `[B, num_classes]` to images `[B, H, W, 3]`, in so many parts one after another, for less memory."""
    if parts == 1:
        return answer(images)
    split = images.reshape(-1, parts, *images.shape[1:]).swapaxes(0, 1)  # rows stay on their devices, as in the step
    return lax.map(answer, split).swapaxes(0, 1).reshape(len(images), -1)
