"""What a state dict of PyTorch's optimizers says. Its tensors may be arrays, so this needs no PyTorch."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity
import pytest
from conftest import NUM_CLASSES

from jaxfood.config import OPTIMIZERS, Config
from jaxfood.config.loading import Source, merge
from jaxfood.errors import UserError
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.optimizer_state import TorchOptimizer, from_optimizer_state_dict
from jaxfood.pytorch.tables import classifier_table
from jaxfood.pytorch.weights import from_state_dict
from jaxfood.training.state import TrainState

TABLE = classifier_table({})
PARAMETERS, (MATRICES, REST) = TABLE.parameter_names, TABLE.decay_groups

# What PyTorch writes for some parameters, less what only says how it computes.
ADAM = {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.1, "amsgrad": False, "maximize": False}
SGD = {"lr": 0.02, "momentum": 0.0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
RMSPROP = {"lr": 0.02, "momentum": 0.0, "alpha": 0.7, "eps": 1e-7, "centered": False, "weight_decay": 0}


def configuration(optimizer: TorchOptimizer, **sections: Mapping[str, Any]) -> Config:
    """As `convert` makes it."""
    section = {"name": optimizer.names[0], **optimizer.settings}
    return merge(Source("checkpoint", {"optimizer": section}), Source("test", sections))


def taken_over(tensors: parity.Tensors, state_dict: Mapping[str, Any]) -> TrainState:
    """The state that goes on from a model's and an optimizer's state dict."""
    variables = from_state_dict(tensors)
    optimizer = from_optimizer_state_dict(state_dict, table_of_variables(variables))
    state = TrainState.create(configuration(optimizer), variables, 10)
    return state.replace(opt_state=optimizer.opt_state(state.config, state.params))


def assert_same(ours: Any, theirs: Any) -> None:
    """The same structure, types and bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        name = jax.tree_util.keystr(path)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


@cache
def weights() -> parity.Tensors:
    """A model's state dict: read it, don't change it."""
    return parity.make_weights(32, NUM_CLASSES)


@cache
def moments(key: str) -> parity.Tensors:
    """Arrays of the parameters' shapes, others for another key: read them, don't change them."""
    return {name: weights()[name] + len(key) for name in PARAMETERS}


def kept(*keys: str, step: float = 5) -> dict[int, dict[str, Any]]:
    """What is kept for each parameter, by its position."""
    values = {key: moments(key) for key in keys}
    return {
        number: {"step": np.float32(step)} | {key: values[key][name] for key in keys}
        for number, name in enumerate(PARAMETERS)
    }


def state_dict(group: Mapping[str, Any], state: Mapping[int, Any] | None = None) -> dict[str, Any]:
    """All parameters in one group."""
    return {"state": state or {}, "param_groups": [{**group, "params": list(range(len(PARAMETERS)))}]}


ADAM_STATE = {"steps": "step", "mu": "exp_avg", "nu": "exp_avg_sq"}
READ: list[tuple[Mapping[str, Any], str, Mapping[str, str]]] = [  # a group, our name, and where each field comes from
    (SGD, "sgd", {}),
    (SGD | {"momentum": 0.5}, "momentum", {"trace": "momentum_buffer"}),
    (SGD | {"momentum": 0.5, "nesterov": True}, "nesterov", {"trace": "momentum_buffer"}),
    (
        {"lr": 0.02, "lr_decay": 0.1, "eps": 1e-7, "weight_decay": 0, "initial_accumulator_value": 0},
        "adagrad",
        {"steps": "step", "sum_of_squares": "sum"},
    ),
    (RMSPROP, "rmsprop", {"nu": "square_avg"}),
    (RMSPROP | {"momentum": 0.5}, "rmsprop", {"nu": "square_avg", "trace": "momentum_buffer"}),
    (RMSPROP | {"centered": True}, "rmsprop", {"nu": "square_avg", "mu": "grad_avg"}),
    (
        {"lr": 0.02, "rho": 0.7, "eps": 1e-5, "weight_decay": 0.1},
        "adadelta",
        {"e_g": "square_avg", "e_x": "acc_delta"},
    ),
    (ADAM | {"decoupled_weight_decay": False}, "adam", ADAM_STATE),
    (ADAM | {"decoupled_weight_decay": True}, "adamw", ADAM_STATE),
    (ADAM | {"amsgrad": True, "decoupled_weight_decay": False}, "amsgrad", ADAM_STATE | {"nu_max": "max_exp_avg_sq"}),
]


