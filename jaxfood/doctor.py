"""`python -m jaxfood.doctor`: what this machine and a data folder can do, and why not more."""

from collections.abc import Sequence

from jaxfood import cli
from jaxfood.config.sections import DeviceConfig

DESCRIPTION = """Say what this machine and a data folder can do, and why not more: versions, the devices that JAX sees,
memory, caches, a training step; of DIR its classes, what is passed over and how to train on it. Nothing is changed. Its
output is what to send along with a question."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, look, print."""
    parser = cli.Parser("doctor", DESCRIPTION)
    parser.add_argument("dir", metavar="DIR", nargs="?", type=cli.path, help="a folder of pictures to train on")
    arguments = parser.parse_args(argv)
    from jaxfood.diagnosis import devices, folder, machine

    for line in machine.describe_versions():
        cli.say(line)
    cli.set_up_jax(DeviceConfig())
    for lines in (devices.describe_devices, machine.describe_memory, machine.describe_caches, machine.describe_step):
        for line in lines():
            cli.say(line)
    if arguments.dir is not None:
        for line in folder.describe_folder(arguments.dir):
            cli.say(line)


if __name__ == "__main__":
    cli.run(main)
