"""Going on from a PyTorch training checkpoint, and back."""

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity
import pytest
from conftest import NUM_CLASSES
from test_torch_optimizer import ADAM, MATRICES, PARAMETERS, REST, assert_same, state_dict, taken_over, weights

from jaxfood import convert, train
from jaxfood.config import OPTIMIZERS, Config, load_config
from jaxfood.config.loss import CrossEntropy
from jaxfood.data.batches import epoch_order
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.networks import init_variables
from jaxfood.optim.losses import make_loss
from jaxfood.pytorch.training_checkpoint import to_checkpoint
from jaxfood.pytorch.weights import from_state_dict, from_torch
from jaxfood.runs.directory import load_run, read_config
from jaxfood.training.saved import begin_from
from jaxfood.training.state import TrainState
from jaxfood.training.step import loss_fn

STEPS = 2  # on each side of a conversion
Tree = Any

# PyTorch's class, what it is made with, our name for it. The rates are low enough for steady losses.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "sgd": ("SGD", {"lr": 0.01, "weight_decay": 0.1}, "sgd"),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.1}, "momentum"),
    "nesterov": ("SGD", {"lr": 0.01, "momentum": 0.8, "nesterov": True}, "nesterov"),
    "adagrad": ("Adagrad", {"lr": 1e-3, "lr_decay": 0.2, "initial_accumulator_value": 0.1}, "adagrad"),
    "rmsprop": ("RMSprop", {"lr": 1e-4, "alpha": 0.9}, "rmsprop"),
    "rmsprop, all": (
        "RMSprop",
        {"lr": 1e-4, "alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
        "rmsprop",
    ),
    "adadelta": ("Adadelta", {"lr": 0.1, "rho": 0.8, "weight_decay": 0.1}, "adadelta"),
    "adam": ("Adam", {"lr": 3e-4, "weight_decay": 1e-5}, "adam"),
    "amsgrad": ("Adam", {"lr": 3e-4, "betas": (0.8, 0.7), "weight_decay": 0.1, "amsgrad": True}, "amsgrad"),
    "nadam": ("NAdam", {"lr": 3e-4, "momentum_decay": 0.1, "weight_decay": 0.1}, "nadam"),
    "adamw": ("AdamW", {"lr": 3e-4, "betas": (0.8, 0.99), "weight_decay": 0.5}, "adamw"),
}


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="compares with PyTorch")


# PyTorch's losses, in both directions.


@cache
def pictures(dtype: str) -> parity.Batch:
    return parity.make_batch("drawn", 16, 32, dtype)


def drawn(step: int, dtype: str) -> parity.Batch:
    """The batch of a step: four pictures."""
    chosen = np.random.default_rng(step).permutation(16)[:4]
    return {name: array[chosen] for name, array in pictures(dtype).items()}


@partial(jax.jit, static_argnums=0)
def gradient(model: FoodClassifier, params: Tree, batch_stats: Tree, batch: Mapping[str, Any]) -> tuple[Any, Tree]:
    """Compiled once for all optimizers."""
    loss = partial(loss_fn, model, make_loss(CrossEntropy(), model.num_classes))
    return jax.value_and_grad(loss, has_aux=True)(params, batch_stats, batch)


def our_losses(state: TrainState, steps: Sequence[int], dtype: str) -> tuple[TrainState, list[float]]:
    """The losses of some steps, and the state after them."""
    losses, update = [], jax.jit(state.tx.update)
    for step in steps:
        (loss, (batch_stats, _)), grads = gradient(state.model, state.params, state.batch_stats, drawn(step, dtype))
        updates, opt_state = update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        losses.append(float(loss))
    return state, losses


def torch_losses(model: Any, optimizer: Any, fed: Sequence[parity.Batch]) -> list[float]:
    """The losses of these updates of the notes."""
    import torch
    import torch_reference

    losses = []
    for batch in fed:
        images, labels = torch_reference.to_torch_images(batch["image"]), torch.tensor(batch["label"]).long()
        losses.append(float(torch_reference.train_step(model, optimizer, images, labels)[0]))
    return losses


def begun_in_torch(case: str, dtype: str = "float32", num_classes: int = 11) -> tuple[Any, Any]:
    """A module and the optimizer of a case, before the first step."""
    import torch
    import torch_reference

    cls, arguments, _ = CASES[case]
    model = torch_reference.make_classifier(parity.make_weights(32, num_classes, dtype))
    return model, getattr(torch.optim, cls)(model.parameters(), **arguments)


