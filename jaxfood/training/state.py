"""TrainState: everything one update reads and writes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxfood.config.sections import Config, TrainConfig
from jaxfood.model.network import Network
from jaxfood.model.networks import count_classes, make_model
from jaxfood.optim.losses import Loss, make_loss
from jaxfood.optim.optimizers import make_optimizer


class TrainState(struct.PyTreeNode):
    """Parameters, statistics and the optimizer's state after `step` updates; with `train.ema_decay` their average too.

    The static fields hold what the compiled step is made from and nothing else, so that two states of equal
    configuration share one compiled step.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    average: dict[str, Any] | None
    config: Config = struct.field(pytree_node=False)
    total_steps: int = struct.field(pytree_node=False)

    @classmethod
    def create(cls, config: Config, variables: Mapping[str, Any], total_steps: int) -> "TrainState":
        """The state before the first update.

        Args:
            config: `model`, `optimizer`, `schedule`, `loss` and of `train` what an update is made of are read; where
                `model.num_classes` is 0 it is that of `variables`.
            variables: `{"params": ..., "batch_stats": ...}`; copied, so they stay valid when the state is donated.
            total_steps: updates in the whole run, for schedules that end with it.
        """
        copies = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(variables))
        num_classes = config.model.num_classes or count_classes(variables)
        relevant = Config(
            model=dataclasses.replace(config.model, num_classes=num_classes),
            train=TrainConfig(
                accumulate=config.train.accumulate,
                seed=config.train.seed if config.model.dropout else 0,
                ema_decay=config.train.ema_decay,
                sam_radius=config.train.sam_radius,
                sam_every=config.train.sam_every,
                freeze=config.train.freeze,
                unlabeled_ratio=config.train.unlabeled_ratio,
                unlabeled_weight=config.train.unlabeled_weight,
                distill_weight=config.train.distill_weight,
                distill_temperature=config.train.distill_temperature,
            ),
            optimizer=config.optimizer,
            schedule=config.schedule,
            loss=config.loss,
        )
        return cls(
            step=jnp.zeros([], jnp.int32),
            params=copies["params"],
            batch_stats=copies["batch_stats"],
            opt_state=make_optimizer(relevant, total_steps).init(copies["params"]),
            average=jax.tree.map(jnp.copy, copies) if config.train.ema_decay else None,
            config=relevant,
            total_steps=total_steps,
        )

    @property
    def model(self) -> Network:
        return make_model(self.config.model)

    @property
    def loss(self) -> Loss:
        return make_loss(self.config.loss, self.config.model.num_classes)

    @property
    def tx(self) -> optax.GradientTransformation:
        return make_optimizer(self.config, self.total_steps)

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables that are evaluated, kept as the best, and predict: the average where there is one."""
        return self.variables if self.average is None else self.average
