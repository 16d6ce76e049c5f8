"""`python -m jaxfood.convert`: a run of PyTorch's weights and optimizer, and PyTorch's of a run."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxfood import cli
from jaxfood.config import loading
from jaxfood.config.sections import Config, DeviceConfig
from jaxfood.errors import UserError
from jaxfood.places import check_writable_file, check_writable_folder

if TYPE_CHECKING:
    from jaxfood.pytorch.optimizer_state import TorchOptimizer

WRITTEN = ".ckpt, .pt, .pth (these need PyTorch) or .safetensors"
READ = ".ckpt, .pt, .pth, .pth.tar, .bin (these need PyTorch) or .safetensors"

DESCRIPTION = "Convert weights of the notes' Classifier, resnet18 and resnet34; each direction has its own --help."


def main(argv: Sequence[str] | None = None) -> None:
    """Choose the direction."""
    words = sys.argv[1:] if argv is None else list(argv)
    directions = {"from-torch": from_torch, "to-torch": to_torch}
    if words and words[0] in directions:
        directions[words[0]](words[1:])
        return
    parser = cli.Parser("convert", DESCRIPTION)
    parser.add_argument("direction", choices=tuple(directions))
    parser.parse_args(words)


def from_torch(argv: Sequence[str]) -> None:
    """Make a run of PyTorch's weights, and of the optimizer if it is there."""
    parser = cli.Parser(
        "convert from-torch",
        "Make a run of PyTorch weights, for predict or for train --resume. Of a training checkpoint with `model` and "
        "`optimizer` state dicts the run takes the optimizer's settings and goes on with its moments. The names "
        "in FILE tell the network: the notes' Classifier, or torchvision's or timm's resnet18 or resnet34.",
    )
    parser.add_argument("weights", metavar="FILE", type=cli.path, help=f"state dict or training checkpoint: {READ}")
    parser.add_argument("run", metavar="RUN", type=cli.path, help="the new run's directory")
    parser.add_argument("--config", help="the run's other settings: a TOML file or a recipe")
    parser.add_argument("--part", default="", help="what the weights' names begin with, where several fit: model_ema")
    parser.add_argument("--weights_only", action="store_true", help="begin with a fresh optimizer, of any settings")
    arguments, flags = parser.parse_with_settings(argv)
    check_writable_folder(arguments.run, "RUN")

    cli.set_up_jax(DeviceConfig())
    from jaxfood.pytorch import files, training_checkpoint
    from jaxfood.pytorch.weights import normalize_note
    from jaxfood.runs.directory import check_free
    from jaxfood.training.saved import begin_from

    check_free(arguments.run, overwrite=False)
    variables, optimizer, notes = training_checkpoint.read(arguments.weights, arguments.part, arguments.weights_only)
    for note in notes:
        cli.say(f"{arguments.weights}: {note}")
    config = _config(arguments, flags, variables, optimizer)
    with files.named(arguments.weights):
        opt_state = optimizer.opt_state(config, variables["params"]) if optimizer is not None else None
    begin_from(arguments.run, config, variables, opt_state)
    if note := normalize_note(config):
        cli.say(f"{arguments.weights}: {note}")
    of = "" if config.model.name == "classifier" else f" of {config.model.name}"
    size = f"weights{of} for {config.data.image_size} px and {config.model.num_classes} classes"
    cli.say(f"{arguments.run}: {size}; {_of_optimizer(config, optimizer)}")


