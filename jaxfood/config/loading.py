"""Where settings come from: dataclass, file, flags. Later sources win."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from jaxfood.config.fields import Section, check, parse
from jaxfood.config.loss import LOSSES
from jaxfood.config.model import MODELS, ModelConfig
from jaxfood.config.optimizer import OPTIMIZERS
from jaxfood.config.schedule import SCHEDULES
from jaxfood.config.sections import SECTIONS, Config
from jaxfood.config.toml import read_tables
from jaxfood.errors import UserError, bounded, printable, shown
from jaxfood.files import is_remote, refuse_service, to_path
from jaxfood.places import is_file

# Sections of several variants, one of which `name` chooses, and the settings that outlive another choice.
VARIANTS: dict[str, Mapping[str, type[Section]]] = {
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
}
LASTING = {
    "model": {field.name for field in dataclasses.fields(ModelConfig)},
    "optimizer": {"clip_norm"},
}

# What other programs call a setting.
_OTHER_NAMES = {
    **dict.fromkeys(("lr", "learningrate", "rate", "eta"), "optimizer.learning_rate"),
    **dict.fromkeys(("wd", "decay", "l2"), "optimizer.weight_decay"),
    **dict.fromkeys(("optim", "opt", "optimizer"), "optimizer.name"),
    **dict.fromkeys(("clip", "grad_clip", "max_grad_norm", "clip_grad_norm"), "optimizer.clip_norm"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "sched", "schedule"), "schedule.name"),
    **dict.fromkeys(("epoch", "num_epochs", "n_epochs", "max_epochs"), "train.epochs"),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), "train.batch_size"),
    **dict.fromkeys(("early_stop", "early_stopping", "train_patience"), "train.patience"),
    **dict.fromkeys(("myseed", "random_seed", "manual_seed"), "train.seed"),
    **dict.fromkeys(("grad_accum", "accumulation", "gradient_accumulation_steps"), "train.accumulate"),
    **dict.fromkeys(("data", "dataset", "data_dir", "datadir", "data_path", "dataset_dir", "path"), "data.root"),
    **dict.fromkeys(("size", "img_size", "imgsz", "resolution", "image"), "data.image_size"),
    **dict.fromkeys(("classes", "n_classes", "nclasses"), "model.num_classes"),
    **dict.fromkeys(("model", "arch", "architecture", "network", "backbone"), "model.name"),
    **dict.fromkeys(("drop", "drop_rate", "dropout_rate"), "model.dropout"),
    **dict.fromkeys(("smoothing", "labelsmoothing"), "loss.label_smoothing"),
    **dict.fromkeys(("criterion", "loss"), "loss.name"),
    **dict.fromkeys(("gpu", "device", "cuda", "accelerator"), "device.platform"),
    **dict.fromkeys(("gpus", "devices", "num_devices"), "device.count"),
    **dict.fromkeys(("fp16", "bf16", "amp", "precision"), "model.dtype"),
    **dict.fromkeys(("cache", "cachedir"), "data.cache_dir"),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Settings that were given together: `values["train"]["epochs"]`."""

    name: str  # for messages: the file's name, or "command line"
    values: Mapping[str, Mapping[str, Any]]
    as_text: bool = False  # the values are texts, to be read by each setting's type

    def __post_init__(self) -> None:
        for section, values in self.values.items():
            if section not in SECTIONS:
                raise UserError(f"{self.name}: no section {shown(section)}{_meant_section(section)}")
            known = {field.name for variant in variants_of(section) for field in dataclasses.fields(variant)}
            for key in values:
                if key not in known:
                    hint = _did_you_mean(key, known, prefix=f"{section}.")
                    if not hint and (elsewhere := setting_of(key)):
                        hint = f": did you mean {elsewhere}?"
                    raise UserError(f"{self.name}: no setting {section}.{bounded(printable(key), 100)}{hint}")
            name = values.get("name")
            if section in VARIANTS and name is not None and not (isinstance(name, str) and name in VARIANTS[section]):
                choices = ", ".join(VARIANTS[section])
                raise UserError(f"{self.name}: {section}.name = {shown(name)}: it takes one of: {choices}")


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
            raise UserError(f"override {shown(override)}: write SECTION.FIELD=VALUE")
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
        return to_path(text)
    known = recipes()
    if text not in known:
        mend = _did_you_mean(text, known) or (f"; of a file write ./{text}" if is_file(Path(text)) else "")
        raise UserError(f"no recipe {shown(text)}{mend}; there are: {', '.join(known)}")
    return known[text]


def read_toml(path: Path) -> Source:
    """The settings of a TOML file."""
    tables = read_tables(path)
    for section, table in tables.items():
        if not isinstance(table, dict):
            where = f"; did you mean {setting}?" if (setting := setting_of(section)) else ""
            raise UserError(
                f"{path.name}: {bounded(printable(section), 100)} = {shown(table)} stands outside a section; "
                f"write it below its [section]{where}"
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
    for section, key in (("data", "root"), ("train", "init")):
        if path := getattr(sections[section], key):
            whole = _absolute(path, f"{section}.{key} = ")
            sections[section] = dataclasses.replace(sections[section], **{key: whole})
    if teachers := sections["train"].teachers:
        whole = ",".join(_absolute(path.strip(), "train.teachers = ") for path in teachers.split(",") if path.strip())
        sections["train"] = dataclasses.replace(sections["train"], teachers=whole)
    return Config(**sections)


def _absolute(path: str, setting: str) -> str:
    """A path as a run's config.toml has it, which may be read from another directory."""
    refuse_service(path, setting)
    return path.rstrip("/") if is_remote(path) else str(to_path(path).absolute())


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


def setting_of(word: str) -> str:
    """The setting, as "section.field", that is meant by a word that is none: a field's name or another for it.

    "" where there is none, or several sections have the field.
    """
    word = word.replace("-", "_").lower()
    if word in _OTHER_NAMES:
        return _OTHER_NAMES[word]
    fields = {
        f"{section}.{field.name}"
        for section in SECTIONS
        for variant in variants_of(section)
        for field in dataclasses.fields(variant)
        if field.name == word
    }
    return fields.pop() if len(fields) == 1 else ""


def _meant_section(section: str) -> str:
    if setting := setting_of(section):
        return f": did you mean {setting}?"
    return _did_you_mean(section, SECTIONS)


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5) if len(word) < 100 else []
    return f": did you mean {prefix}{close[0]}?" if close else ""
