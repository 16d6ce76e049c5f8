"""One update and one evaluation: pure functions of state and batch.

A batch is `{"image": [B, H, W, 3], "label": [B]}` with an optional `"mask"` `[B]`, 1 for pictures and 0 for padding.
Images are uint8 (divided by 255 here, on the device) or floating-point in [0, 1]. A network that draws random numbers
takes them from `"key"` `[B]`, a key for each picture.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxfood.config.augment import AugmentConfig
from jaxfood.config.sections import TrainConfig
from jaxfood.data.augment import vary
from jaxfood.data.batches import batch_of
from jaxfood.model.network import Network
from jaxfood.model.networks import predict_logits, to_float
from jaxfood.optim.freeze import frozen_statistics, stop_frozen
from jaxfood.optim.losses import Loss, distilled
from jaxfood.training.metrics import Batch, Sums, batch_sums, confusion_sums, means
from jaxfood.training.pseudo_labels import in_parts, pseudo_labelled, unlabeled_sums, with_unlabeled
from jaxfood.training.state import TrainState

_DROPOUT = 2**32 - 1  # no epoch has this number, nor has `jaxfood.data.augment`


def loss_fn(
    model: Network, loss: Loss, params: Any, batch_stats: Any, batch: Batch
) -> tuple[jax.Array, tuple[Any, Sums]]:
    """Mean loss of a training batch; beside it the new running statistics and the batch's sums."""
    _, (new_batch_stats, sums) = summed_loss(model, loss, params, batch_stats, batch)
    return means(sums)["loss"], (new_batch_stats, sums)


def summed_loss(
    model: Network, loss: Loss, params: Any, batch_stats: Any, batch: Batch, train: TrainConfig = TrainConfig()
) -> tuple[jax.Array, tuple[Any, Sums]]:
    """The sum in place of the mean: sums of parts make the sum of the whole batch, means do not.

    With teachers' answers, `"target"` `[B, num_classes]`, it is that of `losses.distilled`; with pseudo-labels,
    `"unlabeled"` (`pseudo_labels`), their pictures go through the network together with the others, so that BatchNorm
    sees both, and add to the loss but not to the batch's sums. `train` has the weights of both.
    """
    seen = with_unlabeled(batch)
    logits, new_variables = model.apply(
        {"params": params, "batch_stats": batch_stats},
        to_float(seen["image"]),
        train=True,
        mask=seen.get("mask"),
        keys=seen.get("key"),
        mutable=["batch_stats"],
    )
    own, rest = logits[: len(batch["label"])], logits[len(batch["label"]) :]
    taught = loss
    if "target" in batch:
        share, temperature = train.distill_weight, train.distill_temperature
        taught = distilled(loss, batch["target"], weight=share, temperature=temperature)
    sums = batch_sums(taught, own, batch)
    if "unlabeled" not in batch:
        return sums["loss"], (new_variables["batch_stats"], sums)
    unlabeled_loss, counts = unlabeled_sums(loss, rest, batch["unlabeled"])
    # There are so many times as many of them, padding too: their mean and the labelled ones' have one denominator.
    total = sums["loss"] + train.unlabeled_weight / train.unlabeled_ratio * unlabeled_loss
    return total, (new_variables["batch_stats"], sums | counts)


def gradients(state: TrainState, batch: Batch, axis_name: str | None = None) -> tuple[Any, Any, Sums]:
    """The mean loss's gradient, the new running statistics and the batch's sums.

    With `axis_name`, `batch` is one device's share and all three are the whole batch's, by sums over that axis. If
    BatchNorm does not see the whole batch, the running statistics are the first device's, as in PyTorch's
    DistributedDataParallel (whose gradient is the mean of the devices' means: equal where all shares are full).
    """
    synchronised = axis_name is not None and state.config.model.sync_batch_norm
    model = state.model.clone(axis_name=axis_name if synchronised else None)
    freeze = state.config.train.freeze

    def loss_of(params: Any, batch_stats: Any, batch: Batch) -> tuple[jax.Array, tuple[Any, Sums]]:
        with frozen_statistics(params, freeze):
            return summed_loss(model, state.loss, stop_frozen(params, freeze), batch_stats, batch, state.config.train)

    grad_fn = jax.grad(loss_of, has_aux=True)
    accumulate = partial(_accumulate, parts=state.config.train.accumulate)
    grads, (batch_stats, sums) = accumulate(grad_fn, state.params, state.batch_stats, batch)
    if axis_name is not None:
        grads, sums = lax.psum((grads, sums), axis_name)
        if not synchronised:
            is_first = lax.axis_index(axis_name) == 0  # selected: times 0 another device's NaN would stay
            own = jax.tree.map(lambda leaf: jnp.where(is_first, leaf, 0), batch_stats)
            batch_stats = lax.psum(own, axis_name)
    weight = sums["weight"] + (sums["weight"] == 0)
    return jax.tree.map(lambda leaf: leaf / weight.astype(leaf.dtype), grads), batch_stats, sums


