"""What a run begins with: new weights, or those that `train.init` names, a run's best or a PyTorch file's."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood import processes
from jaxfood.config.model import ModelConfig
from jaxfood.config.sections import Config
from jaxfood.devices import replicated
from jaxfood.errors import UserError, shown
from jaxfood.files import to_path
from jaxfood.model.networks import count_classes, init_variables
from jaxfood.optim.freeze import describe_frozen, frozen_mask
from jaxfood.places import exists, is_folder, similar
from jaxfood.pytorch.layouts import flat_leaves
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import read_classes, read_config
from jaxfood.runs.pictures import are_numbers


class Initial(NamedTuple):
    """The variables `{"params": ..., "batch_stats": ...}`, None for new ones, and what is to be said, a line each."""

    variables: dict[str, Any] | None
    lines: Sequence[str]


class _Source(NamedTuple):
    variables: dict[str, Any]
    classes: Sequence[str]  # in label order; none where they have no names
    lines: Sequence[str]


def check_settings(config: Config, workdir: Path) -> None:
    """Check `train.init` and `train.freeze` as far as can be before any picture is read.

    Raises:
        UserError: what is to be begun with is not there, of another network, or about to be replaced; no parameter has
            such a name.
    """
    if config.train.init:
        path = _existing(config)
        if path == workdir.absolute():
            raise UserError(f"train.init = {path} is the run that --overwrite replaces: take another --workdir")
        if is_folder(path):
            _check_network(path, network_of(read_config(path)), config)
    if config.train.freeze:
        frozen_mask(_shapes(config)["params"], config.train.freeze)


def initial(config: Config, classes: Sequence[str], mesh: Mesh, resumed: Path | None = None) -> Initial:
    """What a run begins with, in every process alike.

    All is taken over but a head for other classes, which is made anew.

    Args:
        config: the run's; `train.init` and `train.freeze` are read.
        classes: of its pictures, in label order.
        mesh: where a run's weights are read to.
        resumed: the run that goes on, if one does: from its first checkpoint on it needs no `train.init`.

    Raises:
        UserError: what `train.init` names is not there, damaged, or of another network.
    """
    frozen = [describe_frozen(_shapes(config)["params"], config.train.freeze)] if config.train.freeze else []
    if not config.train.init or (resumed is not None and _has_checkpoint(resumed)):
        return Initial(None, frozen)
    with processes.together():
        path = _existing(config)
        own = _from_run(path, config, mesh) if is_folder(path) else _from_file(path, config)
        begun = _fitted(own, config, classes)
    return begun._replace(lines=[*begun.lines, *frozen])


def _has_checkpoint(workdir: Path) -> bool:
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.last is not None


def _existing(config: Config) -> Path:
    path = to_path(config.train.init)
    if not exists(path):
        raise UserError(
            f"train.init = {path}: it does not exist{similar(path)}; name a run's directory or a file of PyTorch "
            "weights"
        )
    return path


def _shapes(config: Config) -> dict[str, Any]:
    """Those of the run's variables; where the number of classes is left to the pictures, of 2."""
    model = dataclasses.replace(config.model, num_classes=config.model.num_classes or 2)
    shapes: dict[str, Any] = jax.eval_shape(lambda: init_variables(dataclasses.replace(config, model=model)))
    return shapes


def _from_run(path: Path, config: Config, mesh: Mesh) -> _Source:
    theirs = read_config(path)
    _check_network(path, network_of(theirs), config)
    everywhere = replicated(mesh)

    def whole(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    target = jax.tree.map(whole, _shapes(theirs))
    with Checkpoints(path) as checkpoints:
        step = checkpoints.find("best")
        variables = checkpoints.restore_variables(step, target)
    lines = [f"begins with the best weights of {path} (step {step})"]
    if theirs.model.normalize != config.model.normalize:
        before, now = (",".join(map(str, each.model.normalize)) or "none" for each in (theirs, config))
        lines.append(f"model.normalize is {now}, and {path} was trained with {before}")
    return _Source(variables, read_classes(path), lines)


def _from_file(path: Path, config: Config) -> _Source:
    from jaxfood.pytorch import training_checkpoint
    from jaxfood.pytorch.names import table_of_variables
    from jaxfood.pytorch.weights import normalize_note

    variables, _, notes = training_checkpoint.read(path, weights_only=True)
    network = _in_words(table_of_variables(variables).model)
    _check_network(path, network, config)
    notes = [*notes, *filter(None, [normalize_note(config)])]
    return _Source(variables, (), [f"begins with the weights of {path}", *(f"{path}: {n}" for n in notes)])


def _check_network(path: Path, network: str, config: Config) -> None:
    if network != (wanted := network_of(config)):
        raise UserError(
            f"train.init = {path} is of {network}, and this run of {wanted}: set these to its own, or leave out "
            "train.init"
        )


def network_of(config: Config) -> str:
    """The settings that decide which parameters a network has, in words."""
    shared = {field.name for field in dataclasses.fields(ModelConfig)} - {"name"}
    fields = (field.name for field in dataclasses.fields(config.model) if field.name not in shared)
    return _in_words({name: getattr(config.model, name) for name in fields})


def _in_words(model: Mapping[str, Any]) -> str:
    return ", ".join(f"model.{key} = {value}" for key, value in model.items() if key != "num_classes")


def _fitted(own: _Source, config: Config, classes: Sequence[str]) -> Initial:
    """The source's variables, in the shapes of this run's."""
    path, lines = config.train.init, list(own.lines)
    variables = {**own.variables, "params": dict(own.variables["params"])}
    if reason := _why_new_head(own, classes, path):
        variables["params"]["head"] = init_variables(config)["params"]["head"]
        lines.append(f"the head is new: {reason}")
    theirs, ours = flat_leaves(variables), flat_leaves(_shapes(config))
    for name, leaf in ours.items():
        has = list(theirs[name].shape) if name in theirs else "missing"
        if has != list(leaf.shape):
            by_size = name == "params/dense1/kernel"
            mend = "set data.image_size to the size it was trained at" if by_size else "set model to its own settings"
            raise UserError(
                f"train.init = {path} does not fit: {name} is {has} there and {list(leaf.shape)} in this run: {mend}"
            )
    # NumPy's, as a run's lie on the devices of all processes and a new head on this one's.
    return Initial(jax.tree.map(np.asarray, variables), lines)


def _why_new_head(own: _Source, classes: Sequence[str], path: str) -> str:
    """Why the head cannot be taken over, in words; empty: it can."""
    count = count_classes(own.variables)
    if count != len(classes):
        return f"{len(classes)} classes ({_few(classes)}), {path} has {count:,}"
    if not own.classes or are_numbers(own.classes) or are_numbers(classes):  # only their number can be compared
        return ""
    differing = (
        f"{label} is {a} here and {b} there"
        for label, (a, b) in enumerate(zip(classes, own.classes, strict=True))
        if a != b
    )
    return f"{path} has other classes ({reason})" if (reason := next(differing, "")) else ""


def _few(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(shown(name) for name in names[:limit]) + ", ..." * (len(names) > limit)
