"""`python -m jaxfood.lessons`: run a worked example of the notes, or list them."""

from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig
from jaxfood.files import to_local_path
from jaxfood.lessons import LESSONS, run_lesson
from jaxfood.places import check_writable_folder

DESCRIPTION = """Run a worked example of the notes: it writes pictures, a page (NAME.md) and its numbers (NAME.json).
Without a name the lessons are listed."""


def main(argv: Sequence[str] | None = None) -> None:
    """List, or run one."""
    parser = cli.Parser("lessons", DESCRIPTION)
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"one of: {', '.join(LESSONS)}")
    parser.add_argument("--out", metavar="DIR", default="lessons", help="where to write (default: lessons)")
    parser.add_argument("--full", action="store_true", help="where the lesson trains: at the real size, not at 32 px")
    arguments = parser.parse_args(argv)
    if arguments.name is None:
        width = max(map(len, LESSONS))
        for name, summary in LESSONS.items():
            print(f"{name:{width}}  {summary}")
        return
    if arguments.name in LESSONS:  # JAX is slow to start: not for a name that is refused
        check_writable_folder(to_local_path(arguments.out, "--out"), "--out")
        cli.set_up_jax(DeviceConfig())
    run_lesson(arguments.name, arguments.out, full=arguments.full)
    cli.say(str(to_local_path(arguments.out, "--out") / f"{arguments.name}.md"))


if __name__ == "__main__":
    cli.run(main)
