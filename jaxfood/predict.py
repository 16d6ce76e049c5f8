"""`python -m jaxfood.predict`: the classes of new pictures, as the homework's submission.csv."""

from collections.abc import Sequence
from pathlib import Path

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError
from jaxfood.places import check_writable_file, is_folder

DESCRIPTION = """Write the class of every picture of a folder. Several runs answer together, by the mean of their
probabilities."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, predict, write."""
    parser = cli.Parser("predict", DESCRIPTION)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=cli.path, help="work directory of a training")
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="a folder of pictures, one picture, or a .txt list"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=cli.path, default=Path("submission.csv"), help="default: submission.csv"
    )
    parser.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    parser.add_argument(
        "--ids",
        choices=("stem", "index"),
        default="stem",
        help="Id of a picture: its file's own number (default), or its position in sorted order as in the notes' code",
    )
    arguments = parser.parse_args(argv)

    from jaxfood.data.index import index_pictures
    from jaxfood.inference.submission import check_distinct, index_ids, stem_ids, write_submission

    if shell_made := [run for run in arguments.runs if cli.is_picture_name(run.name) and not is_folder(run)]:
        raise UserError(f"{shell_made[0]} is not a run: {cli.SHELL_GLOB}")
    check_writable_file(arguments.out, "--out")
    paths = (index := index_pictures(arguments.images, labelled=False)).paths
    by_stem, by_index = stem_ids(paths), index_ids(paths)
    ids = by_stem if arguments.ids == "stem" else by_index
    check_distinct(ids, paths)
    cli.set_up_jax(DeviceConfig())

    from jaxfood.inference.probabilities import predict_probabilities

    categories = predict_probabilities(arguments.runs, index, arguments.which).argmax(axis=1)
    write_submission(arguments.out, ids, categories.tolist())
    cli.say(f"{arguments.out}: {len(ids)} rows")
    if differing := sum(a != b for a, b in zip(by_stem, by_index, strict=True)):
        print(
            f"Ids are by {arguments.ids}: {differing} of {len(ids)} differ between a file's own number (--ids stem) "
            "and its position in sorted order, as the notes' code has it (--ids index)"
        )


if __name__ == "__main__":
    cli.run(main)
