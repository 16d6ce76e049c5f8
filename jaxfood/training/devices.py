"""The same step on one device or many: `jit` over a mesh, the state on every device, the batch split between them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfood.config.schema import DeviceConfig
from jaxfood.errors import UserError


def make_mesh(device: DeviceConfig) -> Mesh:
    """A mesh of the devices that the configuration asks for, with the one axis `data`.

    Raises:
        UserError: fewer devices than asked for.
    """
    devices = jax.devices()
    if device.count > len(devices):
        raise UserError(
            f"device.count = {device.count}: there are only {len(devices)} ({devices[0].platform}); ask for fewer"
        )
    return Mesh(np.array(devices[: device.count or None]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what lies on every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec())


def on_every_device(tree: Any, mesh: Mesh) -> Any:
    """A copy of the arrays of `tree` on every device of the mesh."""
    return jax.tree.map(lambda leaf: jax.device_put(jnp.asarray(leaf), replicated(mesh)), tree)