@pytest.mark.parametrize(("group", "name", "fields"), READ, ids=[f"{name}-{len(fields)}" for _, name, fields in READ])
def test_settings_and_state(group: Mapping[str, Any], name: str, fields: Mapping[str, str]) -> None:
    variables, written = from_state_dict(weights()), state_dict(group, kept(*(set(fields.values()) - {"step"})))
    optimizer = from_optimizer_state_dict(written, table_of_variables(variables))
    assert optimizer.names == (name,)
    config = configuration(optimizer)
    assert (config.optimizer.name, config.optimizer.learning_rate) == (name, 0.02)
    assert (config.optimizer.weight_decay, config.optimizer.clip_norm) == (group["weight_decay"], 10.0)
    for key in ("momentum", "alpha", "rho", "eps", "lr_decay", "centered"):
        if key in group and hasattr(config.optimizer, key):
            assert getattr(config.optimizer, key) == group[key]
    if "betas" in group:
        assert (config.optimizer.beta1, config.optimizer.beta2) == group["betas"]
    opt_state = optimizer.opt_state(config, variables["params"])
    fresh = TrainState.create(config, variables, 1).opt_state
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), opt_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), fresh
    )
    for field, key in fields.items():
        expected = jnp.array(5) if key == "step" else from_state_dict(variables_of(moments(key)))["params"]
        assert_same(optax.tree.get(opt_state, field), expected)


def variables_of(tensors: parity.Tensors) -> parity.Tensors:
    """A model's state dict with these parameters: the weights' own mapping says where they belong."""
    return weights() | tensors


def test_nadams_product_of_momenta() -> None:
    group = {key: value for key, value in ADAM.items() if key != "amsgrad"} | {"momentum_decay": 0.1}
    state = {number: own | {"mu_product": np.float32(0.3)} for number, own in kept("exp_avg", "exp_avg_sq").items()}
    state_with = taken_over(weights(), state_dict(group, state))
    assert state_with.config.optimizer.name == "nadam"
    assert state_with.config.optimizer.momentum_decay == 0.1
    assert_same(optax.tree.get(state_with.opt_state, "momentum_product"), jnp.array(np.float32(0.3)))


def test_every_optimizer_but_the_notes_own_is_read() -> None:
    notes = {name for name in OPTIMIZERS if name.startswith("notes_")}
    assert {name for _, name, _ in READ} | {"nadam"} == OPTIMIZERS.keys() - notes - {"muon"}


def test_a_rate_may_be_a_tensor() -> None:
    """As PyTorch's `capturable` has it."""
    optimizer = from_optimizer_state_dict(state_dict(SGD | {"lr": np.array(0.5)}), TABLE)
    assert configuration(optimizer).optimizer.learning_rate == 0.5


def test_an_optimizer_never_stepped_begins_anew() -> None:
    group = ADAM | {"decoupled_weight_decay": False}
    state = taken_over(parity.make_weights(32), state_dict(group))
    assert_same(state.opt_state, TrainState.create(state.config, state.variables, 1).opt_state)


def test_parameters_without_a_buffer_begin_anew() -> None:
    """As a frozen layer's do, or all of them in older versions of PyTorch."""
    state = kept("momentum_buffer")
    state[0] = {"momentum_buffer": None}
    del state[1]
    trace = optax.tree.get(taken_over(weights(), state_dict(SGD | {"momentum": 0.5}, state)).opt_state, "trace")
    assert not trace["block1"]["kernel"].any()
    assert not trace["block1"]["bias"].any()
    assert trace["block1"]["norm"]["scale"].all()


def in_groups(*parts: Sequence[str], named: bool = False, **settings: Sequence[Any]) -> dict[str, Any]:
    """AdamW's state dict of several groups, whose settings are given one for each; moments by the parameters' names."""
    values, groups, state = {key: moments(key) for key in ("exp_avg", "exp_avg_sq")}, [], {}
    for i, part in enumerate(parts):
        numbers = list(range(len(state), len(state) + len(part)))
        own = {key: setting[i] for key, setting in settings.items()}
        groups.append({**ADAM, "decoupled_weight_decay": True, **own, "params": numbers})
        if named:
            groups[-1]["param_names"] = [f"_orig_mod.{name}" for name in part]
        for number, name in zip(numbers, part, strict=True):
            state[number] = {"step": 5} | {key: values[key][name] for key in values}
    return {"state": state, "param_groups": groups}


