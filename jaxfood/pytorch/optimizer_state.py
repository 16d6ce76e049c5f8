"""The state dicts of PyTorch's optimizers in our terms.

A state dict has the settings in `param_groups` and what is kept for each parameter in `state`, by the parameters'
positions (https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.state_dict.html). It says neither of
which class it is, which the settings' names tell, nor what the parameters are called: they are taken to be in the order
of `model.parameters()`, or in two groups of that order, the weight matrices and the rest.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfood.config.fields import kind_of
from jaxfood.config.optimizer import OPTIMIZERS, OptimizerConfig
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.optim.optimizers import make_optimizer
from jaxfood.pytorch.layouts import floating, not_finite, to_tensors, to_tree
from jaxfood.pytorch.names import frozen_names, listed, plain_name, shown, trained
from jaxfood.pytorch.tables import Table


class TorchForm(NamedTuple):
    """PyTorch's form of an optimizer of ours."""

    cls: str  # of torch.optim
    kept: Mapping[str, str]  # each field of our state that PyTorch keeps too, and its name there
    settings: Mapping[str, Any] = {}  # PyTorch's, but for the learning rate


_SGD = {"trace": "momentum_buffer"}
_ADAM = {"steps": "step", "mu": "exp_avg", "nu": "exp_avg_sq"}
_TORCH_FORMS = {
    "sgd": TorchForm("SGD", {}),
    "momentum": TorchForm("SGD", _SGD),
    "nesterov": TorchForm("SGD", _SGD, {"nesterov": True}),
    "adagrad": TorchForm("Adagrad", {"steps": "step", "sum_of_squares": "sum"}),
    "rmsprop": TorchForm("RMSprop", {"nu": "square_avg", "mu": "grad_avg", "trace": "momentum_buffer"}),
    "adadelta": TorchForm("Adadelta", {"e_g": "square_avg", "e_x": "acc_delta"}),
    "adam": TorchForm("Adam", _ADAM),
    "amsgrad": TorchForm("Adam", _ADAM | {"nu_max": "max_exp_avg_sq"}, {"amsgrad": True}),
    "nadam": TorchForm("NAdam", _ADAM | {"momentum_product": "mu_product"}),
    "adamw": TorchForm("AdamW", _ADAM),
}
# A setting that the group of one class alone has, values that tell ours from others of that class, and what ours is
# called: the first that fits.
_SIGNS: Sequence[tuple[str, Mapping[str, Any], tuple[str, ...]]] = (
    ("dampening", {"nesterov": True}, ("nesterov",)),
    ("dampening", {"momentum": 0}, ("sgd",)),
    ("dampening", {}, ("momentum",)),
    ("lr_decay", {}, ("adagrad",)),
    ("centered", {}, ("rmsprop",)),
    ("rho", {}, ("adadelta",)),
    ("momentum_decay", {}, ("nadam",)),
    ("amsgrad", {"amsgrad": True}, ("amsgrad",)),
    ("amsgrad", {"decoupled_weight_decay": True}, ("adamw",)),
    ("amsgrad", {"decoupled_weight_decay": False}, ("adam",)),
    ("amsgrad", {}, ("adam", "adamw")),  # older versions of PyTorch do not tell
)
_OURS_ALONE = ("name", "decay_biases_and_norms", "clip_value", "clip_norm")


