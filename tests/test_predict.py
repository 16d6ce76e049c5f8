import csv
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from conftest import NUM_CLASSES, NUM_TEST

from jaxfood import convert, predict
from jaxfood.config import Config, load_config, to_toml
from jaxfood.config.sections import DeviceConfig
from jaxfood.data.augment import augment
from jaxfood.data.decode import decode_picture
from jaxfood.data.index import index_pictures
from jaxfood.data.records import PictureRecord
from jaxfood.errors import UserError
from jaxfood.inference import probabilities
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.networks import init_variables, predict_logits
from jaxfood.runs.directory import load_run
from jaxfood.runs.pictures import write_pictures
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, tiny_food: Path):
    """Makes runs of fresh weights, with a batch of 4: the last of 5 test pictures stands alone."""

    def make(seed: int = 0, num_classes: int = NUM_CLASSES, settings: tuple[str, ...] = (), scale: float = 1) -> Path:
        config = load_config(
            None,
            (
                f"data.root={tiny_food}",
                "data.image_size=32",
                f"model.num_classes={num_classes}",
                "train.batch_size=4",
                f"train.seed={seed}",
                *settings,
            ),
        )
        workdir = tmp_path_factory.mktemp("runs") / "run"
        variables = init_variables(config)
        params = jax.tree.map(lambda leaf: scale * leaf, variables["params"])  # fresh ones answer all pictures alike
        begin_from(workdir, config, variables | {"params": params})
        return workdir

    return make


@pytest.fixture(scope="module")
def run(make_run) -> Path:
    return make_run()


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def by_hand(run: Path, folder: Path) -> dict[str, int]:
    """The class of each picture, one at a time."""
    model, variables, config = load_run(run)
    images = {path.stem: decode_picture(path, config.data.image_size) for path in folder.iterdir()}
    return {
        stem: int(np.argmax(model.apply(variables, image[None].astype(np.float32) / 255, train=False)))
        for stem, image in images.items()
    }