@pytest.mark.parametrize(
    ("written", "weight_decay", "decay_biases_and_norms"),
    [
        (lambda: in_groups(PARAMETERS, weight_decay=[0]), 0, True),
        (lambda: in_groups(MATRICES, REST, weight_decay=[0.3, 0]), 0.3, False),
        (lambda: in_groups(REST, MATRICES, weight_decay=[0, 0.3]), 0.3, False),
        (lambda: in_groups(MATRICES, REST, weight_decay=[0.3, 0.3]), 0.3, True),
        (lambda: in_groups(PARAMETERS[::-1], weight_decay=[0.3], named=True), 0.3, True),
        (lambda: in_groups(REST[:5], MATRICES, REST[5:], weight_decay=[0, 0.3, 0], named=True), 0.3, False),
        (
            lambda: in_groups(
                *([name] for name in PARAMETERS),
                weight_decay=[0.3 * (name in MATRICES) for name in PARAMETERS],
                named=True,
            ),
            0.3,
            False,
        ),
    ],
)
def test_groups(written: Callable[[], dict[str, Any]], weight_decay: float, decay_biases_and_norms: bool) -> None:
    """Whatever they are, every parameter has its own moments."""
    state = taken_over(weights(), written())
    assert state.config.optimizer.weight_decay == weight_decay
    assert state.config.optimizer.decay_biases_and_norms == decay_biases_and_norms
    for field, key in (("mu", "exp_avg"), ("nu", "exp_avg_sq")):
        expected = from_state_dict(variables_of(moments(key)))["params"]
        assert_same(optax.tree.get(state.opt_state, field), expected)


# What is refused, in one line.


def changed(**group: Any) -> dict[str, Any]:
    """Adam's state dict with another setting."""
    return state_dict(ADAM | {"decoupled_weight_decay": False} | group, kept("exp_avg", "exp_avg_sq"))


def without(key: str) -> dict[str, Any]:
    group = {name: value for name, value in ADAM.items() if name != key}
    return state_dict(group, kept("exp_avg", "exp_avg_sq"))


def with_state(**parts: Any) -> dict[str, Any]:
    """Adam's state dict with another part."""
    return changed() | parts


def with_first(**own: Any) -> dict[str, Any]:
    """Adam's state dict, with something else kept for the first parameter."""
    written = changed()
    written["state"][0] |= own
    return written


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
ADAMAX = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "maximize": False}
REFUSED: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: changed(maximize=True), "has maximize = True, which adam lacks here"),
    (lambda: changed(maximize=True, decoupled_weight_decay=True), "has maximize = True, which adamw lacks here"),
    (
        lambda: changed(amsgrad=True, decoupled_weight_decay=True),
        "has decoupled_weight_decay = True, which amsgrad lacks here",
    ),
    (lambda: state_dict(SGD | {"momentum": 0.9, "dampening": 0.5}), "has dampening = 0.5, which momentum lacks here"),
    (
        lambda: state_dict({**ADAMAX, "momentum_decay": 4e-3, "decoupled_weight_decay": True}),
        "has decoupled_weight_decay = True, which nadam lacks here",
    ),
    (
        lambda: state_dict(ADAMAX),
        "is none of SGD, Adagrad, RMSprop, Adadelta, Adam, NAdam, AdamW: it has lr, betas, eps, weight_decay, maximize",
    ),
    *[
        (lambda group=group: changed(**group), message)
        for group, message in (
            ({"lr": "fast"}, "has learning_rate = fast, which is no float"),
            ({"lr": [0.1]}, "has learning_rate = (0.1,), which is no float"),
            ({"lr": np.ones(3)}, "has learning_rate = a ndarray, which is no float"),
            ({"lr": True}, "has learning_rate = True, which is no float"),
            ({"betas": (1, 2, 3)}, "has a group without beta1, beta2"),
            ({"lr": 2**2000}, "has learning_rate = an endless number, which is no float"),
            ({"betas": (0.9, ENDLESS)}, "has beta2 = a list, which is no float"),
            ({"betas": "ab"}, "has a group without beta1, beta2"),
            ({"amsgrad": "yes"}, "has amsgrad = yes, which is no bool"),
            ({"param_names": 3}, "is not what optimizer.state_dict() gives"),
        )
    ],
    *[
        (lambda parts=parts: with_state(**parts), "is not what optimizer.state_dict() gives")
        for parts in (
            {"param_groups": "text"},
            {"param_groups": [{**ADAM, "params": 26}]},
            {"param_groups": [{**ADAM, "params": [[0]] * 26}]},
            {"param_groups": {}},
            {"param_groups": [[]]},
            {"param_groups": None},
            {"state": []},
            {"state": {0: 3}},
            {"state": None},
        )
    ],
    (lambda: with_state(param_groups=[{**ADAM, "params": [0] * 26}]), "has parameters twice, or keeps something for"),
    (lambda: with_state(state={"0": {"step": 3.0}}), "has parameters twice, or keeps something for parameters of no"),
    (lambda: with_first(step="text"), "has for step of cnn.0.weight text, no number"),
    (lambda: with_first(step=np.ones(3)), "has for step of cnn.0.weight a ndarray, no number"),
    (lambda: with_first(step=math.nan), "has for step of cnn.0.weight nan, no number"),
    (lambda: with_first(exp_avg="text"), "cannot be read, as exp_avg of cnn.0.weight has type str"),
    (
        lambda: with_first(exp_avg=np.ones((64, 3, 3, 3), int)),
        "cannot be read, as exp_avg of cnn.0.weight has type int64",
    ),
    (
        lambda: with_first(exp_avg=np.full((64, 3, 3, 3), np.inf, np.float32)),
        "has in exp_avg NaN or infinity in 1 of 26 tensors: cnn.0.weight (1728 of 1728)",
    ),
    (lambda: without("eps"), "has a group without eps"),
    (lambda: without("lr"), "has a group without learning_rate"),
    (
        lambda: {"state": {}, "param_groups": [{**ADAM, "params": list(range(6))}]},
        "has groups of 6 parameters, not all 26 of the notes' Classifier, nor its 8 weight matrices and the 18 others, "
        "nor told by param_names",
    ),
    (lambda: {"state": {}, "param_groups": []}, "is not what optimizer.state_dict() gives"),
    (lambda: in_groups(PARAMETERS[:20], PARAMETERS[20:]), "has groups of 20, 6 parameters, not all 26"),
    (lambda: in_groups(PARAMETERS, PARAMETERS), "has groups of 26, 26 parameters, not all 26"),
    (lambda: in_groups([*PARAMETERS[:-1], "fc.6.bias"][:25], named=True), "has groups of 25 parameters, not all 26"),
    (lambda: in_groups(MATRICES, REST, lr=[0.1, 0.2]), "has groups that differ in learning_rate"),
    (lambda: in_groups(MATRICES, REST, betas=[(0.9, 0.99), (0.8, 0.9)]), "has groups that differ in beta1, beta2"),
    (
        lambda: in_groups(MATRICES, REST, amsgrad=[True, False], decoupled_weight_decay=[False] * 2),
        "has groups of different",
    ),
    (lambda: in_groups(MATRICES, REST, weight_decay=[0.1, 0.2]), "decays weights differently by more than whether"),
    (lambda: in_groups(MATRICES, REST, weight_decay=[0, 0.2]), "decays weights differently by more than whether"),
    (
        lambda: in_groups(MATRICES[:3], MATRICES[3:] + REST, weight_decay=[0.1, 0.2], named=True),
        "decays weights differently by more than whether",
    ),
    (lambda: with_first(step=4), "has step 4 for cnn.0.weight and 5 for cnn.0.bias, not one for all"),
    (
        lambda: with_first(exp_avg=np.zeros((64, 3, 3), np.float32)),
        "has exp_avg of shape [64, 3, 3] for cnn.0.weight of shape [64, 3, 3, 3], as if its parameters were not in the "
        "order of model.parameters()",
    ),
    (lambda: state_dict(ADAM, kept("exp_avg")), "has no exp_avg_sq for cnn.0.weight, which these settings need"),
    (
        lambda: state_dict(ADAM, {number: own for number, own in kept("exp_avg", "exp_avg_sq").items() if number > 19}),
        "never stepped cnn.0.weight, cnn.0.bias and 18 more, which train.freeze does not keep",
    ),
]


