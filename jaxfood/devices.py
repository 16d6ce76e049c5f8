"""The devices of a run: how arrays lie on them, and how one step runs on all of them, in two forms with one result.

- `jit`: arrays with NamedShardings on the mesh, the step of each device's share by `jax.shard_map`. Not left to the
  compiler's own partitioning, which on CPU gathers activations where convolutions loop over groups of pictures.
- `pmap`: the same as a mapped program, the batch with a leading axis of devices. The older form, which JAX keeps for
  programs that were written for it (https://docs.jax.dev/en/latest/migrate_pmap.html).

In both, what belongs to the whole batch is a sum over the axis of devices: gradients, metrics, and with
`model.sync_batch_norm` BatchNorm's moments.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxfood.config.sections import Config, DeviceConfig
from jaxfood.errors import UserError

AXIS = "data"
_LANES = 128  # of a TPU's vector registers

Step = Callable[..., Any]  # (arrays that lie on every device, ..., batch, axis_name=...)


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


def padded_rows(config: Config, mesh: Mesh) -> str:
    """A line on how much room a TPU's memory layout leaves empty with this batch; "" where it leaves none.

    XLA lays arrays out in tiles whose last axis is 128 long, and takes the batch for it where there are fewer channels:
    compiled for v5e, an update of the notes' network moves 118 MB a picture with 64 pictures a chip and 80 with 128.
    """
    if mesh.devices.flat[0].platform != "tpu":
        return ""
    rows = math.ceil(config.train.part_size / mesh.size)
    whole = math.ceil(rows / _LANES) * _LANES
    if rows == whole:
        return ""
    batch_size = whole * mesh.size * config.train.accumulate
    return (
        f"train.batch_size = {config.train.batch_size}: {rows} pictures a chip leave {1 - rows / whole:.0%} of a TPU's "
        f"memory layout empty where a layer has fewer than {_LANES} channels; {batch_size} would fill it"
    )


def takes_rows_by_device(config: Config) -> bool:
    """Whether batches must come as `[devices, B / devices, ...]`, as `pmap` takes them, and not as `[B, ...]`."""
    return config.train.parallel == "pmap"


def compile_step(step: Step, config: Config, mesh: Mesh, arguments: Sequence[Any], donate: Sequence[int] = ()) -> Step:
    """A step compiled for the devices of a mesh.

    Args:
        step: takes arrays that lie on every device and, last, a batch; returns arrays that are then on every device.
            With `axis_name` it sees one device's share, and sums over that axis what belongs to the whole batch.
        config: `train.parallel` chooses the form.
        mesh: the devices.
        arguments: what the step will be called with; shapes are enough.
        donate: the positions of the arguments whose memory the step may use again.
    """
    whole = len(arguments) - 1
    if config.train.parallel == "pmap":
        mapped = jax.pmap(
            partial(step, axis_name=AXIS),
            AXIS,
            in_axes=(*[None] * whole, 0),
            out_axes=None,
            devices=list(mesh.devices.flat),
            donate_argnums=tuple(donate),
        )
        return mapped.lower(*arguments).compile()
    if mesh.size > 1:
        # check_vma would insert sums of its own beside those that the step makes.
        step = jax.shard_map(
            partial(step, axis_name=AXIS),
            mesh=mesh,
            in_specs=(*[PartitionSpec()] * whole, PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    return jax.jit(step, donate_argnums=donate, out_shardings=replicated(mesh)).lower(*arguments).compile()
