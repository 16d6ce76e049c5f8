"""`python -m jaxfood.preview`: what a training will see and do, before it begins."""

from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config import loading
from jaxfood.config.distributed import NONE
from jaxfood.files import to_local_path
from jaxfood.places import check_writable_folder

DESCRIPTION = """Look at a training before it begins: its classes, its pictures as the network will see them, its
learning rate over the steps. Writes preview.md and pictures; trains nothing and makes no run. Settings are given as to
train, and without --config and without any --data setting the demo recipe is taken."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, and look."""
    parser = cli.Parser("preview", DESCRIPTION)
    parser.add_argument("--config", help=f"a TOML file, or a recipe: {', '.join(loading.recipes())}")
    parser.add_argument("--out", metavar="DIR", required=True, help="where to write")
    parser.add_argument(
        "--find_lr",
        action="store_true",
        help="also try learning rates from 1e-7 to 10 on weights that are then forgotten, at most 100 steps, and "
        "suggest one",
    )
    arguments, flags = parser.parse_with_settings(argv)
    out = to_local_path(arguments.out, "--out")
    check_writable_folder(out, "--out")
    recipe = cli.choose_recipe(arguments.config, flags)
    given = [] if recipe is None else [loading.read_toml(loading.find_config(recipe))]
    config = loading.merge(*given, flags)
    if config.distributed.coordinator not in ("", NONE):
        cli.say("preview looks in this process alone: distributed.coordinator is for train")
    cli.set_up_jax(config.device)
    from jaxfood.before_training.survey import preview

    preview(config, out, find_lr=arguments.find_lr)


if __name__ == "__main__":
    cli.run(main)
