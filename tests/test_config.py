"""The configuration: defaults, checks, TOML and flags, and which source wins."""

import dataclasses
import itertools
import math
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import pytest

from jaxfood.config import OPTIMIZERS, SCHEDULES, Config, load_config, to_toml
from jaxfood.config.fields import describe, kind_of
from jaxfood.config.loading import VARIANTS, all_settings, merge, read_texts, read_toml, recipes, variants_of
from jaxfood.config.optimizer import Adam
from jaxfood.config.schedule import Constant
from jaxfood.config.sections import SECTIONS, TrainConfig
from jaxfood.errors import UserError

NOTES_RECIPE = {
    "data.train": "train",
    "data.valid": "valid",
    "data.image_size": 128,
    "data.fraction": 1.0,
    "data.valid_fraction": 0.0,
    "data.resize": "squash",
    "data.decode": "exact",
    "model.num_classes": 0,
    "model.dtype": "float32",
    "train.epochs": 8,
    "train.batch_size": 64,
    "train.patience": 5,
    "train.seed": 6666,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 3e-4,
    "optimizer.weight_decay": 1e-5,
    "optimizer.clip_norm": 10.0,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.eps": 1e-8,
    "schedule.name": "constant",
    "loss.name": "cross_entropy",
    "loss.label_smoothing": 0.0,
    "loss.class_weights": (),
    "checkpoint.keep_best": 1,
}

