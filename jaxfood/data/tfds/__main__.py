"""`python -m jaxfood.data.tfds`: the homework's folders as the TFDS data set food11."""

from collections.abc import Sequence

from jaxfood import cli
from jaxfood.data.tfds import PREFIX, prepare_food11

DESCRIPTION = "Prepare Food-11 as the TFDS data set food11, of the homework's folders."


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, prepare, print."""
    parser = cli.Parser("data.tfds", DESCRIPTION)
    parser.add_argument("--images", required=True, type=cli.path, help="the folder that holds train, valid and test")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps data sets (default: TFDS's own)")
    arguments = parser.parse_args(argv)
    prepared = prepare_food11(arguments.images, arguments.data_dir)
    root = f" --data.root {arguments.data_dir}" if arguments.data_dir else ""
    cli.say(f"{prepared}; train on it with: python -m jaxfood.train --data.source {PREFIX}food11{root}")


if __name__ == "__main__":
    cli.run(main)
