"""PyTorch's training checkpoints, `{"model": ..., "optimizer": ...}`: a run goes on from one, and becomes one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxfood.errors import UserError
from jaxfood.optim.plateau import rate_factor
from jaxfood.optim.schedules import make_schedule
from jaxfood.pytorch import files as torch_files
from jaxfood.pytorch.mapping import flat_arrays, parameters_of, to_tensors
from jaxfood.pytorch.optimizer import (
    MATRICES,
    PARAMETERS,
    REST,
    TorchOptimizer,
    common_settings,
    from_optimizer_state_dict,
    refused,
    twin,
)
from jaxfood.pytorch.weights import from_state_dict, to_state_dict, unwrapped
from jaxfood.training.saved import load_state
from jaxfood.training.state import TrainState

_NESTS = ("optimizer", "optimizer_state_dict")


def read(path: str | Path) -> tuple[dict[str, Any], TorchOptimizer | None]:
    """The variables of a file, as `from_torch` gives them, and the optimizer where the file has one.

    The optimizer's state dict lies beside the model's, under `optimizer` or `optimizer_state_dict`.

    Raises:
        UserError: the file cannot be read, is not of the notes' Classifier, or its optimizer cannot be taken over.
    """
    path = Path(path)
    with torch_files.named(path):
        content = torch_files.read(path)
        variables = from_state_dict(unwrapped(content))
        optimizer = next((content[key] for key in _NESTS if content.get(key) is not None), None)
        if optimizer is None:
            return variables, None
        if not isinstance(optimizer, Mapping) or not {"param_groups", "state"} <= optimizer.keys():
            raise refused("is not what optimizer.state_dict() gives")
        return variables, from_optimizer_state_dict(optimizer)


def write(path: str | Path, run: Path, which: str | int) -> None:
    """Write a checkpoint of a run as PyTorch's.

    Args:
        path: .ckpt, .pt or .pth.
        run: its work directory.
        which: "best", "last" or a step that the run kept.

    Raises:
        UserError: no run, no such checkpoint, no such optimizer in PyTorch, or the file cannot be written.
    """
    path = Path(path)
    with torch_files.named(path):
        if path.suffix.lower() not in torch_files.PICKLED:
            suffixes = ", ".join(torch_files.PICKLED)
            raise UserError(f"holds no optimizer: give one of {suffixes}, or leave out --with_optimizer")
    state, epoch = load_state(run, which)
    with torch_files.named(path):
        torch_files.write(path, to_checkpoint(state, epoch))


def to_checkpoint(state: TrainState, epoch: int) -> dict[str, Any]:
    """`{"model": ..., "optimizer": ..., "epoch": ..., "step": ...}` of PyTorch tensors, to go on from in PyTorch.

    The optimizer is as if made with `model.parameters()`, or with two groups where biases and BatchNorm's parameters
    are not decayed: the weight matrices and, with `weight_decay=0`, the rest.

    Raises:
        UserError: PyTorch has no such optimizer, or is not installed.
    """
    cls, kept, options = twin(state.config.optimizer)
    torch = torch_files.import_torch()
    # RMSProp and AdaDelta count their steps in PyTorch alone.
    steps = int(optax.tree.get(state.opt_state, "steps", state.step))
    tensors = to_state_dict(state.variables, batches_tracked=steps)
    model = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    leaves = {name: torch.nn.Parameter(model[name]) for name in PARAMETERS}
    optimizer = getattr(torch.optim, cls)(_groups(state, leaves), **_arguments(state), **options)
    for leaf in leaves.values():  # each has a tensor of its own, which PyTorch changes in place
        optimizer.state[leaf] = {"step": torch.tensor(float(steps))} if cls != "SGD" else {}
    for field, key in kept.items():
        for name, array in _by_parameter(state, field).items():
            optimizer.state[leaves[name]][key] = torch.from_numpy(array)
    return {"model": model, "optimizer": optimizer.state_dict(), "epoch": epoch, "step": int(state.step)}


def _groups(state: TrainState, leaves: Mapping[str, Any]) -> list[dict[str, Any]]:
    config = state.config.optimizer
    if config.decay_biases_and_norms or not config.weight_decay:
        return [{"params": [leaves[name] for name in PARAMETERS]}]
    matrices, rest = ([leaves[name] for name in part] for part in (MATRICES, REST))
    return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]


def _arguments(state: TrainState) -> dict[str, Any]:
    """The optimizer's settings under PyTorch's names; the learning rate is the next step's."""
    config = state.config.optimizer
    values = {field.name: getattr(config, field.name) for field in common_settings(type(config))}
    del values["learning_rate"]
    if "beta1" in values:
        values["betas"] = values.pop("beta1"), values.pop("beta2")
    with jax.enable_x64(True):  # a constant rate is written as it was set
        rate = float(make_schedule(state.config.schedule, config, state.total_steps)(int(state.step)))
    return {"lr": rate * rate_factor(state.opt_state), **values}


def _by_parameter(state: TrainState, field: str) -> dict[str, np.ndarray]:
    """A field of the optimizer's state as PyTorch has it, if there is one: for each parameter an array."""
    value = optax.tree.get(state.opt_state, field)
    if isinstance(value, jax.Array):
        array = np.asarray(value)
        return {name: array.astype(np.float32) if field == "steps" else array.copy() for name in PARAMETERS}
    if value is None:
        return {}
    return to_tensors(parameters_of(state.variables), flat_arrays({"params": value}))