def arrays(model: Any) -> parity.Tensors:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def checkpoint_of(state: TrainState) -> dict[str, Any]:
    """PyTorch's, of a state in the first epoch."""
    progress = {"step": int(state.step), "total_steps": state.total_steps, "epoch": 0}
    return to_checkpoint(state.variables, state.opt_state, state.config, **progress)


@pytest.fixture
def precision(request: pytest.FixtureRequest, torch: Any) -> Iterator[str]:
    """On both sides. PyTorch's NAdam keeps its product of momenta in the default type."""
    torch.set_default_dtype(getattr(torch, request.param))
    with jax.enable_x64(request.param == "float64"):
        yield request.param
    torch.set_default_dtype(torch.float32)


# In float64 they agree to 1e-15. In float32 the first loss has the rounding of one forward pass alone; the next were
# 1.4e-7 apart at most, but rounding may move a gradient to another pixel of a pooling window, and then they leave.
TOLERANCES = {"float64": (1e-10, 1e-10), "float32": (1e-5, 1e-3)}
QUICK = ("nesterov", "adam")  # in float64; what else is kept, the tests below see
RUNS = [
    pytest.param(case, precision, marks=[] if precision == "float64" and case in QUICK else pytest.mark.slow)
    for precision in TOLERANCES
    for case in CASES
]


@pytest.mark.torch
@pytest.mark.parametrize(("case", "precision"), RUNS, indirect=["precision"])
def test_losses_go_on_there_and_back(case: str, precision: str) -> None:
    """PyTorch alone, against PyTorch, then jaxfood, then PyTorch again."""
    first, second, third = (range(start, start + STEPS) for start in (0, STEPS, 2 * STEPS))
    fed = [drawn(step, precision) for step in (*first, *second, *third)]
    model, optimizer = begun_in_torch(case, precision)
    torch_losses(model, optimizer, fed[:STEPS])
    state = taken_over(arrays(model), copy.deepcopy(optimizer.state_dict()))
    theirs = torch_losses(model, optimizer, fed[STEPS:])

    assert state.config.optimizer.name == CASES[case][2]
    state, ours = our_losses(state, second, precision)
    back = checkpoint_of(state)
    model, optimizer = begun_in_torch(case, precision)
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    ours += torch_losses(model, optimizer, fed[2 * STEPS :])

    at_first, later = TOLERANCES[precision]
    assert ours[0] == pytest.approx(theirs[0], rel=at_first, abs=0)
    assert ours == pytest.approx(theirs, rel=later, abs=0)


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_there_and_back_gives_the_same_bits(case: str, torch: Any) -> None:
    """Of PyTorch's state dict, and of ours."""
    model, optimizer = begun_in_torch(case)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for _ in range(3):
        optimizer.step()
    state = taken_over(arrays(model), optimizer.state_dict()).replace(step=jnp.array(3))
    back = checkpoint_of(state)
    assert back["model"].keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back["model"][name], tensor + 3 * name.endswith("num_batches_tracked")), name
    theirs = optimizer.state_dict()
    assert back["optimizer"]["param_groups"] == theirs["param_groups"]
    for number, kept in enumerate(back["optimizer"]["state"].values()):
        expected = {key: value for key, value in theirs["state"].get(number, {}).items() if value is not None}
        assert kept.keys() == expected.keys()
        for key, value in expected.items():
            assert kept[key].dtype == value.dtype
            assert torch.equal(kept[key], value), (number, key)
    again = taken_over({name: tensor.numpy() for name, tensor in back["model"].items()}, back["optimizer"])
    assert again.config == state.config
    assert_same(again.opt_state, state.opt_state)


@pytest.mark.torch
def test_losses_go_on_without_decay_of_biases_and_norms(torch: Any) -> None:
    """Two groups, there and back; the pictures are few, so in float32."""
    import torch_reference

    def begin() -> tuple[Any, Any]:
        model = torch_reference.make_classifier(parity.make_weights(32))
        named = dict(model.named_parameters())
        matrices, rest = ([named[name] for name in part] for part in (MATRICES, REST))
        groups = [{"params": matrices}, {"params": rest, "weight_decay": 0}]
        return model, torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.5)

    model, optimizer = begin()
    fed = [drawn(step, "float32") for step in range(4)]
    torch_losses(model, optimizer, fed[:1])
    state = taken_over(arrays(model), copy.deepcopy(optimizer.state_dict()))
    assert not state.config.optimizer.decay_biases_and_norms
    theirs = torch_losses(model, optimizer, fed[1:])
    state, ours = our_losses(state, [1, 2], "float32")
    back = checkpoint_of(state)
    model, optimizer = begin()
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0]
    assert ours + torch_losses(model, optimizer, fed[3:]) == pytest.approx(theirs, rel=1e-3, abs=0)


