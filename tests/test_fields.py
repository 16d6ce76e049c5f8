"""Settings of several numbers (`loss.class_weights`): TOML, flags, round trip, refusals, help."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from jaxfood import cli, train
from jaxfood.config import LOSSES, Config, load_config, to_toml
from jaxfood.config.fields import Section, describe, setting
from jaxfood.config.loading import merge
from jaxfood.config.loss import CrossEntropy, Focal
from jaxfood.errors import UserError
from jaxfood.runs.resume import check_resumable

TAKES = "it takes numbers, at least 0, at most 1000000, or balanced"

pytestmark = pytest.mark.smoke


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def weights(config: Config) -> Any:
    return config.loss.class_weights  # type: ignore[attr-defined]


# What is read.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2.5,3", (1.0, 2.5, 3.0)),
        (" 1 , 2 ", (1.0, 2.0)),
        ("7", (7.0,)),
        ("0,1e-3", (0.0, 0.001)),
        ("", ()),
        ("  ", ()),
    ],
)
def test_a_flags_numbers_stand_between_commas(text: str, expected: tuple[float, ...]) -> None:
    for config in (
        load_config(None, [f"loss.class_weights={text}"]),
        merge(cli.Parser("train", "").parse_with_settings([f"--loss.class_weights={text}"])[1]),
        merge(cli.Parser("train", "").parse_with_settings(["--loss.class_weights", text])[1]),
    ):
        assert weights(config) == expected
        assert all(type(number) is float for number in weights(config))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[1, 2.5, 3]", (1.0, 2.5, 3.0)), ("[\n  0.1,\n  2,\n]", (0.1, 2.0)), ("[]", ())],
)
def test_a_files_numbers_are_an_array(text: str, expected: tuple[float, ...], tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.toml", f"[loss]\nclass_weights = {text}\n"))
    assert weights(config) == expected
    assert all(type(number) is float for number in weights(config))


def test_a_section_made_by_hand_takes_any_sequence_and_stays_hashable() -> None:
    by_list, by_tuple = Focal(class_weights=[1, 2]), Focal(class_weights=(1.0, 2.0))  # type: ignore[arg-type]
    assert (by_list, hash(by_list)) == (by_tuple, hash(by_tuple))
    assert by_list != Focal(class_weights=(2.0, 1.0))
    assert dataclasses.replace(by_list, gamma=1.0).class_weights == (1.0, 2.0)


def test_a_default_may_be_numbers_too() -> None:
    @dataclasses.dataclass(frozen=True)
    class Lights(Section):
        section = "lights"
        levels: tuple[float, ...] = setting((0.5, math.inf), "how bright", above=0, infinite=True)

    (field,) = dataclasses.fields(Lights)
    assert Lights().levels == (0.5, math.inf)
    assert describe(field) == "numbers, above 0"
    with pytest.raises(UserError, match=r"^lights\.levels = \[1, 0\]: it takes numbers, above 0$"):
        Lights(levels=[1, 0])  # type: ignore[arg-type]


# Round trip.


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("text", ["", "1", "0.1,0.30000000000000004,1e5,1e-300,0"])
def test_config_toml_round_trips(name: str, text: str, tmp_path: Path) -> None:
    config = load_config(None, [f"loss.name={name}", f"loss.class_weights={text}"])
    assert load_config(write(tmp_path / "config.toml", to_toml(config))) == config


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_round_trips(name: str, tmp_path: Path) -> None:
    config = load_config(None, [f"loss.name={name}"])
    assert config.loss == LOSSES[name]()
    assert load_config(write(tmp_path / "config.toml", to_toml(config))) == config


# Which source wins.


def test_a_later_source_replaces_all_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[loss]\nclass_weights = [1, 2, 3]\n")
    assert weights(load_config(file, ["loss.class_weights=4,5"])) == (4, 5)
    assert weights(load_config(file, ["loss.class_weights="])) == ()
    assert load_config(file, ["loss.label_smoothing=0.1"]).loss == CrossEntropy(
        label_smoothing=0.1, class_weights=(1, 2, 3)
    )


def test_another_loss_drops_what_was_said_of_the_earlier_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", '[loss]\nname = "focal"\ngamma = 1\nclass_weights = [1, 2]\n')
    assert load_config(file).loss == Focal(gamma=1.0, class_weights=(1.0, 2.0))
    for name, loss in LOSSES.items():
        if name != "focal":
            assert load_config(file, [f"loss.name={name}"]).loss == loss()
    assert load_config(file, ["loss.name=focal"]).loss == Focal(gamma=1.0, class_weights=(1.0, 2.0))


def test_resume_refuses_other_weights_by_name() -> None:
    before = load_config(None, ["loss.class_weights=1,2"])
    check_resumable(before, load_config(None, ["loss.class_weights=1,2"]))
    with pytest.raises(UserError, match=r"cannot change loss\.class_weights \(\(1\.0, 2\.0\) -> \(1\.0, 3\.0\)\)"):
        check_resumable(before, load_config(None, ["loss.class_weights=1,3"]))
    with pytest.raises(UserError, match=r"loss\.class_weights \(\(1\.0, 2\.0\) -> unset\).* loss\.name"):
        check_resumable(before, load_config(None, ["loss.name=mse"]))


# Refusals.


@pytest.mark.parametrize(
    "text",
    ["1,,2", "1,2,", ",", "one", "1;2", "1 2", "[1, 2]", "-1,2", "1,nan", "inf,1", "1,1e999", "true,false"],
)
def test_a_wrong_flag(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match=r"^command line: loss\.class_weights = .*: it takes numbers, at least 0, at most 1000000, or balanced$",
    ):
        train.main([f"--loss.class_weights={text}"])
    with pytest.raises(UserError, match=r"^overrides: loss\.class_weights = "):
        load_config(None, [f"loss.class_weights={text}"])


@pytest.mark.parametrize(
    "text",
    ['"1,2"', "1", "2.5", "true", "[true, false]", '["1", "2"]', "[[1, 2]]", "[1, -2]", "[nan]", "[1, inf]", "{a = 1}"],
)
def test_a_wrong_value_in_a_file(text: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", f"[loss]\nclass_weights = {text}\n")
    with pytest.raises(
        UserError,
        match=r"^mine\.toml: loss\.class_weights = .*: it takes numbers, at least 0, at most 1000000, or balanced$",
    ):
        load_config(file)


def test_an_integer_too_large_for_a_number_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"loss\.class_weights = .*: it takes numbers, at least 0, at most 1000000, or balanced"
    ):
        CrossEntropy(class_weights=(10**400, 1))


@pytest.mark.parametrize("value", [[1, 2], (1.0,), []])
def test_numbers_are_no_number(value: Any) -> None:
    with pytest.raises(UserError, match=r"loss\.gamma = .*: it takes a number, at least 0"):
        Focal(gamma=value)


@pytest.mark.parametrize(
    ("override", "takes"),
    [
        ("cross_entropy label_smoothing=1.5", "a number, at least 0, at most 1"),
        ("cross_entropy label_smoothing=-0.1", "at least 0"),
        ("focal gamma=-1", "a number, at least 0"),
    ],
)
def test_a_loss_out_of_range(override: str, takes: str) -> None:
    name, option = override.split()
    with pytest.raises(UserError, match=rf"loss\.{option.partition('=')[0]} = .*: it takes .*{takes}"):
        load_config(None, [f"loss.name={name}", f"loss.{option}"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.class_weight=1,2"], r"no setting loss\.class_weight: did you mean loss\.class_weights\?"),
        (["loss.name=mse", "loss.class_weights=1,2"], r"loss 'mse' has no 'class_weights'; its settings: none"),
        (["loss.gamma=1"], r"loss 'cross_entropy' has no 'gamma'; its settings: label_smoothing, class_weights"),
        (["loss.name=hinge"], r"loss\.name = 'hinge': it takes one of: cross_entropy, mse, focal$"),
    ],
)
def test_a_foreign_loss_setting(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


# Help.


def test_a_word_in_place_of_numbers(tmp_path: Path) -> None:
    """In a file, in a flag and in a run's own config.toml; misspelled it is refused with what is meant."""
    file = write(tmp_path / "a.toml", '[loss]\nclass_weights = "balanced"\n')
    for config in (load_config(file), load_config(None, ["loss.class_weights=balanced"])):
        assert weights(config) == "balanced"
        assert load_config(write(tmp_path / "b.toml", to_toml(config))) == config
    with pytest.raises(UserError, match=r"class_weights = 'Balanced': .*, or balanced; write balanced$"):
        load_config(None, ["loss.class_weights=Balanced"])
    with pytest.raises(UserError, match=r"optimizer\.learning_rate = 'balanced'"):
        load_config(None, ["optimizer.learning_rate=balanced"])


def test_resume_takes_balanced_for_numbers_that_the_run_has() -> None:
    """Which these are is compared once the pictures are counted."""
    numbers, balanced = (
        load_config(None, ["loss.class_weights=1,2"]),
        load_config(None, ["loss.class_weights=balanced"]),
    )
    check_resumable(numbers, balanced)
    with pytest.raises(UserError, match=r"loss\.class_weights \(balanced -> \(1\.0, 2\.0\)\)"):
        check_resumable(balanced, numbers)


def test_help_says_what_the_losses_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "a weight for each class, separated by commas; empty: all 1; balanced: from the training pictures,",
        '(numbers, at least 0, at most 1000000, or balanced; default: ""',
        "one of: cross_entropy, mse, focal (default: cross_entropy)",
        "share of the target spread evenly over all classes (a number, at least 0, at most 1; default: 0.0",
        "one of: constant, warmup_cosine, step, exponential, inverse_sqrt, one_cycle, plateau (default: constant)",
        "decay biases and BatchNorm's parameters too, as PyTorch does (true or false; default: true)",
    ):
        assert part in text, part
