"""`python -m jaxfood.train`: train a classifier on a folder of pictures."""

from collections.abc import Sequence
from pathlib import Path

from jaxfood import cli, processes
from jaxfood.config import sources
from jaxfood.errors import UserError

DESCRIPTION = """Train an image classifier on a folder of pictures. Without --config and without any --data setting the
demo recipe is taken: drawn pictures, no download. Settings not given keep the recipe's values."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    parser = cli.Parser("train", DESCRIPTION)
    parser.add_argument("--config", help=f"a TOML file, or a recipe: {', '.join(sources.recipes())}")
    parser.add_argument("--workdir", type=cli.path, help="the run's directory (default: the next free runs/NAME-N)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    how.add_argument("--overwrite", action="store_true", help="replace the run in --workdir")
    arguments, flags = parser.parse_with_settings(argv)
    recipe, workdir = arguments.config, arguments.workdir

    earlier = []
    if arguments.resume:
        if workdir is None:
            raise UserError("--resume needs --workdir RUN: which run goes on?")
        from jaxfood.runs.directory import CONFIG, read_config

        read_config(workdir)  # refuses what is no run
        earlier = [sources.read_toml(workdir / CONFIG)]
    elif recipe is None and "data" not in flags.values:
        recipe = "demo"
        print("no --config and no --data setting: taking the demo recipe (drawn pictures, no download)")
    given = [] if recipe is None else [sources.read_toml(sources.find_config(recipe))]
    config = sources.merge(*earlier, *given, flags)

    cli.set_up_jax(config.device, config.distributed)
    from jaxfood.runs.directory import next_workdir
    from jaxfood.training.start import train_and_evaluate

    if workdir is None:
        first, *_ = processes.share(str(next_workdir(Path(recipe).stem if recipe else "run")))
        workdir = Path(first)
    train_and_evaluate(config, workdir, resume=arguments.resume, overwrite=arguments.overwrite)


if __name__ == "__main__":
    cli.run(main)