# What a run's state becomes.


@pytest.fixture
def state_of() -> Callable[..., TrainState]:
    """Makes fresh states of settings."""

    def make(*overrides: str, total_steps: int = 10) -> TrainState:
        config = load_config(None, ("model.num_classes=3", *overrides))
        return TrainState.create(config, from_state_dict(weights()), total_steps)

    return make


@pytest.mark.torch
def test_the_rate_is_the_next_steps(torch: Any, state_of: Callable[..., TrainState]) -> None:
    def rate(state: TrainState) -> float:
        return checkpoint_of(state)["optimizer"]["param_groups"][0]["lr"]

    assert rate(state_of()) == 3e-4  # not float32's neighbour of it
    falling = state_of("schedule.name=step", "schedule.step_size=3", "schedule.gamma=0.5")
    assert [rate(falling.replace(step=jnp.array(step))) for step in (0, 2, 3, 6)] == [3e-4, 3e-4, 1.5e-4, 0.75e-4]
    plateau = state_of("schedule.name=plateau")
    reduced = plateau.replace(opt_state=optax.tree.set(plateau.opt_state, factor=jnp.array(0.25)))
    assert rate(reduced) == 0.75e-4


@pytest.mark.torch
@pytest.mark.parametrize(
    ("weight_decay", "decay_biases_and_norms", "sizes"),
    [(0.1, "true", [26]), (0.0, "false", [26]), (0.1, "false", [8, 18])],
)
def test_two_groups_only_where_they_differ(
    weight_decay: float, decay_biases_and_norms: str, sizes: list[int], torch: Any, state_of: Callable[..., TrainState]
) -> None:
    overrides = f"optimizer.weight_decay={weight_decay}", f"optimizer.decay_biases_and_norms={decay_biases_and_norms}"
    groups = checkpoint_of(state_of(*overrides))["optimizer"]["param_groups"]
    assert [len(group["params"]) for group in groups] == sizes
    assert [group["weight_decay"] for group in groups] == [weight_decay, 0.0][: len(sizes)]


@pytest.mark.torch
def test_every_parameter_has_a_step_of_its_own(torch: Any, state_of: Callable[..., TrainState]) -> None:
    """PyTorch counts in place."""
    state = checkpoint_of(state_of())["optimizer"]["state"]
    state[0]["step"] += 1
    assert [float(own["step"]) for own in state.values()] == [1] + [0] * (len(PARAMETERS) - 1)


@pytest.mark.parametrize("name", [*(name for name in OPTIMIZERS if name.startswith("notes_")), "muon"])
def test_what_pytorch_has_not_is_refused(name: str, state_of: Callable[..., TrainState]) -> None:
    with pytest.raises(UserError, match=rf"^{name} has no like in torch\.optim: .*without --with_optimizer$"):
        checkpoint_of(state_of(f"optimizer.name={name}"))


def test_without_pytorch_one_line_says_so(state_of: Callable[..., TrainState], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    with pytest.raises(UserError, match=r"^this format needs PyTorch: pip install torch"):
        checkpoint_of(state_of())


# The commands.


def save(path: Path, model: Any, optimizer: Any, **more: Any) -> Path:
    import torch

    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()} | more, path)
    return path


def flags(config: Config) -> list[str]:
    """The settings of `tiny_config` that are no checkpoint's."""
    return [
        *("--data.root", config.data.root, "--train.batch_size", str(config.train.batch_size)),
        *("--train.epochs", str(config.train.epochs), "--device.count", "1", "--logging.progress", "false"),
    ]


