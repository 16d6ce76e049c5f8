"""`python -m jaxfood.landscape`: is a run at a minimum or a saddle, and how is it left."""

import argparse
from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config import loading
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError
from jaxfood.files import is_remote, to_local_path
from jaxfood.places import check_writable_folder

DESCRIPTION = """Say where a trained run stands: whether the gradient has vanished, whether it is a minimum, a maximum
or a saddle, how sure that is, and how to leave it. Writes landscape.md, landscape.json and pictures."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, and survey one checkpoint or all."""
    arguments, settings = _parse(argv)
    cli.set_up_jax(DeviceConfig())
    from jaxfood.run_landscape.connection import connect_runs
    from jaxfood.run_landscape.survey import survey_run
    from jaxfood.runs.directory import read_config

    config = read_config(arguments.run, *settings)
    if arguments.to is not None:
        connect_runs(
            arguments.run,
            arguments.to,
            config,
            arguments.images,
            which=arguments.which,
            out=arguments.out or arguments.run / "landscape",
            cache_dir=arguments.cache_dir,
        )
        return
    survey_run(
        arguments.run,
        config,
        arguments.images,
        more=arguments.more,
        which=None if arguments.path else arguments.which,
        out=arguments.out or arguments.run / "landscape",
        new_run=arguments.escape,
        cache_dir=arguments.cache_dir,
    )


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, tuple[loading.Source, ...]]:
    parser = cli.Parser("landscape", DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=cli.path, help="work directory of a training")
    parser.add_argument("--images", metavar="DIR", required=True, help="labelled pictures that the loss is taken on")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: RUN/landscape)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    where.add_argument("--path", action="store_true", help="every checkpoint that the run kept, without surroundings")
    parser.add_argument("--to", metavar="RUN2", type=cli.path, help="the line and a curve from RUN to this run, only")
    parser.add_argument(
        "--more", action="store_true", help="also what takes many more products: layers, optimizer, Fisher"
    )
    parser.add_argument("--escape", metavar="NEW_RUN", type=cli.path, help="leave along the most negative eigenvector")
    parser.add_argument("--cache_dir", metavar="DIR", default="", help="where decoded pictures are kept")
    for name in ("samples", "seed"):
        parser.add_argument(f"--{name}", metavar="N", help=f"short for --landscape.{name}")
    arguments, flags = parser.parse_with_settings(argv, sections=("landscape",))
    if arguments.path and arguments.escape is not None:
        raise UserError("--escape leaves one checkpoint: name it with --which in place of --path")
    for flag in ("path", "more", "escape"):
        if arguments.to is not None and getattr(arguments, flag):
            raise UserError(f"--to measures the way between two runs alone: leave out --{flag}, or --to")
    if arguments.path and arguments.more:
        raise UserError("--more is measured of one checkpoint: name it with --which in place of --path")
    if is_remote(arguments.run) and arguments.out is None:
        raise UserError(f"{arguments.run} is in a bucket, and pages are written locally: name a folder with --out")
    out = to_local_path(arguments.out or arguments.run / "landscape", "--out")
    check_writable_folder(out, "--out")
    if arguments.escape is not None:
        check_writable_folder(arguments.escape, "--escape")
    short = {name: text for name in ("samples", "seed") if (text := getattr(arguments, name)) is not None}
    return arguments, (flags, loading.read_texts((f"landscape.{name}", text) for name, text in short.items()))


if __name__ == "__main__":
    cli.run(main)