@dataclasses.dataclass(frozen=True)
class TorchOptimizer:
    """What an optimizer's state dict says, in our terms.

    Attributes:
        names: the optimizer's name; two where the state dict may be of either, the likelier one first.
        settings: its values for the configuration's `optimizer` section, but for the name.
        kept: what PyTorch keeps for each parameter, by its name: nothing where it was never stepped.
        table: of the network whose parameters they are.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    kept: dict[str, dict[str, Any]]
    table: Table

    def opt_state(self, config: Config, params: optax.Params) -> optax.OptState:
        """The state of a configuration's optimizer that goes on where PyTorch's stood.

        Parameters that were never stepped have what they begin with, and so has the schedule.

        Raises:
            UserError: what PyTorch kept does not fit the model or the settings.
        """
        begun = make_optimizer(config, total_steps=1).init(params)
        frozen = frozen_names(self.table, params, config.train.freeze)
        fields = {}
        for field, key in torch_form(config.optimizer).kept.items():
            fresh = optax.tree.get(begun, field)
            if fresh is not None:  # RMSprop's settings say which it has
                is_number = isinstance(fresh, jax.Array)
                fields[field] = self._number(key, fresh, frozen) if is_number else self._moments(key, fresh)
        return optax.tree.set(begun, **fields)

    def _number(self, key: str, fresh: jax.Array, frozen: Collection[str]) -> jax.Array:
        """One number for all parameters, where PyTorch has one for each that is not frozen."""
        names = [name for name in self.table.parameter_names if name not in frozen]
        numbers = {name: _as_number(f"{key} of {name}", self._kept(name, key, fresh)) for name in names}
        unstepped = [name for name in names if not self.kept[name]]
        if 0 < len(unstepped) < len(names):
            raise refused(f"never stepped {listed('', unstepped, limit=2)[0]}, which train.freeze does not keep")
        low, high = (choose(numbers, key=numbers.__getitem__) for choose in (min, max))
        if numbers[low] != numbers[high]:
            raise refused(f"has {key} {numbers[low]:g} for {low} and {numbers[high]:g} for {high}, not one for all")
        return jnp.asarray(numbers[low], fresh.dtype)

    def _moments(self, key: str, fresh: Any) -> Any:
        """An array for each parameter, nested as they are; a frozen one has none."""
        entries = trained(self.table, fresh)
        tensors = to_tensors(entries, {"params": fresh})
        for name, shape in (entry.torch for entry in entries):
            own = self._kept(name, key, tensors[name])
            try:
                tensor = floating(f"{key} of {name}", own)
            except UserError as error:
                raise refused(f"cannot be read, as {str(error).rpartition(': ')[0]}") from error
            if tensor.shape != shape:
                raise refused(
                    f"has {key} of shape {list(tensor.shape)} for {name} of shape {list(shape)}, as if its parameters "
                    "were not in the order of model.parameters()"
                )
            with np.errstate(over="ignore"):
                tensors[name] = tensor.astype(tensors[name].dtype)
        if wrong := not_finite(tensors):
            raise refused(f"has in {key} {wrong}")
        return jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(to_tree(entries, tensors)))

    def _kept(self, name: str, key: str, fresh: Any) -> Any:
        own = self.kept[name]
        if own and key not in own:
            raise refused(f"has no {key} for {name}, which these settings need")
        return own.get(key, fresh)


def torch_form(optimizer: OptimizerConfig) -> TorchForm:
    """PyTorch's form of an optimizer, with all its settings.

    Raises:
        UserError: it is one of the notes' own, or Muon, of which PyTorch's takes no convolutions.
    """
    if optimizer.name not in _TORCH_FORMS:
        raise UserError(
            f"{optimizer.name} has no like in torch.optim: take the weights alone, without --with_optimizer"
        )
    form = _TORCH_FORMS[optimizer.name]
    settings = {field.name: getattr(optimizer, field.name) for field in _common_settings(optimizer)}
    del settings["learning_rate"]
    if "beta1" in settings:
        settings["betas"] = settings.pop("beta1"), settings.pop("beta2")
    return form._replace(settings={**settings, **form.settings})


def refused(what: str) -> UserError:
    """The line that says why an optimizer cannot be taken over."""
    return UserError(f"its optimizer {what}: take the weights alone with --weights_only")


def from_optimizer_state_dict(
    state_dict: Any, table: Table, file_names: Mapping[str, str] | None = None
) -> TorchOptimizer:
    """What `optimizer.state_dict()` says of a network's optimizer; its tensors may be NumPy arrays too.

    Args:
        state_dict: as PyTorch gives it.
        table: of the network whose parameters they are.
        file_names: what the file calls the table's tensors, where it has other names for them.

    Raises:
        UserError: it is none of our optimizers, has settings that we lack, or cannot be laid on the model's parameters.
    """
    groups, state = _checked(state_dict)
    members = _members(groups, table, file_names or {})
    kinds = {_names(group) for group in groups}
    if len(kinds) > 1:
        raise refused(f"has groups of different kinds, {' and '.join(sorted(names[0] for names in kinds))}")
    names = kinds.pop()
    settings = [_settings(names[0], group) for group in groups]
    different = [key for key in settings[0] if len({group[key] for group in settings}) > 1]
    if different not in ([], ["weight_decay"]):
        raise refused(f"has groups that differ in {', '.join(different)}")
    decays = {name: group["weight_decay"] for group, part in zip(settings, members, strict=True) for name in part}
    numbers = chain.from_iterable(group["params"] for group in groups)
    if len(every := list(numbers)) > len(set(every)) or not state.keys() <= set(every):
        raise refused("has parameters twice, or keeps something for parameters of no group")
    kept = {
        name: {key: value for key, value in state.get(number, {}).items() if value is not None}
        for number, name in zip(every, chain.from_iterable(members), strict=True)
    }
    return TorchOptimizer(names, settings[0] | _decay(decays, table), kept, table)


def _checked(state_dict: Any) -> tuple[list[dict[str, Any]], Mapping[Any, Mapping[str, Any]]]:
    """The groups, numbers in them as Python's, and the state.

    Raises:
        UserError: they are not what `optimizer.state_dict()` gives.
    """

    def is_list(value: Any, kind: Any) -> bool:
        return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)

    parts = state_dict if isinstance(state_dict, Mapping) else {}
    groups, state = parts.get("param_groups"), parts.get("state")
    if (
        not is_list(groups, Mapping)
        or not groups
        or not all(is_list(group.get("params"), int | str) for group in groups)
        or not all(is_list(group.get("param_names", []), str) for group in groups)
        or not isinstance(state, Mapping)
        or not is_list(list(state.values()), Mapping)
    ):
        raise refused("is not what optimizer.state_dict() gives")
    return [{key: _python(value) for key, value in group.items()} for group in groups], state


def _python(value: Any) -> Any:
    """A setting as Python's number, where it is one of PyTorch's or NumPy's; of anything else the type, in words."""
    if isinstance(value, list | tuple):
        return tuple(f"a {type(item).__name__}" if isinstance(item, list | tuple) else _python(item) for item in value)
    if isinstance(value, int) and abs(value) >= 2**63:  # more than a float may hold
        return "an endless number"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    try:
        return _python(value.item())
    except (AttributeError, RuntimeError, TypeError, ValueError):  # no number, PyTorch's without a value, an array
        return f"a {type(value).__name__}"


