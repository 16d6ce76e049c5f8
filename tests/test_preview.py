"""A look at a training before it begins: the page, what the pictures show, and that nothing is trained."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import NUM_CLASSES
from PIL import Image

from jaxfood import preview
from jaxfood.before_training import range_test, sheets, survey
from jaxfood.before_training.sheets import see
from jaxfood.config import Config, load_config
from jaxfood.config.augment import AugmentConfig
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.optim.schedules import make_schedule
from jaxfood.report.page import Page
from jaxfood.training import step
from jaxfood.training.state import TrainState

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture
def settings(tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of a training on tiny pictures, for an empty current directory."""
    monkeypatch.chdir(tmp_path)
    given = ("data.root", tiny_food), ("data.image_size", 32), ("train.batch_size", 8), ("logging.progress", "false")
    return [word for name, value in given for word in (f"--{name}", str(value))]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.smoke
def test_the_page_and_its_pictures(settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview.main([*settings, "--out", "out/new", "--schedule.name", "warmup_cosine", "--augment.flip", "true"])
    out = tmp_path / "out" / "new"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "21 training and 9 validation pictures of 3 classes, 32 px; 8 epochs of 3 steps, 8 pictures a step"
    )
    assert said[1:3] == ["class    train   valid", " 0 0         7       3"]
    assert said[-2:] == [
        "warmup_cosine: the learning rate is 0 at step 0, at most 0.0003 (step 2), 0 at the last, step 23",
        "out/new/preview.md",
    ]
    assert {path.name for path in out.iterdir()} == {
        *("preview.md", "preview.json", "schedule.csv"),
        *("one_picture.png", "many_pictures.png", "schedule.png"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no run
    page = (out / "preview.md").read_text()
    assert "     0 0         7       3\n" in page
    assert all(f"]({path.name})" in page for path in out.glob("*.png"))
    assert "no augmentation" not in page
    header, *rows = table(out / "schedule.csv")
    assert header == ["step", "learning_rate"]
    config = load_config(None, ("schedule.name=warmup_cosine",))
    expected = jax.vmap(make_schedule(config.schedule, config.optimizer, 24))(np.arange(24))
    np.testing.assert_allclose(np.float32(rows), np.stack([np.arange(24), expected], axis=1), rtol=1e-6)
    assert json.loads((out / "preview.json").read_text())["schedule"]["learning_rate"][2] == pytest.approx(3e-4)


@pytest.mark.slow
def test_a_sheet_shows_what_the_update_gets(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tiny_config, augment=AugmentConfig(flip=True, crop=4, cutmix=1.0))
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    batch = {"image": images, "position": np.arange(8) + 5, "label": np.arange(8) % 3}
    monkeypatch.setattr(step, "add_update", lambda state, sums, batch, axis_name: batch["image"])
    state = TrainState.create(config, init_variables(config), total_steps=6)
    options = {"config": config.augment, "seed": config.train.seed, "steps_per_epoch": 3}
    update_gets = step.add_augmented_update(state, {}, batch, **options)
    np.testing.assert_array_equal(see(config, batch, 0)["image"], update_gets)
    assert (see(replace(config, augment=AugmentConfig(flip=True, crop=4)), batch, 0)["image"] != update_gets).any()
    assert (see(config, batch, 1)["image"] != update_gets).any()
    np.testing.assert_array_equal(see(tiny_config, batch, 0)["image"], images)


@pytest.mark.slow
def test_the_sheets_hold_the_first_batch(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn with class names that no font may have and that mathematics would be made of."""
    drawn = {}
    draw = sheets._draw

    def spy(page: Page, name: str, caption: str, images: np.ndarray, labels: list[list[str]], columns: int) -> object:
        drawn[name] = (images, labels, caption)
        return draw(page, name, caption, images, labels, columns)

    monkeypatch.setattr(sheets, "_draw", spy)
    splits = load_splits(tiny_config.data, NUM_CLASSES, seed=0, progress=False)
    splits = replace(splits, classes=("食べ物", r"$\nothing$", "a\udce4 *b*"))
    config = replace(tiny_config, augment=AugmentConfig(flip=True, crop=4, mixup=1.0))
    page = Page(tmp_path, "preview", "x", prefix="")
    sheets.draw_sheets(page, config, splits)
    images, labels, _ = drawn["many_pictures"]
    assert images.shape == (8, 32, 32, 3)
    names = {f"{label} {name}" for label, name in enumerate(splits.classes)}
    shares = [[int(line.partition("% ")[0]) for line in label] for label in labels]
    assert all(own + other in (99, 100, 101) and 0 < own < 100 for own, other in shares)
    assert {line.partition("% ")[2] for label in labels for line in label} <= names
    images, labels, caption = drawn["one_picture"]
    assert labels == [["the picture"], *([f"epoch {epoch}"] for epoch in range(1, 12))]
    assert len({image.tobytes() for image in images[1:]}) >= 5  # question 1 of the homework's report
    assert "*b*" not in caption
    with Image.open(tmp_path / "one_picture.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    height, width, _ = pixels.shape
    assert width > 4 * 150
    assert height > 3 * 150
    assert (pixels[:8] == 255).mean() > 0.5  # the labels' own line, above the pictures
    assert (pixels[height // 2] == 255).mean() < 0.4


def test_without_augmentation_a_line_says_so(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview.main([*settings, "--out", "out", "--schedule.name", "plateau", "--train.batch_size", "64"])
    said = capsys.readouterr().out
    assert "no augmentation is set (augment): the network will see each picture the same in every epoch\n" in said
    assert "plateau: the learning rate is 0.0003 at step 0, and so to the last, step 7; how often it" in said
    assert "; 8 epochs of 1 step, 64 pictures a step\n" in said
    assert "how often it is multiplied by 0.1, valid_loss decides\n" in said
    assert "the same in every epoch: no augmentation is set" in (tmp_path / "out" / "preview.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --out"),
        (["--out", "taken"], r"cannot write to taken \(it is a file\); choose another --out"),
        (["--out", "gs://bucket/x"], "^--out gs://bucket/x: only what is on this machine will do here"),
        (["--out", "x", "--find-lr"], "did you mean --find_lr"),
        (["--out", "x", "--train.batchsize", "3"], "train.batchsize"),
        (["--out", "x", "--workdir", "y"], "unknown argument '--workdir'"),
        (["--out", "x", "--loss.class_weights", "1,2"], r"loss\.class_weights"),
        (["--out", "x", "--data.valid", "nowhere"], r"data\.valid = 'nowhere'"),
        (["--out", "x", "--device.count", "99"], r"device\.count = 99"),
    ],
)
def test_mistakes_are_named(settings: list[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=message):
        preview.main([*settings, *arguments])
    assert not (tmp_path / "x").exists()


def test_the_demo_recipe_is_taken_where_nothing_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    monkeypatch.setattr(survey, "preview", lambda config, out, find_lr: taken.append((config.data.source, find_lr)))
    preview.main(["--out", str(tmp_path), "--find_lr"])
    assert taken == [("demo", True)]
    assert capsys.readouterr().out.startswith("no --config and no --data setting: taking the demo recipe")
    preview.main(["--out", str(tmp_path), "--config", "hw3"])
    assert taken[1:] == [("folder", False)]


def test_characters_that_no_font_has_are_said(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(survey, "draw_sheets", lambda *_: ("湯", "麵"))
    preview.main([*settings, "--out", "out"])
    assert "no font here has 湯, 麵, a box in the pictures: install one that has (Noto Sans CJK)\n" in (
        capsys.readouterr().out
    )


def test_other_processes_are_left_out_and_said(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(survey, "preview", lambda *_, **__: None)
    preview.main([*settings, "--out", "out", "--distributed.coordinator", "auto"])
    assert capsys.readouterr().out == "preview looks in this process alone: distributed.coordinator is for train\n"


@pytest.mark.slow
def test_find_lr(settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*settings, "--optimizer.name", "momentum", "--device.count", "1", "--find_lr", "--out"]
    for out in ("a", "b"):
        preview.main([*arguments, out])
    suggested = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("suggested:"))
    numbers = json.loads((tmp_path / "a" / "preview.json").read_text())["learning_rates"]
    assert suggested.startswith(f"suggested: --optimizer.learning_rate {numbers['suggestion']:g}, ")
    assert suggested.endswith("; this training has 0.001")
    header, *rows = table(tmp_path / "a" / "learning_rates.csv")
    assert header == ["step", "learning_rate", "loss", "smoothed"]
    assert float(rows[0][1]) == pytest.approx(1e-7)
    assert len(rows) == len(numbers["loss"])
    for name in ("learning_rates.csv", "learning_rates.png", "preview.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("losses", [[float("nan")], [2.3] * 100])
def test_find_lr_without_a_suggestion(
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    losses: list[float],
) -> None:
    training = SimpleNamespace(compile=lambda: None, losses=lambda: iter(losses))
    monkeypatch.setattr(range_test, "Training", lambda *_, **__: training)
    preview.main([*settings, "--out", "out", "--find_lr"])
    said = capsys.readouterr().out
    assert "no learning rate to suggest: the loss never fell from its " in said
    assert ("it diverged at 1.0e-07" if len(losses) == 1 else "it did not diverge up to 1.0e+01") in said
    assert "keep --optimizer.learning_rate 0.0003" in said
    assert (tmp_path / "out" / "learning_rates.png").exists()