@pytest.mark.parametrize(("written", "message"), REFUSED)
def test_what_has_no_like_here_is_named(written: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        taken_over(weights(), written())
    assert str(caught.value).startswith(f"its optimizer {message}")
    assert str(caught.value).endswith(": take the weights alone with --weights_only")
    assert str(caught.value).isprintable()


def test_numbers_may_be_numpys_or_pytorchs() -> None:
    plain, ours = (
        taken_over(weights(), changed()),
        taken_over(weights(), changed(lr=np.array(0.02), eps=np.float64(1e-7))),
    )
    assert ours.config == plain.config
    assert_same(ours.opt_state, plain.opt_state)


def test_names_in_groups_may_be_the_files() -> None:
    """In another order, with a wrapper's prefix, of a network whose Dropout shifts the numbers."""
    shifted = {"fc.2": "fc.3", "fc.4": "fc.6"}

    def rename(name: str) -> str:
        module, _, tensor = name.rpartition(".")
        return f"{shifted.get(module, module)}.{tensor}"

    order = [*reversed(PARAMETERS)]
    values = {key: moments(key) for key in ("exp_avg", "exp_avg_sq")}
    state = {i: {"step": np.float32(5)} | {key: values[key][name] for key in values} for i, name in enumerate(order)}
    group = {**ADAM, "params": list(range(26)), "param_names": [f"module.{rename(name)}" for name in order]}
    table = table_of_variables(from_state_dict(weights()))
    file_names = {name: f"state_dict.model.{rename(name)}" for name in weights()}
    optimizer = from_optimizer_state_dict({"state": state, "param_groups": [group]}, table, file_names)
    assert all(optimizer.kept[name]["exp_avg"] is values["exp_avg"][name] for name in PARAMETERS)