def _as_number(name: str, value: Any) -> float:
    number = _python(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise refused(f"has for {name} {shown(str(number))}, no number")
    return float(number)


def _members(groups: Sequence[Mapping[str, Any]], table: Table, file_names: Mapping[str, str]) -> list[list[str]]:
    """The names of each group's parameters."""
    sizes = [len(group["params"]) for group in groups]
    every, (matrices, rest) = table.parameter_names, table.decay_groups
    if all("param_names" in group for group in groups):
        # Of a name in the file, and of the optimizer's for the same parameter, one ends with the other.
        own = {name: f".{plain_name(file_names.get(name, name))}" for name in every}
        members = [[_named(f".{plain_name(name)}", own) for name in group["param_names"]] for group in groups]
    else:
        of_size = {len(part): part for part in (every, matrices, rest)}
        members = [of_size.get(size, []) for size in sizes]
    if sorted(chain.from_iterable(members)) != sorted(every) or [len(part) for part in members] != sizes:
        raise refused(
            f"has groups of {listed('', map(str, sizes))[0]} parameters, not all {len(every)} of {table.network}, "
            f"nor its {len(matrices)} weight matrices and the {len(rest)} others, nor told by param_names"
        )
    return members


def _named(name: str, file_names: Mapping[str, str]) -> str:
    """The parameter of a name; the name itself where it is none's."""
    return next((ours for ours, own in file_names.items() if own.endswith(name) or name.endswith(own)), name)


def _names(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Ours for the optimizer of a group, told by the settings that it has; two where they do not tell."""
    fitting = (names for key, values, names in _SIGNS if key in group and values.items() <= group.items())
    names = next(fitting, None)
    if names is None:
        own = [shown(str(key)) for key in group if key != "params"] or ["nothing"]
        known = ", ".join(dict.fromkeys(form.cls for form in _TORCH_FORMS.values()))
        raise refused(f"is none of {known}: {listed('it has ', own, limit=12)[0]}")
    for key in ("amsgrad", "nesterov", "decoupled_weight_decay"):
        if not isinstance(group.get(key, False), bool):
            raise refused(f"has {key} = {shown(str(group[key]))}, which is no bool")
    for key in ("maximize", "dampening", *(("decoupled_weight_decay",) if names != ("adamw",) else ())):
        if group.get(key):
            raise refused(f"has {key} = {shown(str(group[key]))}, which {names[0]} lacks here")
    return names


def _common_settings(optimizer: OptimizerConfig | type[OptimizerConfig]) -> list[dataclasses.Field]:
    """The settings that PyTorch has too."""
    return [field for field in dataclasses.fields(optimizer) if field.name not in _OURS_ALONE]


def _settings(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's values for our settings."""
    values = {**group, "learning_rate": group.get("lr")}
    if isinstance(betas := group.get("betas"), tuple) and len(betas) == 2:
        values["beta1"], values["beta2"] = betas
    fields = _common_settings(OPTIMIZERS[name])
    missing = [field.name for field in fields if values.get(field.name) is None]
    if missing:
        raise refused(f"has a group without {', '.join(missing)}")
    settings = {}
    for field in fields:
        value, kind = values[field.name], kind_of(field)
        if not isinstance(value, int | float) or isinstance(value, bool) != (kind is bool):
            raise refused(f"has {field.name} = {shown(str(value))}, which is no {kind.__name__}")
        settings[field.name] = kind(value)
    return settings


def _decay(decays: Mapping[str, float], table: Table) -> dict[str, Any]:
    """The settings for these weight decays by the parameters' names."""
    matrices, rest = ({decays[name] for name in part} for part in table.decay_groups)
    if len(matrices) > 1 or rest not in (matrices, {0.0}):
        raise refused("decays weights differently by more than whether they are biases or BatchNorm's")
    return {"weight_decay": next(iter(matrices)), "decay_biases_and_norms": rest == matrices}
