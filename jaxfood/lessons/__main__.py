"""`python -m jaxfood.lessons`: run a worked example of the notes, or list them."""

import argparse
from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.files import to_local_path
from jaxfood.lessons import LESSONS, check_lesson, run_lesson
from jaxfood.places import check_writable_folder

DESCRIPTION = """Run worked examples of the notes: each writes pictures, a page (NAME.md) and its numbers (NAME.json).
Without a name the lessons are listed."""


def main(argv: Sequence[str] | None = None) -> None:
    """List, or run some or all of them."""
    arguments = parse(argv)
    names = list(LESSONS) if arguments.all else arguments.names
    if not names:
        width = max(map(len, LESSONS))
        for name, lesson in LESSONS.items():
            print(f"{name:{width}}  {lesson.summary}")
        return
    out = to_local_path(arguments.out, "--out")
    for name in names:
        check_lesson(name, images=arguments.images is not None and not arguments.all)
    check_writable_folder(out, "--out")
    cli.set_up_jax(DeviceConfig())
    for name in names:
        images = arguments.images if not arguments.all or LESSONS[name].takes_images else None
        run_lesson(name, out, full=arguments.full, images=images)
        cli.say(str(out / f"{name}.md"))
    if arguments.all:
        from jaxfood.lessons.index_page import write_index

        cli.say(str(write_index(out)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser("lessons", DESCRIPTION)
    parser.add_argument("names", metavar="NAME", nargs="*", default=(), help=f"one or more of: {', '.join(LESSONS)}")
    parser.add_argument("--all", action="store_true", help="every lesson, and a page that links them (index.md)")
    parser.add_argument("--out", metavar="DIR", default="lessons", help="where to write (default: lessons)")
    parser.add_argument("--full", action="store_true", help="at the real size, with more seeds")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="a data folder to train on in place of the drawn pictures (with --all: where a lesson takes pictures)",
    )
    arguments = parser.parse_args(argv)
    if arguments.all and arguments.names:
        parser.error(f"--all runs every lesson; leave out {' '.join(arguments.names)}, or --all")
    return arguments


if __name__ == "__main__":
    cli.run(main)
