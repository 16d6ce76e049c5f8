"""`python -m jaxfood.convert`: weights from PyTorch into a run, and from a run to PyTorch."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxfood import cli
from jaxfood.config import sources
from jaxfood.config.schema import DeviceConfig
from jaxfood.errors import UserError

FORMATS = ".ckpt, .pt, .pth (these need PyTorch) or .safetensors"


def main(argv: Sequence[str] | None = None) -> None:
    """Choose the direction."""
    words = sys.argv[1:] if argv is None else list(argv)
    directions = {"from-torch": from_torch, "to-torch": to_torch}
    if words and words[0] in directions:
        directions[words[0]](words[1:])
        return
    parser = cli.Parser("convert", "Convert weights of the notes' Classifier; each direction has its own --help.")
    parser.add_argument("direction", choices=tuple(directions))
    parser.parse_args(words)


def from_torch(argv: Sequence[str]) -> None:
    """Make a run of PyTorch weights."""
    parser = cli.Parser("convert from-torch", "Make a run of PyTorch weights, for predict or for train --resume.")
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, help=f"a state dict: {FORMATS}")
    parser.add_argument("run", metavar="RUN", type=Path, help="the new run's directory")
    parser.add_argument("--config", help="the run's other settings: a TOML file or a recipe")
    arguments, flags = parser.parse_with_settings(argv)

    cli.set_up_jax(DeviceConfig())
    from jaxfood.model import torch_weights
    from jaxfood.training.run import begin_from, check_free

    check_free(arguments.run, overwrite=False)
    variables = torch_weights.from_torch(arguments.weights)
    image_size, num_classes = torch_weights.image_size_of(variables), torch_weights.num_classes_of(variables)
    shapes = {"data": {"image_size": image_size}, "model": {"num_classes": num_classes}}
    given = [] if arguments.config is None else [sources.read_toml(sources.find_config(arguments.config))]
    config = sources.merge(sources.Source(arguments.weights.name, shapes), *given, flags)
    if (config.data.image_size, config.model.num_classes) != (image_size, num_classes):
        raise UserError(
            f"{arguments.weights} is for {image_size} px and {num_classes} classes, not {config.data.image_size} px "
            f"and {config.model.num_classes}: leave out data.image_size and model.num_classes"
        )
    begin_from(arguments.run, config, variables)
    print(f"{arguments.run}: weights for {image_size} px and {num_classes} classes")


def to_torch(argv: Sequence[str]) -> None:
    """Write a run's best weights for PyTorch."""
    parser = cli.Parser("convert to-torch", "Write a run's best weights as a PyTorch state dict.")
    parser.add_argument("run", metavar="RUN", type=Path, help="work directory of a training")
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, help=f"the new file: {FORMATS}")
    arguments = parser.parse_args(argv)

    cli.set_up_jax(DeviceConfig())
    from jaxfood.model import torch_weights
    from jaxfood.training.run import load_run

    _, variables, _ = load_run(arguments.run)
    torch_weights.to_torch(variables, arguments.weights)
    print(f"{arguments.weights}: the best weights of {arguments.run}")


if __name__ == "__main__":
    cli.run(main)
