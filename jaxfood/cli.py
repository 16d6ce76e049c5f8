"""What the commands share: flags made from the settings, one plain line for a user's mistake, JAX set up."""

import argparse
import dataclasses
import difflib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxfood import processes, terminal
from jaxfood.config.distributed import AUTO, DistributedConfig
from jaxfood.config.fields import describe
from jaxfood.config.loading import VARIANTS, Source, read_texts, setting_of, variants_of
from jaxfood.config.sections import SECTIONS, Config, DeviceConfig
from jaxfood.errors import UserError, bounded, printable, shown
from jaxfood.files import to_path
from jaxfood.terminal import INTERRUPTED

USER_ERROR = 2
MOST_VIEWS = 1000  # of test-time augmentation: more than helps is a typing error


class Parser(argparse.ArgumentParser):
    """The command line of one command; a mistake in it is a UserError."""

    def __init__(self, command: str, description: str) -> None:
        program = f"python -m jaxfood.{command}" if command else "python -m jaxfood"
        super().__init__(prog=program, description=description, allow_abbrev=False)
        self._sections: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but an unknown argument is refused with what may have been meant."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        for name, value in vars(arguments).items():
            if value == []:  # what Python 3.11 and 3.12 make of --NAME=--
                self.error(f"argument --{name}: expected one argument")
        return arguments

    def parse_with_settings(
        self, argv: Sequence[str] | None, sections: Sequence[str] = SECTIONS
    ) -> tuple[argparse.Namespace, Source]:
        """Parse the arguments added so far and a flag `--SECTION.FIELD` for every setting of these sections.

        Returns:
            The command's own arguments, and the settings that were given.
        """
        own = self.format_usage().removeprefix("usage: ").strip()
        self.usage = f"{own} [--SECTION.FIELD VALUE ...]"
        self._sections = sections
        for section in sections:
            group = self.add_argument_group(section)
            for name, fields in _settings_of(section).items():
                text = _help(section, name, fields).replace("%", "%%")
                flag = f"{section}.{name}"
                group.add_argument(f"--{flag}", dest=flag, metavar="VALUE", default=argparse.SUPPRESS, help=text)
        arguments = self.parse_args(argv)
        given = {name: vars(arguments).pop(name) for name in list(vars(arguments)) if "." in name}
        return arguments, read_texts(given.items())

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        """The first unknown argument, and what may have been meant by it."""
        word = unknown[0]
        flag = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and "." in flag and self._sections:
            read_texts([(flag, "")])  # raises, naming the setting that may have been meant
        self.error(f"unknown argument {shown(word)}{self._hint(word, unknown)}")

    def _hint(self, word: str, unknown: Sequence[str]) -> str:
        flags = self._option_string_actions
        if word.startswith("-"):
            name = word.lstrip("-").partition("=")[0].replace("-", "_")
            if f"--{name}" in flags:
                return f": did you mean --{name}?"
            setting = setting_of(name)
            if setting and setting.partition(".")[0] in self._sections:
                return f": did you mean --{setting}?"
            close = difflib.get_close_matches(f"--{name}"[:100], [flag for flag in flags if "." not in flag], n=1)
            return f": did you mean {close[0]}?" if close else ""
        if "--images" in flags and (len(unknown) > 1 or is_picture_name(word)):
            return f": {SHELL_GLOB}"
        if "--resume" in flags:
            return ": a run is named with --workdir RUN, --resume takes no value, and a recipe follows --config"
        return ""


SHELL_GLOB = (
    "--images takes one word, and the shell replaces a pattern such as *.jpg by many: name the folder, or a .txt list"
)


def is_picture_name(text: str) -> bool:
    """Whether an argument looks like one of the pictures that a shell made of a pattern."""
    return text.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def path(text: str) -> Path:
    """The path that an argument names, for `type=`; argparse keeps the text of this one exception alone."""
    try:
        return to_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def choose_recipe(recipe: str | None, settings: Source) -> str | None:
    """The recipe of a training: that of `--config`; where neither it nor any data setting is given, demo, and said."""
    if recipe is not None or "data" in settings.values:
        return recipe
    print("no --config and no --data setting: taking the demo recipe (drawn pictures, no download)")
    return "demo"