def _config(
    arguments: argparse.Namespace, flags: loading.Source, variables: Any, optimizer: "TorchOptimizer | None"
) -> Config:
    """The run's: network and sizes by the weights, then the file of --config, the checkpoint's optimizer, the flags."""
    from jaxfood.pytorch.names import table_of_variables

    table = table_of_variables(variables)
    told: dict[str, dict[str, Any]] = {"model": dict(table.model), "data": {}}
    if table.image_size is not None:
        told["data"]["image_size"] = table.image_size
    merged = [loading.Source(arguments.weights.name, told)]
    if arguments.config is not None:
        merged.append(loading.read_toml(loading.find_config(arguments.config)))
    if optimizer is not None:
        name = flags.values.get("optimizer", {}).get("name", optimizer.names[0])
        if name not in optimizer.names:
            raise UserError(
                f"{arguments.weights} holds the state of {' or '.join(optimizer.names)}, not of {name}: "
                "leave out optimizer.name, or take the weights alone with --weights_only"
            )
        merged.append(loading.Source(arguments.weights.name, {"optimizer": {"name": name, **optimizer.settings}}))
    config = loading.merge(*merged, flags)
    wanted = dict(loading.all_settings(config))
    own = {f"{section}.{key}": value for section, values in told.items() for key, value in values.items()}
    others = [name for name, value in own.items() if wanted.get(name, value) != value]
    if others:
        weights, settings = (", ".join(f"{name} = {values[name]}" for name in others) for values in (own, wanted))
        raise UserError(
            f"{arguments.weights} is of {table.network} and for {weights}, not {settings}: "
            f"leave out {' and '.join(others)}"
        )
    return config


def _of_optimizer(config: Config, optimizer: "TorchOptimizer | None") -> str:
    """What the run has of an optimizer, in words."""
    name = config.optimizer.name
    if optimizer is None:
        return f"a fresh {name}"
    values = ", ".join(f"{key} {getattr(config.optimizer, key)}" for key in optimizer.settings)
    text = f"{name} goes on: {values}; clip_norm is {config.optimizer.clip_norm} (PyTorch's checkpoint has none)"
    other = optimizer.names[-1]
    if other != name and config.optimizer.weight_decay:
        text += f"; it may have been {other}, which older PyTorch does not tell: --optimizer.name {other}"
    return text


def to_torch(argv: Sequence[str]) -> None:
    """Write a run's weights, and its optimizer if asked for, for PyTorch."""
    parser = cli.Parser("convert to-torch", "Write a run's weights as a PyTorch state dict, or a training checkpoint.")
    parser.add_argument("run", metavar="RUN", type=cli.path, help="work directory of a training")
    parser.add_argument("weights", metavar="FILE", type=cli.path, help=f"the new file: {WRITTEN}")
    parser.add_argument(
        "--which", metavar="best|last|STEP", help="which checkpoint (default: best; with_optimizer: last)"
    )
    parser.add_argument(
        "--with_optimizer",
        action="store_true",
        help="write model and optimizer state dicts, epoch and step, for PyTorch to go on from (.ckpt, .pt, .pth)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    arguments = parser.parse_args(argv)
    which = arguments.which or ("last" if arguments.with_optimizer else "best")
    check_writable_file(arguments.weights, "FILE")

    cli.set_up_jax(DeviceConfig())
    from jaxfood.pytorch import files, training_checkpoint, weights
    from jaxfood.pytorch.names import known_networks
    from jaxfood.pytorch.tables import MAKERS
    from jaxfood.runs.directory import load_run, read_config
    from jaxfood.training.saved import load_state

    files.check_writable(arguments.weights, arguments.overwrite, arguments.with_optimizer)
    if (name := read_config(arguments.run).model.name) not in MAKERS:
        raise UserError(f"{arguments.run} is of {name}, which PyTorch has no module for; it has {known_networks()}")
    if arguments.with_optimizer:
        state, epoch = load_state(arguments.run, which)
        progress = {"step": int(state.step), "total_steps": state.total_steps, "epoch": epoch}
        training_checkpoint.write(arguments.weights, state.variables, state.opt_state, state.config, **progress)
        what = "weights and optimizer"
    else:
        _, variables, _ = load_run(arguments.run, which)
        weights.to_torch(variables, arguments.weights)
        what = "weights"
    cli.say(f"{arguments.weights}: {what} of {arguments.run} ({which})")


if __name__ == "__main__":
    cli.run(main)