SETTINGS = [
    pytest.param(section, variant, field, id=f"{section}.{getattr(variant, 'name', '')}.{field.name}")
    for section in SECTIONS
    for variant in variants_of(section)
    for field in dataclasses.fields(variant)
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def spelled(value: object) -> str:
    """A value as a flag has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


# Defaults.


def test_the_defaults_are_the_recipe_of_the_notes() -> None:
    settings = dict(all_settings(Config()))
    assert {name: settings[name] for name in NOTES_RECIPE} == NOTES_RECIPE
    assert load_config() == Config()


def test_every_setting_that_others_rely_on_is_there() -> None:
    names = {f"{section}.{field.name}" for section, _, field in (param.values for param in SETTINGS)}
    assert names >= {
        *("data.source", "data.root", "data.train", "data.valid", "data.image_size", "data.skip_corrupt"),
        *("model.num_classes", "train.epochs", "train.batch_size", "train.patience", "train.seed", "train.parallel"),
        *("optimizer.name", "optimizer.learning_rate", "optimizer.weight_decay", "optimizer.clip_norm"),
        *("schedule.name", "checkpoint.keep_best", "checkpoint.every"),
    }


@pytest.mark.parametrize(("section", "variant", "field"), SETTINGS)
def test_a_setting_has_a_meaning_and_its_default_is_accepted(
    section: str, variant: type, field: dataclasses.Field
) -> None:
    chooses = section in VARIANTS and field.name == "name"
    assert chooses or field.metadata["meaning"].strip()
    assert describe(field)
    assert field.default in field.metadata["accepts"]
    choice = [f"{section}.name={variant.name}"] if hasattr(variant, "name") else []
    config = load_config(None, [*choice, f"{section}.{field.name}={spelled(field.default)}"])
    assert getattr(config, section) == variant()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_clips_as_the_notes_do(name: str) -> None:
    assert load_config(None, [f"optimizer.name={name}"]).optimizer.clip_norm == 10


def test_a_configuration_is_frozen_and_hashable() -> None:
    config = load_config(None, ["train.epochs=3"])
    same, other = load_config(None, ["train.epochs=3"]), load_config(None, ["train.epochs=4"])
    assert (config, hash(config)) == (same, hash(same))
    assert config != other
    assert {config: "a", other: "b"}[same] == "a"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.epochs = 4  # type: ignore[misc]


def test_a_section_made_by_hand_is_checked_too() -> None:
    with pytest.raises(UserError, match=r"train\.epochs = 0: it takes an integer, at least 1"):
        TrainConfig(epochs=0)
    with pytest.raises(UserError, match=r"optimizer\.beta1"):
        dataclasses.replace(Adam(), beta1=1.0)
    assert type(dataclasses.replace(Adam(), learning_rate=1).learning_rate) is float


# TOML.


@pytest.mark.parametrize(("optimizer", "schedule"), list(itertools.product(OPTIMIZERS, SCHEDULES)))
def test_config_toml_round_trips(optimizer: str, schedule: str, tmp_path: Path) -> None:
    config = load_config(None, [f"optimizer.name={optimizer}", f"schedule.name={schedule}"])
    assert load_config(write(tmp_path / "config.toml", to_toml(config))) == config


def test_odd_values_round_trip(tmp_path: Path) -> None:
    root = tmp_path / """it's my "food" # [11] = \\ \t 食べ物 """
    odd = {
        "data.root": str(root),
        "data.train": "train+mehr Bilder",
        "data.skip_corrupt": True,
        "data.fraction": 1e-10,
        "train.seed": 2**31 - 1,
        "optimizer.name": "adagrad",
        "optimizer.learning_rate": 1e22,
        "optimizer.eps": 1e-10,
        "optimizer.clip_norm": math.inf,
        "optimizer.weight_decay": 0.1 + 0.2,
        "device.platform": "",
    }
    tables: dict[str, dict] = {}
    for name, value in odd.items():
        section, _, key = name.partition(".")
        tables.setdefault(section, {})[key] = value
    defaults = Config()
    changed = {
        section: dataclasses.replace(
            OPTIMIZERS["adagrad"]() if section == "optimizer" else getattr(defaults, section), **values
        )
        for section, values in tables.items()
    }
    config = dataclasses.replace(defaults, **changed)
    loaded = load_config(write(tmp_path / "config.toml", to_toml(config)))
    assert loaded == config
    assert {name: value for name, value in all_settings(loaded) if name in odd} == odd


def test_to_toml_writes_every_setting_out(tmp_path: Path) -> None:
    source = read_toml(write(tmp_path / "config.toml", to_toml(Config())))
    assert {f"{section}.{key}" for section, values in source.values.items() for key in values} == {
        name for name, _ in all_settings(Config())
    }


def test_data_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_config(None, ["data.root=food"]).data.root == str(tmp_path / "food")
    assert load_config(None, ["data.root=~/food"]).data.root == str(tmp_path / "home" / "food")
    assert load_config(write(tmp_path / "a.toml", '[data]\nroot = "food"')).data.root == str(tmp_path / "food")
    assert load_config().data.root == ""


def test_an_integer_is_a_number(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.toml", "[optimizer]\nlearning_rate = 1\nclip_norm = inf"))
    assert config.optimizer == Adam(learning_rate=1.0, clip_norm=math.inf)
    assert type(config.optimizer.learning_rate) is float
    assert hash(config.optimizer) == hash(Adam(learning_rate=1.0, clip_norm=math.inf))


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("train.epochs", '"8"', "an integer, at least 1"),
        ("train.epochs", "8.0", "an integer, at least 1"),
        ("train.epochs", "true", "an integer"),
        ("train.epochs", "0", "at least 1"),
        ("train.epochs", "[8]", "an integer"),
        ("train.seed", "-1", "at least 0"),
        ("train.seed", "2147483648", "below"),
        ("train.parallel", '"threads"', "one of: jit, pmap"),
        ("data.skip_corrupt", "1", "true or false"),
        ("data.skip_corrupt", '"true"', "true or false"),
        ("data.root", "3", "a string"),
        ("data.source", '"web"', "one of: demo, folder"),
        ("data.image_size", "100", "a multiple of 32"),
        ("data.image_size", "0", "at least 32"),
        ("data.fraction", "0", "above 0"),
        ("data.fraction", "1.5", "at most 1"),
        ("model.num_classes", "1", "at least 0, at most 100000, other than 1"),
        ("model.dtype", '"float16"', "one of: float32, bfloat16"),
        ("optimizer.learning_rate", '"1e-3"', "a number"),
        ("optimizer.learning_rate", "true", "a number"),
        ("optimizer.learning_rate", "nan", "a number"),
        ("optimizer.learning_rate", "inf", "a number"),
        ("optimizer.learning_rate", "-1", "at least 0"),
        ("optimizer.clip_norm", "nan", "a number"),
        ("optimizer.clip_norm", "0", "above 0"),
        ("optimizer.clip_norm", "-inf", "above 0"),
        ("optimizer.beta2", "1.0", "below 1"),
        (
            "optimizer.name",
            '"adamx"',
            "one of: sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, amsgrad, nadam, adamw, muon, notes_mom",
        ),
        ("optimizer.name", "5", "one of: sgd"),
        ("optimizer.name", '["adam"]', "one of: sgd"),
        (
            "schedule.name",
            '"cosine"',
            "one of: constant, warmup_cosine, step, exponential, inverse_sqrt, one_cycle, plateau",
        ),
        ("schedule.name", "{a = 1}", "one of: constant"),
        ("device.platform", '"cuda"', "cpu, gpu, tpu"),
    ],
)
def test_a_wrong_value_is_refused_by_file_name_and_mend(name: str, value: str, takes: str, tmp_path: Path) -> None:
    section, _, key = name.partition(".")
    file = write(tmp_path / "mine.toml", f"[{section}]\n{key} = {value}\n")
    with pytest.raises(UserError) as error:
        load_config(file)
    message = str(error.value)
    assert message.startswith(f"mine.toml: {name} = ")
    assert takes in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\nepochs = 3", r"^mine\.toml: no section 'trian': did you mean train\?$"),
        ("[train]\nepoch = 3", r"^mine\.toml: no setting train\.epoch: did you mean train\.epochs\?$"),
        ("[optimizer]\nlr_rate = 3", r"^mine\.toml: no setting optimizer\.lr_rate: did you mean optimizer\."),
        ("[optimizer]\nmomentun = 0.9", r"no setting optimizer\.momentun: did you mean optimizer\.momentum\?$"),
        ("[train]\nzzz = 3", r"^mine\.toml: no setting train\.zzz$"),
        ("[zzz]", r"^mine\.toml: no section 'zzz'$"),
        ("epochs = 3", r"mine\.toml: epochs = 3 stands outside a section"),
        ("[[train]]\nepochs = 3", r"mine\.toml: train = .* stands outside a section"),
        ("lr = 3", r"^mine\.toml: lr = 3 stands outside a section; .*; did you mean optimizer\.learning_rate\?$"),
        ("[train]\nlr = 3", r"^mine\.toml: no setting train\.lr: did you mean optimizer\.learning_rate\?$"),
        ('[train]\n"a\\nb" = 3', r"^mine\.toml: no setting train\.a\\x0ab$"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_what_was_meant(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path / "mine.toml", text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[train\nepochs = 3", r"line 1 \(\[train\): a \] is missing \(write \[SECTION\]\)"),
        ("[train]\nepochs = 3\nepochs = 4\n", r"line 3 \(epochs = 4\): epochs is set twice: remove one"),
        ("[train]\n[data]\n[train]\n", r"line 3 \(\[train\]\): \[train\] is opened twice: write what belongs to it"),
        ('[data]\nroot = "C:\\Users\\me"', r"line 2 \(root = .C:\\Users\\me.\): .* in single quotes, or with /$"),
        ("[data]\nroot = C:\\food", r"line 2 .*: a text stands in quotation marks: 'C:\\food'"),
        ("[data]\nroot = ~/food  # mine", r"line 2 .*: a text stands in quotation marks: '~/food'"),
        ('[data]\nroot = "food\n', r"line 2 .*: a quotation mark is missing at the end of a text"),
        ("[data]\nskip_corrupt = True", r"line 2 \(skip_corrupt = True\): TOML writes true"),
        ("[data]\nskip_corrupt = no", r"line 2 \(skip_corrupt = no\): TOML writes false"),
        ("[train]\nepochs 3", r"line 2 \(epochs 3\): an = is missing after the name"),
        ("[train]\nepochs = 3 4", r"line 2 .*: something stands behind the value: write one setting a line"),
        ("[train]\nepochs = 08", r"line 2 .*: a number does not begin with 0"),
        ("[train]\nepochs =", r"line 2 .*: a value is missing"),
        ("[optimizer]\nlearning_rate = 0,5", r"line 2 .*: a number has a point, not a comma"),
        ("[loss]\nclass_weights = [1 2]", r"line 2 .*: a \] is missing .*, or a comma in it"),
        ("train:\n  epochs: 3", r"line 1 \(train:\): this is not TOML but JSON, YAML or the like"),
        ('{"train": {"epochs": 3}}', r"line 1 .*: this is not TOML but JSON, YAML or the like"),
        ("[data]\nroot = 'a\x1bb'", r"line 2 \(root = 'a\\x1bb'\): it holds a character that TOML does not allow"),
        ("[train]\nepochs = " + "[" * 5000, r"its brackets are nested too deeply; a setting's list has one \["),
        ("[train]\nepochs = " + "9" * 5000, r"it holds a number of over 4,300 digits; write a smaller one"),
        ("[train]\n" + "a" * 50_000, r"line 2 \(a{100,200}.*: an = is missing"),
    ],
)
def test_what_is_not_toml_is_said_with_line_and_mend(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^\S*mine\.toml is not TOML: {reason}") as error:
        load_config(write(tmp_path / "mine.toml", text))
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 3\r\n")
    assert load_config(tmp_path / "a.toml").train.epochs == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_said_to_be_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes("[train]\nepochs = 3\n".encode(encoding))
    with pytest.raises(
        UserError, match=r"a\.toml is not TOML: it is UTF-16 text \(Windows' \"Unicode\"\); save it as UTF-8$"
    ):
        load_config(tmp_path / "a.toml")


def test_what_is_far_too_long_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.toml is not a configuration: it has 2,000,000 bytes"):
        load_config(write(tmp_path / "a.toml", "#" * 2_000_000))


# Limits.


@pytest.mark.parametrize(("section", "variant", "field"), SETTINGS)
def test_every_number_has_an_upper_limit_that_help_states(
    section: str, variant: type, field: dataclasses.Field
) -> None:
    if kind_of(field) not in (int, float, tuple) or field.metadata["accepts"].infinite:
        return
    assert "at most" in describe(field) or "below" in describe(field)
    with pytest.raises(UserError, match=r"at most|below"):
        dataclasses.replace(variant(), **{field.name: (1e31,) if kind_of(field) is tuple else 10**31})


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("train.epochs=1000000000000", "at most 1000000"),
        ("train.batch_size=1000000000", "at most 1000000"),
        ("data.image_size=32000", "at most 2048"),
        ("checkpoint.keep_best=1000000", "at most 10000"),
        ("train.seed=3000000000", "below 2147483648"),
        ("landscape.samples=1000000000", "at most 1000000"),
    ],
)
def test_a_number_too_large_is_refused_with_its_limit(setting: str, limit: str) -> None:
    with pytest.raises(UserError, match=rf"^overrides: .*: it takes an integer, .*{limit}"):
        load_config(None, [setting])


