"""A hook of MkDocs: the reference's pages, made from the code at each build, so that they cannot drift from it.

`reference/commands.md` has every command, `reference/settings.md` every setting, `reference/api.md` and
`reference/landscape.md` every public name, whose docstrings mkdocstrings fills in. What is added to the code stands on
them without a change here. `changelog.md` is CHANGELOG.md. Files of these names hold their places in docs/, for
navigation and translations.

    python scripts/docs/site_reference.py DIR

writes them as they are given to MkDocs.
"""

import argparse
import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from jaxfood import cli
from jaxfood.config.loading import VARIANTS, variants_of
from jaxfood.config.sections import SECTIONS
from jaxfood.runs.resume import ELSEWHERE, may_change

PACKAGE = Path(cli.__file__).parent
WIDTH = 100  # letters of a usage line
_ORDER = [f"jaxfood.{name}" for name in ("train", "predict", "evaluate", "preview", "landscape", "convert", "export")]


@functools.cache
def pages() -> dict[str, str]:
    """Each generated page by its path below docs/, as Markdown."""
    return {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/api.md": api_page(),
        "reference/landscape.md": landscape_page(),
        "changelog.md": changelog_page(),
    }


def on_page_read_source(page: Any, config: Any) -> str | None:
    """MkDocs asks for the source of each page; None is the file itself."""
    return pages().get(page.file.src_uri)


def changelog_page() -> str:
    """CHANGELOG.md, whose links into docs/ lead to the site's own pages."""
    return (PACKAGE.parent / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "](")


# Commands.


class _Parsed(Exception):
    """Carries a command's parser out of it, before it does anything."""

    def __init__(self, parser: cli.Parser, sections: tuple[str, ...]) -> None:
        self.parser, self.sections = parser, sections


