"""`python -m jaxfood.export`: a run as one file that other programs run without this package."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError, first_few
from jaxfood.exporting.files import CHOICES, check_writable

if TYPE_CHECKING:
    from jaxfood.exporting.run import Exported

DESCRIPTION = """Write the classifier of a run as one file: uint8 pictures [batch, H, W, 3], already resized, to the
probabilities of its classes. Scaling is part of it; how to resize, and the classes, stand in its metadata. The weights
alone, for PyTorch or as safetensors, are written by python -m jaxfood.convert to-torch."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export, say what was written."""
    parser = cli.Parser("export", DESCRIPTION)
    parser.usage = "%(prog)s [-h] [--which best|last|STEP] [--overwrite] RUN FILE"
    parser.add_argument("run", metavar="RUN", type=cli.path, help="work directory of a training")
    parser.add_argument("file", metavar="FILE", type=cli.path, help=f"the new file: {CHOICES}")
    parser.add_argument("more", nargs="*", default=(), help=argparse.SUPPRESS)  # refused in words
    parser.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    arguments = parser.parse_args(argv)
    if arguments.more:
        named = first_few([arguments.run, arguments.file, *arguments.more])
        raise UserError(f"an exported file holds one run, so give one RUN and one FILE, not {named}")
    check_writable(arguments.file, overwrite=arguments.overwrite)

    cli.set_up_jax(DeviceConfig())
    from jaxfood.exporting.run import export_run

    exported = export_run(arguments.run, arguments.file, arguments.which)
    cli.say(f"{arguments.file}: {_in_words(exported, arguments.which)} of {arguments.run}")
    for note in exported.notes:
        cli.say(f"{arguments.file}: {note}")


def _in_words(exported: "Exported", which: str) -> str:
    trained = exported.trained
    size, count = trained.image_size, len(trained.classes)
    step = f"step {trained.step}" if which == str(trained.step) else f"{which}, step {trained.step}"
    return (
        f"{exported.format}, {exported.size / 1e6:.1f} MB: uint8 [batch, {size}, {size}, 3] to probabilities "
        f"[batch, {count}], by {trained.config.model.name} ({step})"
    )


if __name__ == "__main__":
    cli.run(main)
