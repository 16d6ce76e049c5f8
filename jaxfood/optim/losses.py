"""Losses of single pictures, with PyTorch's meaning, and the weights by which the step takes their mean."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxfood.config.loss import BALANCED, CrossEntropy, Focal, LossConfig, MeanSquaredError
from jaxfood.errors import UserError

Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def make_loss(loss: LossConfig, num_classes: int) -> Loss:
    """The loss of a configuration: logits `[B, num_classes]` and labels `[B]` to losses `[B]` and weights `[B]`.

    A batch's loss is sum(losses) / sum(weights): PyTorch's mean, where a picture's weight is its class's.

    Raises:
        UserError: the class weights are not one for each class, or not known yet.
    """
    check_class_weights(loss, num_classes)
    if is_balanced(loss):
        raise UserError(
            f"loss.class_weights = {BALANCED} has no numbers before training pictures are counted, and this run has "
            "seen none: train it first, or give the numbers"
        )
    weights: tuple[float, ...] = getattr(loss, "class_weights", ())
    losses: Callable[[jax.Array, jax.Array], jax.Array]
    match loss:
        case CrossEntropy():
            losses = partial(cross_entropy, label_smoothing=loss.label_smoothing, class_weights=weights)
        case MeanSquaredError():
            losses = mean_squared_error
        case Focal():
            losses = partial(focal, gamma=loss.gamma, class_weights=weights)
        case _:
            raise TypeError(f"no loss for {loss}")
    return lambda logits, labels: (losses(logits, labels), _of_labels(weights, logits, labels))


def is_balanced(loss: LossConfig) -> bool:
    """Whether a loss weighs classes by how many training pictures they have, which is to be counted yet."""
    return getattr(loss, "class_weights", ()) == BALANCED


def balanced_class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """n / (K n_c) for each class, as scikit-learn's `compute_class_weight("balanced")`, from its n_c training pictures.

    K are the classes that have any; one without gets 0. A training picture then weighs 1 on average.
    """
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)


def check_class_weights(loss: LossConfig, num_classes: int) -> None:
    """Check that class weights, if any are given, are one for each class.

    Raises:
        UserError: they are not.
    """
    weights = getattr(loss, "class_weights", ())
    if weights and weights != BALANCED and (len(weights) != num_classes or not any(weights)):
        what = "are all 0" if len(weights) == num_classes else f"has {len(weights)} numbers"
        raise UserError(
            f"loss.class_weights {what} and model.num_classes = {num_classes}: give a weight for each class"
        )


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0, class_weights: Sequence[float] = ()
) -> jax.Array:
    """`nn.CrossEntropyLoss(reduction="none")`: logits `[B, num_classes]` and labels `[B]` to losses `[B]` in nats."""
    surprise = -jax.nn.log_softmax(logits)
    losses = _of_labels(class_weights, logits, labels) * _at(surprise, labels)
    if not label_smoothing:
        return losses
    weighted = surprise * jnp.asarray(class_weights, logits.dtype) if class_weights else surprise
    return (1 - label_smoothing) * losses + label_smoothing * jnp.mean(weighted, axis=-1)


def mean_squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`nn.MSELoss` of softmax and one-hot, mean over classes: `[B, num_classes]` and `[B]` to `[B]`."""
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(jnp.square(error), axis=-1)


def focal(
    logits: jax.Array, labels: jax.Array, *, gamma: float = 2.0, class_weights: Sequence[float] = ()
) -> jax.Array:
    """(1 - p)^gamma times cross-entropy, p the right class's probability: `[B, num_classes]` and `[B]` to `[B]`.

    With gamma 0 it is cross-entropy. The class weights are the paper's alpha (Lin et al. 2017, "Focal loss for dense
    object detection"), there for two classes. 1 - p is taken as the sum of the others, which stays exact near p = 1.
    """
    surprise = -_at(jax.nn.log_softmax(logits), labels)
    others = jnp.arange(logits.shape[-1]) != labels[:, None]
    log_wrong = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=-1, where=others)
    return _of_labels(class_weights, logits, labels) * jnp.exp(gamma * log_wrong) * surprise


def distilled(loss: Loss, targets: jax.Array, *, weight: float, temperature: float) -> Loss:
    """A loss of which a share is the distance from given answers.

    (1 - w) loss + w T^2 KL(targets || softmax(logits / T)), as Hinton et al. 2015, "Distilling the knowledge in a
    neural network", with their T^2, which keeps the gradient's size; the divergence is PyTorch's `nn.KLDivLoss` in
    nats. A picture's class weight counts for both shares.

    Args:
        loss: of logits and labels.
        targets: probabilities `[B, num_classes]`, at the temperature T.
        weight: w.
        temperature: T.
    """

    def of(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses, weights = loss(logits, labels)
        log_answers = jax.nn.log_softmax(logits / temperature)
        divergence = jnp.sum(jax.scipy.special.xlogy(targets, targets) - targets * log_answers, axis=-1)
        return (1 - weight) * losses + weight * temperature**2 * weights * divergence, weights

    return of


def _at(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Each row's value at its label: `[B, num_classes]` and `[B]` to `[B]`."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]


def _of_labels(class_weights: Sequence[float], logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Each picture's weight `[B]`: its class's, or 1."""
    if not class_weights:
        return jnp.ones_like(labels, logits.dtype)
    return jnp.asarray(class_weights, logits.dtype)[labels]
