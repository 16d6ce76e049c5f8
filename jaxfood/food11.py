"""`python -m jaxfood.food11`: the homework's archives made into a data folder."""

from collections.abc import Sequence

from jaxfood import cli
from jaxfood.errors import UserError
from jaxfood.files import to_local_path

DESCRIPTION = """Make a folder to train on of Food-11 as you have it. That may be the Kaggle archives of the homework's
years, a folder that is unpacked already, or .parquet files; its pictures are checked against the published numbers, and
what to type next is said. Without --from: what to fetch by hand. Nothing is downloaded."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, unpack or look, print."""
    parser = cli.Parser("food11", DESCRIPTION)
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="ARCHIVE_OR_FOLDER",
        nargs="+",
        default=(),
        help=".zip, .tar, .tar.gz, .tar.bz2, .tar.xz or .parquet files, or a folder of pictures or of those",
    )
    parser.add_argument("--out", metavar="DIR", help="the data folder to make; without it --from is only looked at")
    arguments = parser.parse_args(argv)
    from jaxfood.data import food11
    from jaxfood.data.food11.years import WHAT_TO_FETCH

    if not arguments.sources:
        if arguments.out is not None:
            raise UserError(
                "--out needs --from ARCHIVE_OR_FOLDER; without both this command says what to fetch by hand"
            )
        print(WHAT_TO_FETCH)
        return
    paths = [to_local_path(text, "--from") for text in arguments.sources]
    sources = food11.open_sources(paths)
    out = None if arguments.out is None else to_local_path(arguments.out, "--out")
    for line in food11.look(sources) if out is None else food11.unpack(sources, out):
        cli.say(line)


if __name__ == "__main__":
    cli.run(main)