def _accumulate(
    grad_fn: Callable[..., tuple[Any, tuple[Any, Sums]]], params: Any, batch_stats: Any, batch: Batch, parts: int
) -> tuple[Any, tuple[Any, Sums]]:
    """`grad_fn` of a batch in so many parts, one after another: the memory of one part, the sum over all.

    Equal to the whole batch at once but for BatchNorm, which sees each part on its own and moves the running statistics
    once for each, as a PyTorch loop that calls `backward` several times before `step` does.
    """
    if parts == 1:
        return grad_fn(params, batch_stats, batch)
    rows = len(batch["label"])
    if rows % parts:
        raise ValueError(
            f"a batch of {rows} rows does not divide into train.accumulate = {parts} parts: pad it, with a mask"
        )
    # Part j takes every parts-th row: rows that lie on several devices stay where they are.
    split = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), dict(batch))

    def add(total: tuple[Any, tuple[Any, Sums]], part: Batch) -> tuple[tuple[Any, tuple[Any, Sums]], None]:
        grads, (batch_stats, sums) = total
        new_grads, (batch_stats, new_sums) = grad_fn(params, batch_stats, part)
        return (jax.tree.map(jnp.add, grads, new_grads), (batch_stats, jax.tree.map(jnp.add, sums, new_sums))), None

    first = jax.tree.map(lambda leaf: leaf[0], split)
    shapes, (_, sums_shapes) = jax.eval_shape(grad_fn, params, batch_stats, first)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes, sums_shapes))
    total, _ = lax.scan(add, (nothing[0], (batch_stats, nothing[1])), split)
    return total


def update(state: TrainState, batch: Batch, axis_name: str | None = None) -> tuple[TrainState, Sums]:
    """One update: the new state, and the batch's sums with the gradient's norm before clipping.

    With `axis_name`, `batch` is one device's share of the batch: see `gradients`.
    """
    grads, batch_stats, sums = gradients(state, batch, axis_name)
    norm = optax.tree.norm(grads)
    if state.config.train.sam_radius:
        grads = _sharpness_aware(state, batch, grads, norm, axis_name)
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    if state.average is not None:
        new_state = new_state.replace(average=_averaged(new_state))
    return new_state, sums | {"grad_norm": norm, "updates": jnp.ones([])}


def _sharpness_aware(state: TrainState, batch: Batch, grads: Any, norm: jax.Array, axis_name: str | None) -> Any:
    """The gradient a radius uphill, at the highest loss nearby to first order, instead of the one here.

    Foret et al. 2021, "Sharpness-aware minimization", https://arxiv.org/abs/2010.01412. The climb is by the whole
    batch's gradient, on all devices the same, and leaves the running statistics alone.
    """
    train = state.config.train

    def uphill(grads: Any) -> Any:
        scale = train.sam_radius / (norm + 1e-12)
        climbed = jax.tree.map(lambda p, g: p + scale.astype(p.dtype) * g, state.params, grads)
        return gradients(state.replace(params=climbed), batch, axis_name)[0]

    if train.sam_every == 1:
        return uphill(grads)
    return lax.cond(state.step % train.sam_every == 0, uphill, lambda grads: grads, grads)


def _averaged(state: TrainState) -> Any:
    """The moving average after an update: of parameters and running statistics, which belong together.

    Update t counts by at least 9 / (10 + t), so that the first weights are soon forgotten (TensorFlow's
    `ExponentialMovingAverage` with `num_updates`).
    """
    decay = jnp.minimum(state.config.train.ema_decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(
        lambda old, new: old + (1 - decay).astype(old.dtype) * (new - old), state.average, state.variables
    )


@partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. `state` is donated: use the returned one.

    Returns:
        The new state, and the batch's `loss`, `accuracy` and `grad_norm` (before clipping).
    """
    new_state, sums = update(state, _with_keys(state, batch, jnp.arange(len(batch["label"])), state.step))
    return new_state, means(sums)


def add_update(state: TrainState, sums: Sums, batch: Batch, axis_name: str | None = None) -> tuple[TrainState, Sums]:
    """One update, and the epoch's sums with those of this batch."""
    new_state, new_sums = update(state, batch, axis_name)
    return new_state, jax.tree.map(jnp.add, sums, new_sums)


def _with_keys(state: TrainState, batch: Batch, positions: jax.Array, draw: jax.Array) -> Batch:
    """The batch with a key for each picture, if the network draws random numbers."""
    if not state.model.dropout or "key" in batch:
        return batch
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(state.config.train.seed), _DROPOUT), draw)
    return {**batch, "key": jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)}