@pytest.mark.smoke
def test_one_row_for_each_picture_the_last_batch_of_one_included(run: Path, tiny_food: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    predict.main([str(run), "--images", str(tiny_food / "test"), "--out", str(out)])
    table = rows(out)
    assert table[0] == ["Id", "Category"]
    assert [row[0] for row in table[1:]] == [f"{number + 1:04}" for number in range(NUM_TEST)]
    assert {row[0]: int(row[1]) for row in table[1:]} == by_hand(run, tiny_food / "test")


def test_a_single_picture(run: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "submission.csv"
    predict.main([str(run), "--images", str(tiny_food / "test" / "0003.jpg"), "--out", str(out)])
    label = by_hand(run, tiny_food / "test")["0003"]
    assert rows(out)[1:] == [["0003", str(label)]]
    header, line, *_ = capsys.readouterr().out.splitlines()  # a table too, as they are few
    assert header.split() == ["picture", "1st", "2nd", "3rd"]
    assert line.split()[0] == "0003.jpg"
    assert line.split()[2] == str(label)


def test_of_many_pictures_no_table(
    run: Path, tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "FEW", NUM_TEST - 1)
    predict.main([str(run), "--images", str(tiny_food / "test"), "--out", str(tmp_path / "out.csv")])
    assert "%" not in capsys.readouterr().out


def test_ids_by_index_and_the_line_that_says_so(
    run: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    for name in ("2.jpg", "10.jpg", "soup.jpg"):
        shutil.copy(tiny_food / "test" / "0001.jpg", folder / name)
    out = tmp_path / "submission.csv"
    predict.main([str(run), "--images", str(folder), "--out", str(out)])
    assert [row[0] for row in rows(out)[1:]] == ["0002", "0010", "soup"]
    assert "Ids are 0010 to soup by --ids stem" in capsys.readouterr().out
    predict.main([str(run), "--images", str(folder), "--out", str(out), "--ids", "index"])
    assert [row[0] for row in rows(out)[1:]] == ["0000", "0001", "0002"]


def test_class_folders_need_not_be_known(run: Path, tiny_food: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation" / "Nobody knows this class"
    folder.mkdir(parents=True)
    shutil.copy(tiny_food / "test" / "0001.jpg", folder / "0001.jpg")
    predict.main([str(run), "--images", str(tmp_path / "evaluation"), "--out", str(tmp_path / "out.csv")])
    assert len(rows(tmp_path / "out.csv")) == 2


def test_several_runs_answer_by_the_mean_of_their_probabilities(make_run, run: Path, tiny_food: Path) -> None:
    other = make_run(seed=1)
    index = index_pictures(tiny_food / "test", labelled=False)
    alone = [predict_probabilities([one], index, progress=False) for one in (run, other)]
    together = predict_probabilities([run, other], index, progress=False)
    assert together.shape == (NUM_TEST, NUM_CLASSES)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-7)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


@pytest.fixture(scope="module")
def augmented(make_run) -> Path:
    """A run that was trained on changed pictures."""
    return make_run(settings=("augment.flip=true", "augment.crop=4"), scale=1.7)


def views_by_hand(run: Path, path: Path, tta: int) -> np.ndarray:
    """Half the plain view's probabilities and half the mean of the others', one picture, one view at a time."""
    model, variables, config = load_run(run)
    image = decode_picture(path, config.data.image_size)[None]
    number = np.array([int(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()[:8], 16)], np.uint32)
    key = jax.random.fold_in(jax.random.key(config.train.seed), 2**31 - 1)
    views = [augment(config.augment, image, number, jax.random.fold_in(key, view)) for view in range(tta)]
    plain, *others = (jax.nn.softmax(predict_logits(model, variables, each))[0] for each in [image, *views])
    return 0.5 * plain + 0.5 * np.mean(others, axis=0)


@pytest.mark.slow
def test_views_weigh_half_and_are_of_the_picture_alone(augmented: Path, tiny_food: Path) -> None:
    """Whatever batch and folder it stands in: the batches are of 4, padded for eight devices."""
    folder = tiny_food / "test"
    found = predict_probabilities([augmented], folder, tta=3, progress=False)
    expected = np.array([views_by_hand(augmented, path, 3) for path in sorted(folder.iterdir())])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    plain = predict_probabilities([augmented], folder, progress=False)
    assert np.abs(found - plain).max() > 1e-3
    alone = predict_probabilities([augmented], folder / "0003.jpg", tta=3, progress=False)
    np.testing.assert_allclose(alone, found[2:3], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["train.accumulate=2", "data.resident=false", "train.parallel=pmap"])
def test_views_do_not_depend_on_how_they_are_computed(augmented: Path, make_run, tiny_food: Path, setting: str) -> None:
    expected = predict_probabilities([augmented], tiny_food / "test", tta=2, progress=False)
    run = make_run(settings=("augment.flip=true", "augment.crop=4", setting), scale=1.7)
    for count in (1, 8):
        device = DeviceConfig(count=count)
        found = predict_probabilities([run], tiny_food / "test", tta=2, progress=False, device=device)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_runs_of_two_image_sizes_answer_together_with_views(augmented: Path, make_run, tiny_food: Path) -> None:
    larger = make_run(seed=1, settings=("data.image_size=64", "augment.flip=true"), scale=1.7)
    runs, folder = [augmented, larger], tiny_food / "test"
    alone = [predict_probabilities([run], folder, tta=2, progress=False) for run in runs]
    together = predict_probabilities(runs, folder, tta=2, progress=False)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-7)
    path = folder / "0002.jpg"
    np.testing.assert_allclose(together[1], np.mean([views_by_hand(run, path, 2) for run in runs], axis=0), atol=1e-6)


@pytest.mark.slow
def test_views_need_a_run_that_knows_them(
    augmented: Path, run: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tiny_food / "test", tmp_path / "out.csv"
    with pytest.raises(UserError, match=r"^--tta: .*run was trained without augmentation, .* leave --tta out, or "):
        predict.main([str(run), "--images", str(folder), "--out", str(out), "--tta", "2"])
    assert not out.exists()
    probabilities = tmp_path / "p.csv"
    arguments = ["--images", str(folder), "--out", str(out), "--tta", "2", "--probabilities", str(probabilities)]
    predict.main([str(run), str(augmented), *arguments])
    said = capsys.readouterr().out
    assert f"trained without augmentation, so answering by the plain view alone: {run}\n" in said
    expected = [
        predict_probabilities([run], folder, progress=False),
        predict_probabilities([augmented], folder, tta=2, progress=False),
    ]
    table = rows(probabilities)
    assert table[0] == ["Id", "0", "1", "2"]
    assert [row[0] for row in table] == [row[0] for row in rows(out)]
    np.testing.assert_allclose(np.float32([row[1:] for row in table[1:]]), np.mean(expected, axis=0), atol=1e-6)
    assert [row[1] for row in rows(out)[1:]] == [str(np.argmax(np.float32(row[1:]))) for row in table[1:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tta", "-1"], r"argument --tta: it takes how many views, 0 to 1000, not '-1' \(see "),
        (["--tta", "1001"], "0 to 1000, not '1001'"),
        (["--tta", "half"], "0 to 1000, not 'half'"),
        (["--probabilities", "x/../s.csv", "--out", "s.csv"], "both s.csv: give each a file of its own"),
        (["--probabilities", "s.csv", "--out", "s.csv"], "^--probabilities and --out are both s.csv: give each a file"),
        (["--probabilities", "none/p.csv"], "^--probabilities none/p.csv: there is no folder .*; make it first$"),
        (["--probabilities", "."], "^--probabilities .: this is a folder"),
    ],
)
def test_mistakes_are_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        predict.main(["run", "--images", "nowhere", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"train": {"accumulate": 2}}, {"data": {"resident": False}}, {"train": {"parallel": "pmap"}}]
)
def test_a_run_answers_within_the_memory_that_its_training_had(
    run: Path, tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    """In parts and from disk as it was trained, on eight devices; the same probabilities."""
    shapes = []
    monkeypatch.setattr(
        probabilities, "predict_logits", lambda m, v, x: shapes.append(x.shape[0]) or predict_logits(m, v, x)
    )
    model, variables, config = load_run(run)
    for section, values in settings.items():
        config = replace(config, **{section: replace(getattr(config, section), **values)})
    begin_from(tmp_path / "run", config, variables)
    stored = mock.Mock(wraps=probabilities.CachedPictures)
    monkeypatch.setattr(probabilities, "CachedPictures", stored)
    found = predict_probabilities([tmp_path / "run"], tiny_food / "test", progress=False)
    assert stored.called == (not config.data.resident)
    shapes.clear()
    predict_probabilities([tmp_path / "run"], tiny_food / "test", progress=False, device=DeviceConfig(count=1))
    assert set(shapes) == {config.train.part_size}  # of 5 pictures: 2 at a time in parts, else 4
    pictures = [decode_picture(path, config.data.image_size) for path in sorted((tiny_food / "test").iterdir())]
    expected = jax.nn.softmax(model.apply(variables, np.float32(pictures) / 255, train=False))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_mistakes_are_named_and_an_earlier_answer_stays(make_run, run: Path, tiny_food: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    out.write_text("earlier")
    images = str(tiny_food / "test")
    bad = tmp_path / "bad"
    bad.mkdir()
    shutil.copy(tiny_food / "test" / "0001.jpg", bad / "0001.jpg")
    (bad / "0002.jpg").write_text("not a picture")
    (bad / "0003.jpg").write_bytes((tiny_food / "test" / "0001.jpg").read_bytes()[:300])
    cases = {
        "is not a run": [str(tmp_path), "--images", images],
        "no such folder": [str(run), "--images", str(tmp_path / "nowhere")],
        "no checkpoint 7; there are: best, last, 0": [str(run), "--images", images, "--which", "7"],
        r"2 pictures cannot be read \(0002\.jpg, row 0002: .*, 0003\.jpg, row 0003: .*\): mend or remove them$": [
            str(run),
            "--images",
            str(bad),
            "--strict",
        ],
        "differ in their number of classes": [str(run), str(make_run(num_classes=5)), "--images", images],
        "is no folder": [str(run), "--images", images, "--out", str(tmp_path / "none" / "x.csv")],
        "required": [str(run)],
    }
    for message, arguments in cases.items():
        with pytest.raises(UserError, match=message):
            predict.main([*arguments, *([] if "--out" in arguments else ["--out", str(out)])])
    assert out.read_text() == "earlier"


def test_what_cannot_be_read_gets_the_most_frequent_class_and_is_said(
    make_run, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, folder = make_run(), tmp_path / "out.csv", tmp_path / "test"
    shutil.copytree(tiny_food / "test", folder)
    (folder / "0002.jpg").write_text("not a picture")
    probabilities = tmp_path / "p.csv"
    predict.main([str(run), "--images", str(folder), "--out", str(out), "--probabilities", str(probabilities)])
    assert [row[1:] for row in rows(probabilities) if row[0] == "0002"] == [["", "", ""]]
    assert len(rows(probabilities)) == 6
    expected = by_hand(run, tiny_food / "test") | {"0002": 0}
    assert {row[0]: int(row[1]) for row in rows(out)[1:]} == expected
    said = capsys.readouterr().out
    assert "1 of 5 pictures cannot be read and get class 0 (0), as the runs do not tell" in said
    assert f"{probabilities}: probabilities of 3 classes; 1 row without, as that picture cannot be read\n" in said
    write_pictures(run, tuple(PictureRecord("train", f"{i}.jpg", label, "x") for i, label in enumerate([0, 2, 2, 1])))
    predict.main([str(run), "--images", str(folder), "--out", str(out)])
    assert {row[0]: int(row[1]) for row in rows(out)[1:]} == expected | {"0002": 2}
    said = capsys.readouterr().out
    assert "get class 2 (2), the most frequent in training: 0002.jpg, row 0002: " in said
    with pytest.raises(UserError, match=r"1 pictures cannot be read \(.*0002\.jpg: "):
        predict_probabilities([run], folder, progress=False)


@pytest.mark.slow
def test_runs_of_other_classes_do_not_answer_together(make_run, tiny_food: Path) -> None:
    """Their numbers are the same; what they call by them is not."""
    runs = [make_run(), make_run(), make_run()]
    for run, names in zip(runs, ("Bread\nEgg\nSoup\n", "Bread\nSoup\nEgg\n", "0\n1\n2\n"), strict=True):
        (run / "classes.txt").write_text(names)
    with pytest.raises(UserError, match=r"differ in their classes \(1 is Egg and Soup, 2 is Soup and Egg\)"):
        predict_probabilities(runs[:2], tiny_food / "test", progress=False)
    predict_probabilities(runs[::2], tiny_food / "test", progress=False)


@pytest.mark.slow
def test_a_cache_folder_of_another_machine_is_not_needed(make_run, tiny_food: Path, tmp_path: Path) -> None:
    run = make_run()
    config = load_config(run / "config.toml", ("data.cache_dir=/nowhere/on/this/machine",))
    (run / "config.toml").write_text(to_toml(config))
    predict_probabilities([run], tiny_food / "test", progress=False)
    predict_probabilities([run], tiny_food / "test", progress=False, cache_dir=tmp_path / "cache")
    assert any((tmp_path / "cache").iterdir())


def test_a_checkpoint_of_another_shape_is_named(make_run, tiny_food: Path, tmp_path: Path) -> None:
    run = make_run()
    config: Config = load_config(run / "config.toml", ("model.num_classes=7",))
    (run / "config.toml").write_text(to_toml(config))
    with pytest.raises(UserError, match=r"does not fit its config\.toml: model params/head/"):
        predict.main([str(run), "--images", str(tiny_food / "test"), "--out", str(tmp_path / "out.csv")])


def test_convert_there_and_back(run: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, back = tmp_path / "weights.safetensors", tmp_path / "back"
    convert.main(["to-torch", str(run), str(weights)])
    convert.main(["from-torch", str(weights), str(back), "--train.batch_size", "4"])
    assert "32 px and 3 classes" in capsys.readouterr().out
    model, variables, config = load_run(back)
    assert isinstance(model, FoodClassifier)
    assert (config.data.image_size, config.model.num_classes, config.train.batch_size) == (32, NUM_CLASSES, 4)
    np.testing.assert_array_equal(variables["params"]["head"]["kernel"], load_run(run)[1]["params"]["head"]["kernel"])
    for name, folder in (("a.csv", run), ("b.csv", back)):
        predict.main([str(folder), "--images", str(tiny_food / "test"), "--out", str(tmp_path / name)])
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")


def test_convert_refuses_what_contradicts_the_weights(run: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    convert.main(["to-torch", str(run), str(weights)])
    with pytest.raises(
        UserError, match=r"for data\.image_size = 32, not data\.image_size = 64: leave out data\.image_size$"
    ):
        convert.main(["from-torch", str(weights), str(tmp_path / "back"), "--data.image_size", "64"])
    assert not (tmp_path / "back").exists()
    with pytest.raises(UserError, match="is a run already"):
        convert.main(["from-torch", str(weights), str(run)])
    with pytest.raises(UserError, match="from-torch"):
        convert.main(["sideways"])


@pytest.mark.slow
def test_an_imported_run_can_be_trained_on(run: Path, tiny_food: Path, tmp_path: Path) -> None:
    from jaxfood import train

    weights, back = tmp_path / "weights.safetensors", tmp_path / "back"
    convert.main(["to-torch", str(run), str(weights)])
    settings = ["--data.root", str(tiny_food), "--train.epochs", "1", "--train.batch_size", "16", "--device.count", "1"]
    convert.main(["from-torch", str(weights), str(back), *settings])
    train.main(["--workdir", str(back), "--resume", "--logging.progress", "false"])
    assert "best: accuracy" in (back / "log.txt").read_text()
