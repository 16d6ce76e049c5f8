"""`python -m jaxfood.predict`: the classes of new pictures, as the homework's submission.csv."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.errors import UserError, first_few
from jaxfood.files import is_remote
from jaxfood.inference.answer_table import FEW, answer_table
from jaxfood.inference.submission import ID_FORMS, describe_ids, make_ids, write_probabilities, write_submission
from jaxfood.places import check_writable_file, is_folder

if TYPE_CHECKING:
    from jaxfood.inference.probabilities import Answers

DESCRIPTION = """Write the class of every picture of a folder. Several runs, and all folds of one, answer together, by
the mean of their probabilities."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, predict, write."""
    arguments = _parse(argv)
    from jaxfood.data.index import counted, index_pictures

    if shell_made := [run for run in arguments.runs if cli.is_picture_name(run.name) and not is_folder(run)]:
        raise UserError(f"{shell_made[0]} is not a run: {cli.SHELL_GLOB}")
    check_writable_file(arguments.out, "--out")
    if arguments.probabilities is not None:
        check_writable_file(arguments.probabilities, "--probabilities")
        if _same(arguments.probabilities, arguments.out):
            raise UserError(f"--probabilities and --out are both {arguments.out}: give each a file of its own")
    index = index_pictures(arguments.images, labelled=False)
    ids = make_ids(index.paths, arguments.ids)
    if index.passed_over:
        cli.say(f"passed over in {index.root}: {counted(index.passed_over)}")
    cli.set_up_jax(DeviceConfig())

    from jaxfood.inference.probabilities import answer_pictures
    from jaxfood.runs.directory import each_run

    runs = each_run(arguments.runs)
    answers = answer_pictures(runs, index, arguments.which, tta=arguments.tta, cache_dir=arguments.cache_dir)
    if answers.plain:
        cli.say(f"trained without augmentation, so answering by the plain view alone: {first_few(answers.plain, 10)}")
    categories = answers.probabilities.argmax(axis=1)
    rows = {index.paths.index(path): reason for path, reason in answers.unreadable.items()}
    if len(index) <= FEW:
        names = [path.name if len(index) == 1 else index.name(path) for path in index.paths]
        for line in answer_table(names, answers.probabilities, answers.classes, rows):
            cli.say(line)
    if rows:
        named = [f"{index.name(index.paths[row])}, row {ids[row]}: {reason}" for row, reason in rows.items()]
        if arguments.strict:
            raise UserError(f"{len(rows)} pictures cannot be read ({first_few(named, 10)}): mend or remove them")
        categories[list(rows)], guess = _guess(runs, answers.classes)
        cli.say(f"{len(rows)} of {len(ids)} pictures cannot be read and get {guess}: {first_few(named, 10)}")
    if arguments.probabilities is not None:
        write_probabilities(arguments.probabilities, ids, answers.classes, answers.probabilities)
        cli.say(f"{arguments.probabilities}: probabilities of {len(answers.classes)} classes{_empty_rows(answers)}")
    write_submission(arguments.out, ids, categories.tolist())
    cli.say(f"{arguments.out}: {len(ids)} rows; {describe_ids(index.paths, ids, arguments.ids)}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser("predict", DESCRIPTION)
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=cli.path, help="work directory of a training, folds and all"
    )
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="a folder of pictures, one picture, or a list (.txt, .csv, .tsv)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=cli.path, default=Path("submission.csv"), help="default: submission.csv"
    )
    parser.add_argument(
        "--probabilities",
        metavar="FILE",
        type=cli.path,
        help="also write the probability of every class, a column each, in the rows of --out (CSV)",
    )
    parser.add_argument(
        "--tta",
        metavar="N",
        type=cli.up_to(cli.MOST_VIEWS, "views"),
        default=0,
        help="test-time augmentation: answer by half the plain view and half the mean of N views, changed as in the "
        "run's training; takes N + 1 times as long (default: 0)",
    )
    parser.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    forms = "; ".join(f"{form}: {meaning}" for form, meaning in ID_FORMS.items())
    parser.add_argument("--ids", choices=tuple(ID_FORMS), default="stem", help=f"Id of a picture, {forms}")
    parser.add_argument("--cache_dir", metavar="DIR", default="", help="where decoded pictures are kept")
    parser.add_argument(
        "--strict", action="store_true", help="refuse pictures that cannot be read, instead of guessing their class"
    )
    return parser.parse_args(argv)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of one file, there or not."""
    return one == other if is_remote(one) else os.path.realpath(one) == os.path.realpath(other)


def _empty_rows(answers: "Answers") -> str:
    """What to add of pictures that cannot be read, whose class is a guess without probabilities."""
    match len(answers.unreadable):
        case 0:
            return ""
        case 1:
            return "; 1 row without, as that picture cannot be read"
        case count:
            return f"; {count} rows without, as those pictures cannot be read"


def _guess(runs: Sequence[Path], classes: Sequence[str]) -> tuple[int, str]:
    """The class for a picture that cannot be read: the most frequent one that a run was trained on; and in words."""
    from jaxfood.runs.pictures import most_frequent_label

    label = next((label for run in runs if (label := most_frequent_label(run)) is not None), None)
    if label is None:
        return 0, f"class 0 ({classes[0]}), as the runs do not tell which was the most frequent in training"
    return label, f"class {label} ({classes[label]}), the most frequent in training"


if __name__ == "__main__":
    cli.run(main)
