"""Where settings come from: dataclass, file, flags. Later sources win."""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from jaxfood.config.fields import Section, check, parse
from jaxfood.config.loss import LOSSES
from jaxfood.config.optimizer import OPTIMIZERS
from jaxfood.config.schedule import SCHEDULES
from jaxfood.config.sections import SECTIONS, Config
from jaxfood.errors import UserError
from jaxfood.files import is_remote

# Sections of several variants, one of which `name` chooses, and the settings that outlive another choice.
VARIANTS: dict[str, Mapping[str, type[Section]]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSSES}
LASTING = {"optimizer": {"clip_norm"}}


@dataclasses.dataclass(frozen=True)
class Source:
    """Settings that were given together: `values["train"]["epochs"]`."""

    name: str  # for messages: the file's name, or "command line"
    values: Mapping[str, Mapping[str, Any]]
    as_text: bool = False  # the values are texts, to be read by each setting's type

    def __post_init__(self) -> None:
        for section, values in self.values.items():
            if section not in SECTIONS:
                raise UserError(f"{self.name}: no section {section!r}{_did_you_mean(section, SECTIONS)}")
            known = {field.name for variant in variants_of(section) for field in dataclasses.fields(variant)}
            for key in values:
                if key not in known:
                    hint = _did_you_mean(key, known, prefix=f"{section}.")
                    raise UserError(f"{self.name}: no setting {section}.{key}{hint}")
            name = values.get("name")
            if section in VARIANTS and name is not None and not (isinstance(name, str) and name in VARIANTS[section]):
                choices = ", ".join(VARIANTS[section])
                raise UserError(f"{self.name}: {section}.name = {name!r}: it takes one of: {choices}")


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a TOML file or a named recipe, changed by overrides such as `"train.epochs=3"`.

    Args:
        path: a file, the name of a recipe of `configs/` ("demo", "hw3"), or None for the defaults (the notes' recipe).
        overrides: `SECTION.FIELD=VALUE` texts; a value is spelled as on the command line.

    Raises:
        UserError: no such file or recipe, an unknown setting, a value of the wrong type or out of range.
    """
    pairs = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: write SECTION.FIELD=VALUE")
        pairs.append((name.strip(), text.strip()))
    files = [] if path is None else [read_toml(find_config(path))]
    return merge(*files, read_texts(pairs, name="overrides"))


def recipes() -> dict[str, Path]:
    """The recipes by name: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("jaxfood")))
    folder = package / "configs"
    if not folder.is_dir():
        folder = package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find_config(path: str | Path) -> Path:
    """The file that `--config` means: a recipe's name (no folder, no suffix) or a path."""
    text = str(path)
    if "/" in text or "\\" in text or text.endswith(".toml"):
        return _expanded(text)
    known = recipes()
    if text not in known:
        raise UserError(f"no recipe {text!r}{_did_you_mean(text, known)}; there are: {', '.join(known)}")
    return known[text]


def read_toml(path: Path) -> Source:
    """The settings of a TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    except FileNotFoundError:
        raise UserError(f"no configuration file {path}; check its path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(
                f"{path.name}: {section} = {table!r} stands outside a section; write it below its [section]"
            )
    return Source(path.name, tables)


def read_texts(pairs: Iterable[tuple[str, str]], name: str = "command line") -> Source:
    """The settings of `("section.field", "text")` pairs."""
    values: dict[str, dict[str, str]] = {}
    for dotted, text in pairs:
        section, _, key = dotted.partition(".")
        values.setdefault(section, {})[key] = text
    return Source(name, values, as_text=True)


def merge(*sources: Source) -> Config:
    """The configuration of all sources, later ones winning.

    A source that chooses another optimizer (schedule, loss) drops what earlier ones said of it, but for `clip_norm`.
    """
    sections: dict[str, Any] = {section: _merge_section(section, sources) for section in SECTIONS}
    data = sections["data"]
    if data.root:
        root = data.root.rstrip("/") if is_remote(data.root) else str(_expanded(data.root).absolute())
        sections["data"] = dataclasses.replace(data, root=root)
    return Config(**sections)


def to_toml(config: Config) -> str:
    """The configuration as TOML, every setting written out; `load_config` takes it again."""
    return tomli_w.dumps(dataclasses.asdict(config))


def all_settings(config: Config) -> Iterator[tuple[str, Any]]:
    """Every setting as `("section.field", value)`."""
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items():
            yield f"{section}.{key}", value


def variants_of(section: str) -> list[type[Section]]:
    """The dataclasses that can stand in a section: one, or one for each optimizer, schedule or loss."""
    return list(VARIANTS[section].values()) if section in VARIANTS else [type(getattr(Config(), section))]


def _merge_section(section: str, sources: Iterable[Source]) -> Section:
    given: dict[str, tuple[Any, Source]] = {}
    variant = type(getattr(Config(), section))
    for source in sources:
        values = source.values.get(section, {})
        if section in VARIANTS and "name" in values and VARIANTS[section][values["name"]] is not variant:
            variant = VARIANTS[section][values["name"]]
            given = {key: value for key, value in given.items() if key in LASTING.get(section, ())}
        given |= {key: (value, source) for key, value in values.items()}
    fields = {field.name: field for field in dataclasses.fields(variant)}
    result = {}
    for key, (value, source) in given.items():
        if key not in fields:
            own = ", ".join(name for name in fields if name != "name") or "none"
            raise UserError(f"{source.name}: {section} {fields['name'].default!r} has no {key!r}; its settings: {own}")
        read = parse if source.as_text else check
        try:
            result[key] = read(f"{section}.{key}", fields[key], value)
        except UserError as error:
            raise UserError(f"{source.name}: {error}") from None
    return variant(**result)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such user; write the path without ~") from None


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {prefix}{close[0]}?" if close else ""
