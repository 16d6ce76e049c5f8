"""A network and a training loop of your own on top of jaxfood's pictures, batches, augmentation and optimizers.

python examples/own_network.py                                        the demo pictures; 0.64 of them right in 7 epochs
python examples/own_network.py data.source=folder data.root=hw3_data  every setting of jaxfood.train, as NAME=VALUE
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxfood
from jaxfood.data.augment import augment
from jaxfood.data.batches import epoch_order, make_batches, steps_per_epoch
from jaxfood.data.splits import load_splits
from jaxfood.devices import make_mesh
from jaxfood.optim.losses import cross_entropy


class OwnNetwork(nn.Module):
    """Four convolutions. GroupNorm knows each picture alone, so the padding of the last batch cannot disturb it."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits `[B, num_classes]` of images `[B, H, W, 3]` in [0, 1]."""
        x = images * 2 - 1
        for features in (32, 64, 128, 128):
            x = nn.relu(nn.GroupNorm(8)(nn.Conv(features, (3, 3), strides=2)(x)))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def train(config: jaxfood.Config) -> tuple[Any, list[float]]:
    """Train on `data.train` of a configuration; the parameters, and the accuracy on `data.valid` after each epoch."""
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed)
    mesh = make_mesh(config.device)
    training, validation = make_batches(splits.train, mesh), make_batches(splits.valid, mesh)
    size, epochs = config.train.batch_size, config.train.epochs
    model = OwnNetwork(len(splits.classes))
    tx = jaxfood.make_optimizer(config, total_steps=epochs * steps_per_epoch(training.size, size))

    def scores(params: Any, batch: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean loss and number of right answers of a batch; its mask is 0 where it is padded."""
        logits, mask = model.apply({"params": params}, images), batch["mask"]
        loss = jnp.sum(mask * cross_entropy(logits, batch["label"])) / jnp.sum(mask)
        return loss, jnp.sum(mask * (jnp.argmax(logits, -1) == batch["label"]))

    @jax.jit
    def update(params: Any, opt_state: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[Any, Any]:
        images = to_float(augment(config.augment, batch["image"], batch["position"], key))
        gradient, _ = jax.grad(scores, has_aux=True)(params, batch, images)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    count_right = jax.jit(lambda params, batch: scores(params, batch, to_float(batch["image"]))[1])
    key = jax.random.key(config.train.seed)
    side = config.data.image_size
    params = model.init(key, jnp.zeros((1, side, side, 3)))["params"]
    opt_state, accuracies = tx.init(params), []
    for epoch in range(epochs):
        for batch in training.batches(epoch_order(config.train.seed, epoch, training.size), size):
            params, opt_state = update(params, opt_state, batch, jax.random.fold_in(key, epoch))
        right = sum(count_right(params, batch) for batch in validation.batches(np.arange(validation.size), size))
        accuracies.append(float(right) / validation.size)
        print(f"epoch {epoch + 1}: accuracy {accuracies[-1]:.3f}")
    return params, accuracies


def to_float(images: jax.Array) -> jax.Array:
    """Bytes as numbers from 0 to 1; what augmentation has made numbers of already stays."""
    return images / 255 if images.dtype == jnp.uint8 else images


def main(settings: Sequence[str]) -> None:
    """Train with the demo recipe and these settings."""
    train(jaxfood.load_config("demo", settings))


if __name__ == "__main__":
    main(sys.argv[1:])
