"""The devices of a run, and how arrays lie on them: whole on each, or split between them by rows."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfood.config.schema import DeviceConfig
from jaxfood.errors import UserError

AXIS = "data"


def make_mesh(device: DeviceConfig) -> Mesh:
    """A mesh with the one axis `data`, of the devices that the configuration asks for, in all processes together.

    Raises:
        UserError: fewer devices than asked for, or only some of those that several processes have.
    """
    devices = jax.devices()
    if device.count > len(devices):
        raise UserError(
            f"device.count = {device.count}: there are only {len(devices)} ({devices[0].platform}); ask for fewer"
        )
    if jax.process_count() > 1 and device.count not in (0, len(devices)):
        raise UserError(f"device.count = {device.count}: several processes use all their devices; leave it at 0")
    return Mesh(np.array(devices[: device.count or None]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what lies whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis is split between the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def on_every_device(tree: Any, mesh: Mesh) -> Any:
    """A copy of the arrays of `tree` on every device. With several processes each gives equal arrays."""
    sharding = replicated(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)