def add_augmented_update(
    state: TrainState,
    sums: Sums,
    batch: Batch,
    axis_name: str | None = None,
    *,
    config: AugmentConfig,
    seed: int,
    steps_per_epoch: int,
    size: int | None = None,
    threshold: float = 1.0,
    teach: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[TrainState, Sums]:
    """`add_update` with what is drawn anew for each picture in each epoch: changes (`jaxfood.data.augment`), dropout,
    mixing.

    The batch also has `"position"` `[B]`. Its images become `size` pixels high and wide. `"unlabeled"` pictures, if it
    has any, get the network's own answers of at least a probability `threshold` for labels. `teach` gives the teachers'
    answers `[B, num_classes]` to the images as they are then.
    """
    epoch = state.step // steps_per_epoch
    batch = _with_keys(state, batch, batch["position"], epoch)
    batch = vary(config, batch, axis_name, seed=seed, epoch=epoch, step=state.step, size=size)
    if "unlabeled" in batch:
        unlabeled = pseudo_labelled(state, batch["unlabeled"], config=config, seed=seed, size=size, threshold=threshold)
        batch = {**batch, "unlabeled": unlabeled}
    if teach is not None:
        batch = {**batch, "target": in_parts(teach, batch["image"], state.config.train.accumulate)}
    return add_update(state, sums, batch, axis_name)


def add_taught_update(
    state: TrainState,
    sums: Sums,
    teachers: Sequence[Any],
    batch: Batch,
    axis_name: str | None = None,
    *,
    answer: Callable[[Sequence[Any], jax.Array], jax.Array],
    **options: Any,
) -> tuple[TrainState, Sums]:
    """`add_augmented_update` where `answer` gives the answers of `teachers`, the variables of each, to images."""
    return add_augmented_update(state, sums, batch, axis_name, teach=partial(answer, teachers), **options)


def add_updates(
    state: TrainState,
    sums: Sums,
    *arguments: Any,
    add: Callable[..., tuple[TrainState, Sums]],
    axis_name: str | None = None,
) -> tuple[TrainState, Sums]:
    """Several updates in one program, one after another.

    A loop of as many turns as it is told, for one update too. XLA compiles the body of a loop otherwise than the same
    update alone (a sum is added up in another order), and a loop of a known length again otherwise; of one loop every
    turn is the same program, whatever their number. On a CPU that is the faster form too: XLA gives its temporary
    memory back after each program, and the page faults of taking it anew are a seventh to a fifth of an update.

    Args:
        state: before them.
        sums: the epoch's before them.
        arguments: what `add` takes between these and the batch; the number of updates, int32 `[]`; pictures and what is
            drawn of them, which `batch_of` takes.
        add: an update, `add_update` or another of its kind.
        axis_name: as there.
    """
    *between, count, pictures, drawn = arguments

    def one(number: jax.Array, carried: tuple[TrainState, Sums, Batch]) -> tuple[TrainState, Sums, Batch]:
        state, sums, batch = carried
        state, sums = add(state, sums, *between, batch, axis_name=axis_name)
        # The next one: carried from turn to turn, a batch lies in memory of its own, as one from disk does. One that is
        # drawn in its own turn XLA compiles into the sums over it, and their order then depends on the stack's width.
        # Behind a barrier, or XLA sees that a batch from disk stays the same and moves what depends on it alone out.
        return state, sums, lax.optimization_barrier(batch_of(pictures, drawn, jnp.minimum(number + 1, count - 1)))

    return lax.fori_loop(0, count, one, (state, sums, batch_of(pictures, drawn, jnp.zeros([], jnp.int32))))[:2]


def add_evaluation(
    model: Network, loss: Loss, variables: Any, sums: Sums, batch: Batch, axis_name: str | None = None
) -> Sums:
    """The sums with those of this batch under the running statistics."""
    logits = predict_logits(model, variables, batch["image"])
    new_sums = batch_sums(loss, logits, batch)
    if "confusion" in sums:
        new_sums["confusion"] = confusion_sums(logits, batch)
    if axis_name is not None:
        new_sums = lax.psum(new_sums, axis_name)
    return jax.tree.map(jnp.add, sums, new_sums)
