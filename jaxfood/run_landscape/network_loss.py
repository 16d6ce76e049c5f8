"""The loss of a run in its two parts, the network's logits and the losses of them: for Gauss-Newton and Fisher."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.config.sections import Config
from jaxfood.data.batches import batches
from jaxfood.data.pictures import Pictures
from jaxfood.landscape import NetworkLoss
from jaxfood.model.networks import make_model, predict_logits, to_float
from jaxfood.optim.losses import make_loss
from jaxfood.run_landscape.objective import BATCH_SIZE


def make_network_loss(config: Config, batch_stats: Any, pictures: Pictures) -> NetworkLoss:
    """The mean loss of pictures, as `make_objective` has it.

    With `landscape.statistics` = "batch" a picture's logits depend on the others too; the empirical Fisher is then that
    of each picture's loss, all others given.
    """
    model, loss = make_model(config.model), make_loss(config.loss, config.model.num_classes)
    together = config.landscape.statistics == "batch"

    def outputs(params: Any, batch: Any) -> jax.Array:
        variables = {"params": params, "batch_stats": batch["batch_stats"]}
        if not together:
            return predict_logits(model, variables, batch["image"])
        images, mask = to_float(batch["image"]), batch["mask"]
        logits, _ = model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])
        return logits

    def losses(logits: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        mask = batch["mask"] > 0
        return tuple(jnp.where(mask, each, 0) for each in loss(logits, batch["label"]))  # type: ignore[return-value]

    def batch_of(positions: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        images = np.asarray(pictures.images[positions])
        return {"image": images, "label": pictures.labels[positions], "mask": mask, "batch_stats": batch_stats}

    cut = batches(np.arange(len(pictures)), len(pictures) if together else BATCH_SIZE)
    return NetworkLoss(outputs, losses, [batch_of(positions, mask) for positions, mask in cut])