def test_a_schedules_steps_are_counted_in_int32() -> None:
    with pytest.raises(UserError, match=r"schedule\.step_size = 3000000000: it takes .*, at most 1000000000"):
        load_config(None, ["schedule.name=step", "schedule.step_size=3000000000"])
    train = load_config(None, ["train.epochs=1000000"]).train
    assert train.total_steps(2147) == 2_147_000_000
    with pytest.raises(
        UserError, match=r"train\.epochs = 1000000 of 2148 steps each .* set train\.epochs to 999759 or less"
    ):
        train.total_steps(2148)


def test_a_batch_has_at_most_as_many_parts_as_pictures() -> None:
    assert load_config(None, ["train.batch_size=8", "train.accumulate=8"]).train.part_size == 1
    with pytest.raises(
        UserError, match=r"train\.accumulate = 9 .* train\.batch_size = 8 .*; set train\.accumulate to 8 or"
    ):
        load_config(None, ["train.batch_size=8", "train.accumulate=9"])


# Texts that no file can hold.


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("a\0b", r"it holds a control character, \\x00"),
        ("C:\food", r"it holds a control character, \\x0c, .* in single quotes"),
        ("C:\temp", r"it holds a control character, \\x09, .* in single quotes"),
        ("\udcca\udcb3", "its bytes are not UTF-8, .*; give a folder another name, or a link"),
    ],
)
def test_a_folder_that_config_toml_cannot_name(root: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^overrides: data\.root = '\S*': .*{reason}"):
        load_config(None, [f"data.root={root}"])


@pytest.mark.parametrize("root", ["https://food.org/a.zip", "http://food.org", "s3://food", "gs:/"])
def test_pictures_elsewhere(root: str) -> None:
    with pytest.raises(UserError, match=r"data\.root = .*only gs://BUCKET/|names no bucket"):
        load_config(None, [f"data.root={root}"])


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration file .*missing\.toml"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(str(tmp_path) + "/")
    (tmp_path / "latin.toml").write_bytes('[data]\nroot = "Gemüse"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.toml is not TOML"):
        load_config(tmp_path / "latin.toml")


@pytest.mark.parametrize("path", ["~no_such_user_of_this_machine/a.toml", None])
def test_an_unknown_home_folder_is_the_users_mistake(path: str | None) -> None:
    with pytest.raises(UserError, match="no_such_user"):
        load_config(path, ["data.root=~no_such_user_of_this_machine/food"])


# Recipes.


def test_the_recipes_load() -> None:
    assert {"demo", "hw3"} <= recipes().keys()
    demo, hw3 = load_config("demo"), load_config("hw3")
    assert demo.data.source == "demo"
    assert hw3.data.source == "folder"
    assert hw3.data.root == str(Path("hw3_data").absolute())
    assert hw3.model.num_classes == 11
    notes = dataclasses.replace(hw3, data=Config().data, model=Config().model)
    assert notes == Config()


def test_an_unknown_recipe() -> None:
    with pytest.raises(UserError, match=r"no recipe 'hw33': did you mean hw3\?; there are: demo, hw3"):
        load_config("hw33")


def test_a_name_is_a_recipe_even_where_a_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "demo", "[train]\nepochs = 99")
    write(tmp_path / "demo.toml", "[train]\nepochs = 77")
    assert load_config("demo").train.epochs != 99
    assert load_config("demo.toml").train.epochs == 77


# Overrides.


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", r"override 'train\.epochs': write SECTION\.FIELD=VALUE"),
        ("train.epochs=3.0", r"overrides: train\.epochs = '3\.0': it takes an integer"),
        ("train.epochs=", r"train\.epochs = '': it takes an integer"),
        ("data.skip_corrupt=True", r"data\.skip_corrupt = 'True': it takes true or false"),
        ("optimizer.learning_rate=nan", r"optimizer\.learning_rate = nan: it takes a number"),
        ("optimizer.name=adamx", r"optimizer\.name = 'adamx': it takes one of: sgd, "),
        ("train.epoch=3", r"overrides: no setting train\.epoch: did you mean train\.epochs\?"),
        ("epochs=3", r"overrides: no section 'epochs'"),
    ],
)
def test_a_mistake_in_an_override(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


def test_an_override_keeps_what_follows_the_first_equals_sign(tmp_path: Path) -> None:
    assert load_config(None, [f"data.root={tmp_path}/a=b"]).data.root == f"{tmp_path}/a=b"
    assert load_config(None, ["optimizer.clip_norm=inf"]).optimizer.clip_norm == math.inf


# Later sources win.


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[train]\nepochs = 3\nbatch_size = 16")
    config = load_config(file, ["train.epochs=4", "train.epochs=5"])
    assert config.train == TrainConfig(epochs=5, batch_size=16)


SGD_FILE = '[optimizer]\nname = "momentum"\nlearning_rate = 0.5\nmomentum = 0.8\nweight_decay = 0.25\nclip_norm = 2'


def test_another_optimizer_drops_what_was_said_of_the_earlier_one_but_clip_norm(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", SGD_FILE)
    assert load_config(file, ["optimizer.name=adam"]).optimizer == Adam(clip_norm=2.0)
    assert load_config(file, ["optimizer.name=adam", "optimizer.beta1=0.5"]).optimizer == Adam(clip_norm=2.0, beta1=0.5)
    # Even a setting that both have.
    nesterov = load_config(file, ["optimizer.name=nesterov"]).optimizer
    assert nesterov == OPTIMIZERS["nesterov"](clip_norm=2.0)


def test_the_same_optimizer_again_drops_nothing(tmp_path: Path) -> None:
    optimizer = load_config(write(tmp_path / "a.toml", SGD_FILE), ["optimizer.name=momentum"]).optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip_norm) == (0.5, 0.25, 2.0)


def test_the_order_inside_one_source_does_not_matter() -> None:
    flags = ["optimizer.learning_rate=0.5", "optimizer.clip_norm=3", "optimizer.name=sgd"]
    expected = OPTIMIZERS["sgd"](learning_rate=0.5, clip_norm=3.0)
    assert load_config(None, flags).optimizer == load_config(None, flags[::-1]).optimizer == expected


def test_another_schedule_drops_what_was_said_of_the_earlier_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", '[schedule]\nname = "step"\ngamma = 0.5\nstep_size = 7')
    assert load_config(file, ["schedule.name=exponential"]).schedule == SCHEDULES["exponential"]()
    assert load_config(file, ["schedule.name=constant"]).schedule == Constant()
    assert load_config(file).schedule == SCHEDULES["step"](gamma=0.5, step_size=7)


def test_a_foreign_setting_of_an_earlier_source_is_dropped(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", '[optimizer]\nname = "adam"\nbeta1 = 0.5')
    assert load_config(file, ["optimizer.name=sgd"]).optimizer == OPTIMIZERS["sgd"]()
    # Foreign to the adam that the file did not even choose: still dropped.
    file = write(tmp_path / "b.toml", "[optimizer]\nmomentum = 0.5")
    assert load_config(file, ["optimizer.name=nesterov"]).optimizer == OPTIMIZERS["nesterov"]()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", ["optimizer.momentum=0.9"], r"^overrides: optimizer 'adam' has no 'momentum'; its settings: learning"),
        ("[optimizer]\nmomentum = 0.9", [], r"^a\.toml: optimizer 'adam' has no 'momentum'"),
        ('[optimizer]\nname = "sgd"\nbeta1 = 0.5', [], r"^a\.toml: optimizer 'sgd' has no 'beta1'"),
        ('[optimizer]\nname = "sgd"', ["optimizer.beta1=0.5"], r"^overrides: optimizer 'sgd' has no 'beta1'"),
        ("", ["optimizer.name=sgd", "optimizer.beta1=0.5"], r"^overrides: optimizer 'sgd' has no 'beta1'"),
        ("", ["schedule.gamma=0.5"], r"^overrides: schedule 'constant' has no 'gamma'; its settings: warmup_ratio$"),
        ("", ["loss.name=mse", "loss.gamma=2"], r"^overrides: loss 'mse' has no 'gamma'; its settings: none"),
    ],
)
def test_a_foreign_setting_of_the_source_that_chose_or_a_later_one_is_refused(
    text: str, overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path / "a.toml", text), overrides)


def test_three_sources_win_one_after_the_other(tmp_path: Path) -> None:
    run = read_toml(write(tmp_path / "run.toml", to_toml(load_config(None, ["optimizer.beta1=0.5", "train.epochs=3"]))))
    file = read_toml(write(tmp_path / "file.toml", SGD_FILE + "\n[train]\nepochs = 4\npatience = 1"))
    config = merge(run, file, read_texts([("optimizer.name", "adam"), ("train.patience", "2")]))
    assert config.optimizer == Adam(clip_norm=2.0)
    assert config.train == TrainConfig(epochs=4, patience=2)


def test_kinds_are_those_of_the_annotations() -> None:
    for _, _, field in (param.values for param in SETTINGS):
        annotated = get_args(field.type)[0] if isinstance(field.type, UnionType) else field.type  # numbers or a word
        assert kind_of(field) is (get_origin(annotated) or annotated)
