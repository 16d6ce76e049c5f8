"""PyTorch's training checkpoints, `{"model": ..., "optimizer": ...}`: a training goes on from one, and becomes one."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfood.config.sections import Config
from jaxfood.optim.plateau import rate_factor
from jaxfood.optim.schedules import make_schedule
from jaxfood.pytorch import files as torch_files
from jaxfood.pytorch.layouts import to_tensors
from jaxfood.pytorch.names import frozen_names, table_of_variables, trained
from jaxfood.pytorch.optimizer_state import TorchOptimizer, from_optimizer_state_dict, refused, torch_form
from jaxfood.pytorch.search import find
from jaxfood.pytorch.tables import Table
from jaxfood.pytorch.weights import from_state_dict, to_state_dict


class Checkpoint(NamedTuple):
    """What a training checkpoint says, in our terms.

    Attributes:
        variables: as `from_torch` gives them.
        optimizer: None where the file has none.
        notes: what was chosen, guessed or passed over, a line each.
    """

    variables: dict[str, Any]
    optimizer: TorchOptimizer | None
    notes: Sequence[str]


def read(path: Path, part: str = "", weights_only: bool = False) -> Checkpoint:
    """The variables of a file and the optimizer, if it has one.

    The optimizer's state dict lies beside the model's, under `optimizer`, `optimizer_state_dict` or another key, or in
    a list of one (Lightning).

    Args:
        path: any of `from_torch`'s.
        part: as in `from_torch`.
        weights_only: leave the optimizer out.

    Raises:
        UserError: the file cannot be read, is of another network, or its optimizer cannot be taken over.
    """
    with torch_files.named(path):
        content = torch_files.read(path)
        found = find(content.tree, part, content.unread)
        variables = from_state_dict(found.tensors)
        state_dict = None if weights_only else _optimizer_of(content.tree)
        table = table_of_variables(variables)
        optimizer = None if state_dict is None else from_optimizer_state_dict(state_dict, table, found.names)
        return Checkpoint(variables, optimizer, found.notes)


def _optimizer_of(content: Mapping[Any, Any]) -> Any:
    """The optimizer's state dict, if there is one."""
    named = [content[key] for key in ("optimizer", "optimizer_state_dict") if content.get(key) is not None]
    if named:
        return named[0]
    values = chain.from_iterable(value if isinstance(value, list) else [value] for value in content.values())
    found = [value for value in values if isinstance(value, Mapping) and {"param_groups", "state"} <= value.keys()]
    if len(found) > 1:
        raise refused(f"is one of {len(found)}")
    return found[0] if found else None


def write(path: Path, variables: Mapping[str, Any], opt_state: optax.OptState, config: Config, **progress: int) -> None:
    """Write `to_checkpoint` of the same arguments to a .ckpt, .pt or .pth.

    Raises:
        UserError: another suffix, no such optimizer in PyTorch, or the file cannot be written.
    """
    torch_files.check_writable(path, overwrite=True, with_optimizer=True)
    with torch_files.named(path):
        torch_files.write(path, to_checkpoint(variables, opt_state, config, **progress))


def to_checkpoint(
    variables: Mapping[str, Any], opt_state: optax.OptState, config: Config, *, step: int, total_steps: int, epoch: int
) -> dict[str, Any]:
    """`{"model": ..., "optimizer": ..., "epoch": ..., "step": ...}` of PyTorch tensors, to go on from in PyTorch.

    The optimizer is as if made with `model.parameters()`, or with two groups where biases and BatchNorm's parameters
    are not decayed: the weight matrices and, with `weight_decay=0`, the rest.

    Args:
        variables: `{"params": ..., "batch_stats": ...}`.
        opt_state: of the configuration's optimizer.
        config: `optimizer`, `schedule` and `train.freeze` are read.
        step: updates done; the next one's learning rate is written.
        total_steps: updates in the whole run, for schedules that depend on it.
        epoch: epochs done.

    Raises:
        UserError: PyTorch has no such optimizer, or is not installed.
    """
    cls, kept, settings = torch_form(config.optimizer)
    torch = torch_files.import_torch()
    table = table_of_variables(variables)
    steps = int(optax.tree.get(opt_state, "steps", step))  # RMSProp and AdaDelta count their steps in PyTorch alone
    tensors = to_state_dict(variables, batches_tracked=steps)
    model = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    parameters = {name: torch.nn.Parameter(model[name]) for name in table.parameter_names}
    with jax.enable_x64(True):  # a constant rate is written as it was set
        rate = float(make_schedule(config.schedule, config.optimizer, total_steps)(step)) * rate_factor(opt_state)
    groups: list[dict[str, Any]] = [{"params": list(parameters.values())}]
    if config.optimizer.weight_decay and not config.optimizer.decay_biases_and_norms:
        matrices, rest = ([parameters[name] for name in part] for part in table.decay_groups)
        groups = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    optimizer = getattr(torch.optim, cls)(groups, lr=rate, **settings)
    frozen = frozen_names(table, variables["params"], config.train.freeze)
    for parameter in (parameters[name] for name in table.parameter_names if name not in frozen):
        # Each has a count of its own, which PyTorch changes in place; one that is never stepped has no state at all.
        optimizer.state[parameter] = {"step": torch.tensor(float(steps))} if cls != "SGD" else {}
    for field, key in kept.items():
        for name, array in _by_parameter(opt_state, field, table).items():
            if name in frozen:
                continue
            optimizer.state[parameters[name]][key] = torch.from_numpy(array)
    return {"model": model, "optimizer": optimizer.state_dict(), "epoch": epoch, "step": step}


def _by_parameter(opt_state: optax.OptState, field: str, table: Table) -> dict[str, np.ndarray]:
    """A field of the optimizer's state as PyTorch has it, if there is one: for each parameter an array."""
    value = optax.tree.get(opt_state, field)
    if isinstance(value, jax.Array):
        array = np.asarray(value)
        return {name: array.astype(np.float32) if field == "steps" else array.copy() for name in table.parameter_names}
    return {} if value is None else to_tensors(trained(table, value), {"params": value})