def up_to(most: int, things: str) -> Callable[[str], int]:
    """The `type` of a flag that takes how many of something, 0 to `most`."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 4 or int(text) > most:
            raise argparse.ArgumentTypeError(f"it takes how many {things}, 0 to {most}, not {shown(text)}")
        return int(text)

    return read


def say(text: str) -> None:
    """A line on standard output, whatever names stand in it."""
    print(printable(text))


def run(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command and leave with its exit status: 0, or 2 and one plain line for a mistake of the user's.

    Where it is one of several processes, those end too: with the same status if the same happened to them, else with
    `monitor.LOST`. What standard output takes no more (`| head`) is dropped, and changes nothing of that.
    """
    if getattr(main, "__module__", "") == "__main__":  # the process is ours
        terminal.catch_interrupts()
        terminal.open_streams()
        collect_seldom()
    status, reason = 0, ""
    try:
        with terminal.working():
            main(None)
    except UserError as error:
        status, reason = USER_ERROR, f"error: {error}"
    except KeyboardInterrupt as interrupt:
        status, reason = INTERRUPTED, f"interrupted{interrupt}"
    if status:
        terminal.settle(status)
        reason = bounded(printable(reason))
        print(reason, file=sys.stderr)
        processes.leave(status, reason)
    terminal.leave(status)


def collect_seldom() -> None:
    """Let Python look for garbage every 100,000 objects and not every 700, for commands.

    Imports and JAX's tracing make millions of objects and hardly any garbage: looking for it took 0.6 of the 3.8 s to
    the demo's first update.
    """
    gc.set_threshold(100_000, 20, 20)


def set_up_jax(device: DeviceConfig, distributed: DistributedConfig | None = None) -> None:
    """Choose the platform and the place of compiled steps, and join the other processes, if any.

    For commands; the library leaves JAX's settings alone.
    """
    import jax

    from jaxfood.data.cache_folder import default_cache_dir

    if device.platform:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(device.platform, device.platform))
    if device.compilation_cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(default_cache_dir() / "compiled"))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # JAX keeps what takes a second to compile; a start has five programs of 0.1 s.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    if distributed is not None:
        processes.start(distributed)
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # what JAX raises depends on which platforms it was installed for
        where = device.platform or os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX finds no {where} device here; set another device.platform, or leave it empty") from None
    if distributed is not None and jax.process_count() > processes.count():
        raise UserError(
            f"this is one of {jax.process_count()} workers of a TPU pod: set distributed.coordinator = {AUTO}"
        )


def _settings_of(section: str) -> dict[str, dict[str, dataclasses.Field]]:
    """The settings of a section: for each name its field in every variant that has it."""
    settings: dict[str, dict[str, dataclasses.Field]] = {}
    for variant in variants_of(section):
        for field in dataclasses.fields(variant):
            settings.setdefault(field.name, {})[getattr(variant, "name", "")] = field
    return settings


def _help(section: str, name: str, fields: dict[str, dataclasses.Field]) -> str:
    """Meaning, what is accepted, and each default with the variants that have it.

    The commonest comes first and, where all variants have the setting, alone.
    """
    if section in VARIANTS and name == "name":
        return f"one of: {', '.join(fields)} (default: {getattr(Config(), section).name})"
    field = next(iter(fields.values()))
    variants: dict[str, list[str]] = {}  # that have each default
    for variant, own in fields.items():
        variants.setdefault(_spelled(own.default), []).append(variant)
    ordered = sorted(variants, key=lambda value: -len(variants[value]))
    defaults = [f"{value} for {', '.join(variants[value])}" for value in ordered]
    if len(fields) == len(variants_of(section)):
        defaults[0] = ordered[0]
    return f"{field.metadata['meaning']} ({describe(field)}; default: {'; '.join(defaults)})"


def _spelled(value: object) -> str:
    """A value as flags take it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or '""'
    return str(value).lower() if isinstance(value, bool) else repr(value)
