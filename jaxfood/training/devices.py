"""The same step over all devices of a mesh, in two forms with one result.

- `jit`: arrays with NamedShardings on the mesh, the step of each device's share by `jax.shard_map`. Not left to the
  compiler's own partitioning, which on CPU gathers activations where convolutions loop over groups of pictures.
- `pmap`: the same as a mapped program, the batch with a leading axis of devices. The older form, which JAX keeps for
  programs that were written for it (https://docs.jax.dev/en/latest/migrate_pmap.html).

In both, what belongs to the whole batch is a sum over the axis of devices: gradients, metrics, and with
`model.sync_batch_norm` BatchNorm's moments.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxfood.config.schema import Config
from jaxfood.mesh import AXIS, replicated

Step = Callable[..., Any]  # (arrays that lie on every device, ..., batch, axis_name=...)


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