def epochs_in_torch(model: Any, optimizer: Any, config: Config) -> list[float]:
    """The training loss of each epoch of a run in PyTorch: the mean over its pictures."""
    split = load_splits(config.data, NUM_CLASSES, seed=config.train.seed, progress=False).train
    means = []
    for epoch in range(config.train.epochs):
        order = epoch_order(config.train.seed, epoch, len(split))
        chosen = [order[i : i + config.train.batch_size] for i in range(0, len(order), config.train.batch_size)]
        images = np.asarray(split.images).astype(np.float32) / 255
        fed = [{"image": images[part], "label": split.labels[part]} for part in chosen]
        losses = torch_losses(model, optimizer, fed)
        means.append(float(np.average(losses, weights=[len(part) for part in chosen])))
    return means


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.torch
def test_a_run_goes_on_from_pytorch_and_becomes_a_checkpoint(
    torch: Any, tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps in PyTorch; two epochs of three steps on both sides, fed alike; and one more from the run's file."""
    model, optimizer = begun_in_torch("amsgrad", num_classes=NUM_CLASSES)
    few = [drawn(step, "float32") for step in range(3)]
    few = [batch | {"label": batch["label"] % NUM_CLASSES} for batch in few]
    torch_losses(model, optimizer, few[:2])
    path = save(tmp_path / "last.pt", model, optimizer, epoch=4)
    run, back = tmp_path / "run", tmp_path / "back.pth"

    convert.main(["from-torch", str(path), str(run), *flags(tiny_config)])
    said = capsys.readouterr().out
    assert f"{run}: weights for 32 px and 3 classes; amsgrad goes on: learning_rate 0.0003, weight_decay 0.1" in said
    assert len(said.splitlines()) == 1
    train.main(["--workdir", str(run), "--resume"])
    theirs = epochs_in_torch(model, optimizer, tiny_config)
    assert [line["train_loss"] for line in metrics(run)] == pytest.approx(theirs, rel=1e-3, abs=0)
    assert [line["step"] for line in metrics(run)] == [3, 6]

    convert.main(["to-torch", str(run), str(back), "--with_optimizer"])
    assert f"{back}: weights and optimizer of {run} (last)" in capsys.readouterr().out
    checkpoint = torch.load(back, weights_only=True)
    assert (checkpoint["epoch"], checkpoint["step"]) == (2, 6)
    expected = torch_losses(model, optimizer, few[2:])
    model, optimizer = begun_in_torch("amsgrad", num_classes=NUM_CLASSES)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    assert optimizer.state_dict()["state"][7]["step"] == 2 + 6
    assert model.state_dict()["cnn.1.num_batches_tracked"] == 2 + 6
    assert torch_losses(model, optimizer, few[2:]) == pytest.approx(expected, rel=1e-3, abs=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Adam with weight decay, never stepped, under the names of PyTorch's tutorial."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    model, optimizer = begun_in_torch("adam", num_classes=NUM_CLASSES)
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, path)
    return path


@pytest.mark.torch
def test_the_checkpoints_settings_stand_between_the_file_and_the_flags(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[optimizer]\nname = "sgd"\nlearning_rate = 0.5\nclip_norm = 3\n[train]\nepochs = 2\n')
    convert.main(
        [
            "from-torch",
            str(checkpoint),
            str(tmp_path / "run"),
            "--config",
            str(file),
            "--optimizer.weight_decay",
            "0.25",
        ]
    )
    config = read_config(tmp_path / "run")
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.beta1) == ("adam", 3e-4, 0.9)
    assert (config.optimizer.weight_decay, config.optimizer.clip_norm, config.train.epochs) == (0.25, 3, 2)


@pytest.mark.torch
def test_weights_only_takes_any_optimizer(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = ["--optimizer.name", "sgd", "--optimizer.learning_rate", "0.5"]
    with pytest.raises(UserError, match=r"last\.ckpt holds the state of adam, not of sgd: .* with --weights_only$"):
        convert.main(["from-torch", str(checkpoint), str(tmp_path / "run"), *choice])
    assert not (tmp_path / "run").exists()
    convert.main(["from-torch", str(checkpoint), str(tmp_path / "run"), *choice, "--weights_only"])
    assert "a fresh sgd" in capsys.readouterr().out
    assert read_config(tmp_path / "run").optimizer.learning_rate == 0.5


@pytest.mark.torch
@pytest.mark.parametrize("weight_decay", [0.1, 0])
def test_older_checkpoints_may_be_of_adam_or_adamw(
    weight_decay: float, torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name: torch.tensor(tensor) for name, tensor in weights().items()}
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": tensors, "optimizer": state_dict(ADAM | {"weight_decay": weight_decay})}, path)
    convert.main(["from-torch", str(path), str(tmp_path / "adam")])
    hint = "it may have been adamw, which older PyTorch does not tell: --optimizer.name adamw"
    assert (hint in capsys.readouterr().out) == bool(weight_decay)
    convert.main(["from-torch", str(path), str(tmp_path / "adamw"), "--optimizer.name", "adamw"])
    assert "may have been" not in capsys.readouterr().out
    for name in ("adam", "adamw"):
        config = read_config(tmp_path / name)
        assert (config.optimizer.name, config.optimizer.weight_decay) == (name, weight_decay)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "adam"}, "is not what optimizer.state_dict() gives"),
        ("adam", "is not what optimizer.state_dict() gives"),
        (state_dict(ADAM | {"maximize": True}), "has maximize = True, which adam lacks here"),
        (
            state_dict(ADAM, {3: {"step": 4.0}}),
            "never stepped cnn.0.weight, cnn.0.bias and 23 more, which train.freeze does not keep",
        ),
    ],
)
def test_a_refusal_names_the_file(optimizer: Any, message: str, torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    tensors = {name: torch.tensor(tensor) for name, tensor in weights().items()}
    torch.save({"model": tensors, "optimizer": optimizer}, path)
    with pytest.raises(UserError) as caught:
        convert.main(["from-torch", str(path), str(tmp_path / "run")])
    assert str(caught.value) == f"{path}: its optimizer {message}: take the weights alone with --weights_only"
    assert not (tmp_path / "run").exists()
    convert.main(["from-torch", str(path), str(tmp_path / "run"), "--weights_only"])


@pytest.mark.torch
def test_lightnings_checkpoint_goes_on(torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its optimizers are a list; what had to be chosen is said."""
    model, optimizer = begun_in_torch("adam", num_classes=NUM_CLASSES)
    trained = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    average = {f"ema_model.module.{name}": tensor + 1 for name, tensor in model.state_dict().items()}
    content = {"state_dict": average | trained, "optimizer_states": [optimizer.state_dict()], "epoch": 3}
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    convert.main(["from-torch", str(path), str(tmp_path / "run")])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        f"{path}: the weights are those of state_dict.model; the part state_dict.ema_model.module would fit too: "
        "--part takes it"
    )
    assert "adam goes on: learning_rate 0.0003, weight_decay 1e-05" in said[1]
    np.testing.assert_array_equal(load_run(tmp_path / "run")[1]["params"]["head"]["bias"], trained["model.fc.4.bias"])
    convert.main(["from-torch", str(path), str(tmp_path / "other"), "--part", "state_dict.ema_model", "--weights_only"])
    bias = load_run(tmp_path / "other")[1]["params"]["head"]["bias"]
    np.testing.assert_array_equal(bias, average["ema_model.module.fc.4.bias"])
    torch.save(content | {"optimizer_states": [optimizer.state_dict()] * 2}, path)
    with pytest.raises(
        UserError, match=r"last\.ckpt: its optimizer is one of 2: take the weights alone with --weights"
    ):
        convert.main(["from-torch", str(path), str(tmp_path / "two")])


@pytest.fixture(scope="module")
def run(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of fresh weights."""
    config = load_config(None, (f"data.root={tiny_food}", "data.image_size=32", f"model.num_classes={NUM_CLASSES}"))
    workdir = tmp_path_factory.mktemp("runs") / "run"
    begin_from(workdir, config, init_variables(config))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last.safetensors", "last.h5"])
def test_an_optimizer_needs_pytorchs_formats(name: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}: holds no optimizer: give one of \.ckpt, \.pt, \.pth, or leave out"):
        convert.main(["to-torch", str(run), str(tmp_path / name), "--with_optimizer"])
    assert not list(tmp_path.iterdir())


def test_which_checkpoint_is_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "first.safetensors"
    convert.main(["to-torch", str(run), str(path), "--which", "0"])
    assert f"{path}: weights of {run} (0)" in capsys.readouterr().out
    assert_same(from_torch(path), load_run(run)[1])
    with pytest.raises(UserError, match="has no checkpoint 7; there are: best, last, 0"):
        convert.main(["to-torch", str(run), str(path), "--which", "7", "--overwrite"])


@pytest.mark.parametrize("options", [[], ["--with_optimizer"]])
def test_a_file_is_replaced_only_if_asked_for(options: list[str], run: Path, tmp_path: Path) -> None:
    """And that is said before the work: here there is no run to read."""
    path = tmp_path / "best.pt"
    path.write_text("earlier")
    command = ["to-torch", str(tmp_path / "absent"), str(path), *options]
    with pytest.raises(
        UserError, match=r"^\S+best\.pt: is there already: give --overwrite to replace it, or another name$"
    ):
        convert.main(command)
    assert path.read_text() == "earlier"
    with pytest.raises(UserError, match="absent"):
        convert.main([*command, "--overwrite"])
    for bad, reason in {"best.h5": "best.h5: ", "no/best.pt": "there is no folder .*; make it first"}.items():
        with pytest.raises(UserError, match=reason):
            convert.main(["to-torch", str(tmp_path / "absent"), str(tmp_path / bad), *options])


def test_replaces_if_asked_for(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_text("earlier")
    convert.main(["to-torch", str(run), str(path), "--overwrite"])
    assert_same(from_torch(path), load_run(run)[1])