def commands() -> list[str]:
    """The names that follow `python -m`: every module that runs itself as a command."""
    modules = [path for path in PACKAGE.rglob("*.py") if "    cli.run(main)" in path.read_text("utf-8")]
    names = {path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for path in modules}
    short = {name.removesuffix(".__main__") for name in names} - {PACKAGE.name}  # which only lists them
    return sorted(short, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def parser_of(main: Callable[[list[str]], None], argv: list[str]) -> _Parsed:
    """The parser that a command makes for these arguments, and the sections of settings that it takes."""
    sections: tuple[str, ...] = ()
    with_settings = cli.Parser.parse_with_settings

    def remember(self: cli.Parser, argv: Any, sections_: Any = SECTIONS, **named: Any) -> Any:
        nonlocal sections
        sections = tuple(named.get("sections", sections_))
        return with_settings(self, argv, sections)

    def stop(self: cli.Parser, *arguments: Any) -> Any:
        raise _Parsed(self, sections)

    with (
        mock.patch.object(cli.Parser, "parse_with_settings", remember),
        mock.patch.object(cli.Parser, "parse_args", stop),
    ):
        try:
            main(argv)
        except _Parsed as parsed:
            return parsed
    raise AssertionError(f"{main} parses nothing")


def commands_page() -> str:
    """Every command with its usage, what it does and its own arguments."""
    parsers = [parsed for name in commands() for parsed in _parsers(name)]
    rows = [(f"[`{_name(p)}`](#{_anchor(p)})", _sentence(p.parser.description or "")) for p in parsers]
    parts = [
        "# Commands",
        "Each is `python -m jaxfood.` and its name, and answers `--help`. This page is made from the same text. "
        "Exit status: 0 done; 2 a mistake of yours, told in one line; 75 another process of the training ended; "
        "130 interrupted, and saved.",
        _table(("command", "does"), rows),
    ]
    return "\n\n".join(parts + [_command(parsed) for parsed in parsers]) + "\n"


def _parsers(name: str) -> Iterator[_Parsed]:
    """A command's parser; of one whose first argument chooses what is done, one for each choice."""
    module = name if not (PACKAGE.parent / name.replace(".", "/")).is_dir() else f"{name}.__main__"
    main = import_module(module).main
    parsed = parser_of(main, [])
    chosen = [action.choices for action in parsed.parser._actions if not action.option_strings and action.choices]
    if not chosen:
        yield parsed
        return
    for choice in chosen[0]:
        yield parser_of(main, [choice])


def _name(parsed: _Parsed) -> str:
    return parsed.parser.prog.removeprefix("python -m jaxfood.")


def _anchor(parsed: _Parsed) -> str:
    return _name(parsed).replace(" ", "-").replace(".", "-")


def _command(parsed: _Parsed) -> str:
    parser = parsed.parser
    parts = [f"## {_name(parsed)} {{ #{_anchor(parsed)} }}", _plain(parser.description or "")]
    parts.append(f"```text\n{_usage(parser)}\n```")
    own = [action for action in parser._actions if "." not in action.dest and action.dest != "help"]
    if own:
        parts.append(_table(("argument", "meaning"), [(_flag(action), _meaning(parser, action)) for action in own]))
    if parsed.sections:
        links = ", ".join(f"[`{section}`](settings.md#{section})" for section in parsed.sections)
        parts.append(f"Settings, each as `--SECTION.FIELD VALUE`: {links}.")
    return "\n\n".join(parts)


def _usage(parser: argparse.ArgumentParser) -> str:
    with mock.patch.dict("os.environ", COLUMNS=str(WIDTH)):
        return parser.format_usage().strip().removeprefix("usage: ")


def _flag(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if not action.option_strings or action.nargs == 0:
        return f"`{name}`"
    value = action.metavar or ("" if action.choices else action.dest.upper())
    return f"`{name} {value}`" if value else f"`{name}`"


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    given = (action.help or "") % {**vars(action), "prog": parser.prog}
    if action.choices:
        given = f"one of {', '.join(f'`{choice}`' for choice in action.choices)}. {given}"
    return _plain(given)


# Settings.


def settings_page() -> str:
    """Every setting of every section: its default, what it takes and what it means."""
    parts = [
        "# Settings",
        "Every setting is a key of a TOML file (`learning_rate` in the section `[optimizer]`) and a flag of the same "
        "name (`--optimizer.learning_rate 1e-3`). A flag wins over the file, the file over the default. The defaults "
        "are the notes' recipe for HW3. `inf` is infinity, an empty string means: not set. A run keeps all of them in "
        "`RUN/config.toml`.",
        "Settings marked ↻ may be changed when a run goes on with `--resume`; of those marked ⇄ only the place, as "
        "pictures and runs may have moved. A change of any other is refused.",
    ]
    return "\n\n".join(parts + [_section(section) for section in SECTIONS]) + "\n"


def _section(section: str) -> str:
    parts = [f"## {section} {{ #{section} }}"]
    settings = cli._settings_of(section)
    if section not in VARIANTS:
        return "\n\n".join([*parts, _settings_table(section, settings)])
    every = len(variants_of(section))
    shared = {name: fields for name, fields in settings.items() if len(fields) == every or name == "name"}
    own = {name: fields for name, fields in settings.items() if name not in shared}
    parts.append(_settings_table(section, shared))
    if own:
        parts += [f"Those that only some of the {len(settings['name'])} have:", _settings_table(section, own)]
    return "\n\n".join(parts)


def _settings_table(section: str, settings: Mapping[str, dict[str, dataclasses.Field]]) -> str:
    rows = [_setting(section, name, fields) for name, fields in settings.items()]
    return _table(("setting", "default", "takes", "meaning"), rows)


def _setting(section: str, name: str, fields: dict[str, dataclasses.Field]) -> tuple[str, str, str, str]:
    """A row: the words of `--help`, taken apart."""
    text = cli._help(section, name, fields)
    meaning, _, rest = text.rpartition(" (") if not text.startswith("one of: ") else ("", "", text)
    takes, _, default = rest.removesuffix(")").rpartition("default: ")
    takes = takes.rstrip("; (")
    mark = "" if not _resumes(f"{section}.{name}") else f" {_resumes(f'{section}.{name}')}"
    return f"`{section}.{name}`{mark}", _code_of(default), _plain(takes), _plain(meaning)


def _resumes(name: str) -> str:
    return "⇄" if name in ELSEWHERE else "↻" if may_change(name) else ""


def _code_of(default: str) -> str:
    """A default as it is written; "64 for classifier; 32 for resnet" with each value as code."""
    parts = []
    for part in default.split("; "):
        value, _, whom = part.partition(" for ")
        value = value.strip("'") if value not in ("''", '""') else ""
        parts.append((f"`{value}`" if value else "empty") + (f" for {_plain(whom)}" if whom else ""))
    return "; ".join(parts)


# The library.


def public_names(module: str = "jaxfood") -> list[str]:
    """The names that a package shows, in their order there, as `module.name`."""
    tree = ast.parse((PACKAGE.parent / module.replace(".", "/") / "__init__.py").read_text("utf-8"))
    found = [
        f"{node.module}.{alias.name}"
        for block in tree.body
        if isinstance(block, ast.With)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert found, module
    return found


MORE = (  # useful without being at the top
    "jaxfood.data.index.index_pictures",
    "jaxfood.data.index.index_files",
    "jaxfood.optim.losses.cross_entropy",
    "jaxfood.model.networks.make_model",
    "jaxfood.lessons.run_lesson",
)


def api_page() -> str:
    """The public names of `jaxfood`, each with its docstring."""
    parts = [
        "# Library",
        "`import jaxfood` is quick and sets nothing; each name is loaded when it is first used. Shapes are written as "
        "`[B, H, W, C]`. A mistake of yours is a `jaxfood.UserError`, which is a `ValueError`.",
        _names_in_words("jaxfood", public_names()),
        *(_documented(name) for name in public_names()),
        "# Further names",
        *(_documented(name) for name in MORE),
    ]
    return "\n\n".join(parts) + "\n"


def landscape_page() -> str:
    """The public names of `jaxfood.landscape`."""
    names = public_names("jaxfood.landscape")
    example = inspect.getdoc(import_module("jaxfood.landscape")) or ""
    first, _, code = example.partition("\n\n")
    parts = [
        "# Library: landscape",
        _plain(first) + " It takes any loss of a tree of parameters, and knows nothing of pictures.",
        f"```python\n{code.partition(chr(10) * 2)[0]}\n```",
        *(_documented(name) for name in names),
    ]
    return "\n\n".join(parts) + "\n"


def _names_in_words(package: str, names: list[str]) -> str:
    return ", ".join(f"[`{package}.{_last(name)}`][{name}]" for name in names) + "."


def _documented(name: str) -> str:
    return f"::: {name}\n    options:\n      heading: {_last(name)}"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


# Markdown.


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """A text of the code with nothing in it that is markup."""
    words = " ".join(textwrap.dedent(text).split())
    return words.replace("*", r"\*").replace("<", "&lt;").replace("_", r"\_") if "`" not in words else words


def _sentence(text: str) -> str:
    return _plain(text.partition(". ")[0].removesuffix(".") + ".")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the generated pages of the site's reference as Markdown.")
    parser.add_argument("out", metavar="DIR", type=Path, help="where to write")
    out = parser.parse_args().out
    for name, content in pages().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content, "utf-8")
