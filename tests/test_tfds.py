"""Food-11 and other data sets of TFDS, without TensorFlow: prepared, read, trained on, and mistakes."""

import dataclasses
import errno
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import NUM_CLASSES, NUM_TEST, TRAIN_PER_CLASS, VALID_PER_CLASS
from PIL import Image

from jaxfood.config import Config, load_config
from jaxfood.config.sections import DataConfig, DeviceConfig
from jaxfood.data import decode
from jaxfood.data.batches import make_batches
from jaxfood.data.demo import FOOD11_CLASSES
from jaxfood.data.splits import Splits, load_splits
from jaxfood.data.tfds import TfdsPictures, prepare_food11
from jaxfood.data.tfds.__main__ import main
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError
from jaxfood.train import train_and_evaluate

tfds = pytest.importorskip("tensorflow_datasets", reason="reads data sets of TFDS")

NUM_TRAIN, NUM_VALID = NUM_CLASSES * TRAIN_PER_CLASS, NUM_CLASSES * VALID_PER_CLASS
Load = Callable[..., Splits]


@pytest.fixture(scope="module", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """TFDS leaves an empty temporary folder behind for each builder of a data set that is not prepared yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(scope="module")
def data_dir(tiny_food: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS's data_dir with the tiny pictures as Food-11."""
    folder = tmp_path_factory.mktemp("tfds")
    assert prepare_food11(tiny_food, folder) == folder / "food11" / "1.0.0"
    return folder


@pytest.fixture
def load(data_dir: Path) -> Load:
    def load(source: str = "tfds:food11", num_classes: int = 11, **data: object) -> Splits:
        data = {"root": str(data_dir), "image_size": 32} | data
        return load_splits(DataConfig(source=source, **data), num_classes, seed=0)  # type: ignore[arg-type]

    return load


def file_names(data_dir: Path, split: str) -> list[str]:
    """The pictures of a split by their positions."""
    builder = tfds.builder_from_directory(data_dir / "food11" / "1.0.0")
    records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return [record["file_name"].decode() for record in records]


# What is read.


def test_pictures_are_the_folders_own(load: Load, data_dir: Path, tiny_food: Path) -> None:
    found = load()
    assert found.classes == FOOD11_CLASSES
    folder = load_splits(DataConfig(root=str(tiny_food), image_size=32), 11, seed=0, progress=False)
    for split, pictures, originals in (("train", found.train, folder.train), ("valid", found.valid, folder.valid)):
        assert len(pictures) == len(originals)
        names = [path.name for path in originals.paths]
        rows = [names.index(name) for name in file_names(data_dir, split)]
        assert sorted(rows) == list(range(len(originals)))
        ours, theirs = pictures.subset(slice(None)), originals.subset(rows)
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert (ours.images.dtype, ours.labels.dtype) == (np.uint8, np.int32)


def test_splits_are_tfds_own(load: Load) -> None:
    splits = load("tfds:food11:1.*.*", train="train[:50%]+valid", valid="train[50%:]")
    assert len(splits.train) == 10 + NUM_VALID
    assert len(splits.valid) == 11
    whole = load().train.subset(slice(None))
    np.testing.assert_array_equal(splits.valid.subset(slice(None)).images, whole.images[10:])


def test_pictures_of_any_kind_become_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        for label, mode in enumerate(("L", "CMYK", "RGBA")):
            suffix = "png" if mode == "RGBA" else "jpg"
            picture = Image.fromarray(rng.integers(0, 256, (40 + label, 30, 4), np.uint8), "RGBA").convert("RGB")
            picture.convert(mode).save(tmp_path / split / f"{label}_0.{suffix}")
    prepare_food11(tmp_path, tmp_path / "prepared")
    config = DataConfig(source="tfds:food11", root=str(tmp_path / "prepared"), image_size=32)
    streamed = load_splits(config, 11, seed=0).train.subset(slice(None))
    folder = load_splits(DataConfig(root=str(tmp_path), image_size=32), 11, seed=0, progress=False).train
    np.testing.assert_array_equal(streamed.images[np.argsort(streamed.labels)], folder.subset(slice(None)).images)


def test_a_batch_holds_the_pictures_at_its_positions(load: Load) -> None:
    train = load().train
    whole = train.subset(slice(None))
    order = np.random.default_rng(0).permutation(NUM_TRAIN)
    (_, batch, last) = make_batches(train, make_mesh(DeviceConfig(count=8))).batches(order, 8)
    np.testing.assert_array_equal(batch["image"], whole.images[order[8:16]])
    np.testing.assert_array_equal(batch["label"], whole.labels[order[8:16]])
    assert np.asarray(last["mask"]).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.slow
def test_training_on_a_data_set(tiny_config: Config, data_dir: Path, tmp_path: Path) -> None:
    data = dataclasses.replace(tiny_config.data, source="tfds:food11", root=str(data_dir))
    model = dataclasses.replace(tiny_config.model, num_classes=11)
    config = dataclasses.replace(tiny_config, data=data, model=model)
    assert train_and_evaluate(config, tmp_path / "run")["step"] == 6
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[1]["train_loss"] < records[0]["train_loss"] < 3
    assert (tmp_path / "run" / "classes.txt").read_text().splitlines() == list(FOOD11_CLASSES)


@pytest.mark.slow
def test_tensorflow_is_never_imported(tiny_food: Path, tmp_path: Path) -> None:
    """Even where it is installed: a module of that name ends the process. TFDS only when it is needed."""
    (tmp_path / "tensorflow.py").write_text("import os; os._exit(99)")
    script = f"""
import sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, {str(tmp_path)!r})
sys.modules["grain"] = None  # nor is Grain needed
from jaxfood.data.tfds.__main__ import main
assert not {{"tensorflow_datasets", "array_record"}} & {{*sys.modules}}
main(["--images", {str(tiny_food)!r}, "--data_dir", {str(tmp_path / "data")!r}])
from jaxfood.config.sections import DataConfig, DeviceConfig
from jaxfood.data.splits import load_splits
from jaxfood.data.batches import make_batches
from jaxfood.devices import make_mesh
config = DataConfig(source="tfds:food11", root={str(tmp_path / "data")!r}, image_size=32)
train = load_splits(config, 11, seed=0).train
print(len(list(make_batches(train, make_mesh(DeviceConfig(count=1))).batches(list(range(21)), 8))), "batches")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "3 batches"


# Preparing.


def test_prepared_splits_hold_what_the_folders_hold(data_dir: Path, tiny_food: Path) -> None:
    builder = tfds.builder_from_directory(data_dir / "food11" / "1.0.0")
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": NUM_TRAIN, "valid": NUM_VALID, "test": NUM_TEST}
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split in counts:
        for record in builder.as_data_source(split, decoders=decoders):
            path = tiny_food / split / record["file_name"].decode()
            assert record["image"] == path.read_bytes()
            assert record["label"] == (-1 if split == "test" else int(path.name[0]))


def test_the_command_says_how_to_go_on(
    tiny_food: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--images", str(tiny_food), "--data_dir", str(tmp_path)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'food11' / '1.0.0'};")
    flags = last.partition("jaxfood.train ")[2].split()
    config = load_config(None, [f"{flags[0][2:]}={flags[1]}", f"{flags[2][2:]}={flags[3]}"])
    assert (config.data.source, config.data.root) == ("tfds:food11", str(tmp_path))
    with pytest.raises(UserError, match=r"1\.0\.0 is there already: remove it"):
        main(["--images", str(tiny_food), "--data_dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train/0_broken.jpg",
            b"no picture",
            r"train cannot be read: 0_broken\.jpg \(a text, no picture\); mend or remove",
        ),
        ("valid/12_0.jpg", None, r"labels beyond .* 11"),
        ("train/picture.jpg", None, r"have no label \(picture\.jpg\)"),
        ("train/Tofu/0.jpg", None, "no classes of train: Tofu"),
    ],
)
def test_wrong_pictures_are_refused(
    name: str, content: bytes | None, message: str, tiny_food: Path, tmp_path: Path
) -> None:
    picture = (tiny_food / "train" / "0_0.jpg").read_bytes()
    for path in ("train/0_0.jpg", "valid/0_0.jpg", name):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content if content and path == name else picture)
    with pytest.raises(UserError, match=message):
        prepare_food11(tmp_path, tmp_path / "prepared")
    assert not (tmp_path / "prepared" / "food11").exists()


def test_another_folder_is_refused(tiny_food: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no folder train: name the homework's folder"):
        prepare_food11(tiny_food / "train", tmp_path)
    with pytest.raises(UserError, match=r"nowhere has no folder train"):
        prepare_food11(tmp_path / "nowhere", tmp_path)


def test_only_paths_that_can_be_used_are_taken(
    tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no folder called `gs:` is made."""
    monkeypatch.chdir(tmp_path)
    for data_dir in ("gs://food/tfds", Path("gs://food/tfds")):
        with pytest.raises(
            UserError, match=r"^--data_dir gs:/+food/tfds: only what is on this machine .* local folder$"
        ):
            prepare_food11(tiny_food, data_dir)
    with pytest.raises(UserError, match=r"s3://food/hw3: .*only gs://BUCKET"):
        main(["--images", "s3://food/hw3", "--data_dir", "here"])
    with pytest.raises(UserError, match=r"^data\.root = gs://food/tfds: only what is on this machine"):
        load_splits(DataConfig(source="tfds:food11", root="gs://food/tfds"), 11, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_failing_disk_is_no_broken_picture(tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, flags: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(decode, "_open_at_once", fail)
    with pytest.raises(UserError, match=r"^cannot read .*/train/0_0\.jpg \(Input/output error\)"):
        prepare_food11(tiny_food, tmp_path)


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jaxfood.data.tfds", "--images", str(tmp_path), "--data_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch("error: .* has no folder train: .*\n", done.stderr)
    with pytest.raises(UserError, match="--images"):
        main([])


# Mistakes.


@pytest.mark.parametrize("source", ["tfds:", "tfds", "tfd:food11", "food11"])
def test_a_source_needs_a_name(source: str) -> None:
    with pytest.raises(UserError, match=r"data\.source = .*: it takes one of: demo, folder, tfds:NAME$"):
        DataConfig(source=source)


@pytest.mark.parametrize("name", ["food 11", "food11:1", "food11/a/b", "kaggle:food11", "food11/a=1,b=2", "../food11"])
def test_a_name_that_is_none(name: str, load: Load) -> None:
    with pytest.raises(UserError, match=r"data\.source = .*: write tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1\.2\.3$"):
        load(f"tfds:{name}")


@pytest.mark.parametrize("name", ["food11:2.0.0", "food11/large"])
def test_food11_that_is_not_prepared(name: str, load: Load, data_dir: Path) -> None:
    with pytest.raises(UserError) as error:
        load(f"tfds:{name}")
    assert str(error.value) == (
        f"tfds:{name} is not in {data_dir}: prepare it with python -m jaxfood.data.tfds --images hw3_data, "
        "or set data.root"
    )


def test_another_data_set_that_is_not_prepared(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^tfds:cifar10 is not in .*file_format='array_record'.*download_and_prepare"):
        load("tfds:cifar10")
    with pytest.raises(UserError, match=r"^tfds:no_such_set is not in TFDS's default folder: prepare it"):
        load("tfds:no_such_set", root="")


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("test[", "Error parsing split"),
        ("validation", "Unknown split 'validation'"),
        ("train[90:95]", r"Requested slice \[90:95\] incompatible with 21 examples;"),
        ("train[:0%]", ""),
        ("", ""),
    ],
)
def test_an_unknown_split(split: str, reason: str, load: Load) -> None:
    with pytest.raises(
        UserError, match=rf"^data\.valid = .*: .*{reason}.* tfds:food11 has the splits train, valid, test$"
    ):
        load(valid=split)


def test_as_many_classes_as_the_data_set_has(load: Load) -> None:
    with pytest.raises(UserError, match=r"has 11 classes and model\.num_classes = 10: leave model\.num_classes out"):
        load(num_classes=10)


def test_pictures_without_labels(load: Load) -> None:
    train = load(train="test").train
    with pytest.raises(UserError, match=r"picture 1 of tfds:food11, data.train has no label: name a split"):
        train.subset([1])


def test_a_picture_that_cannot_be_read() -> None:
    pictures = TfdsPictures([{"image": b"no picture", "label": 0}], ("image", "label"), 32, "tfds:food11, data.train")
    with pytest.raises(
        UserError, match=r"^picture 0 of tfds:food11, data\.train cannot be read \(.*\): prepare .* without it$"
    ):
        pictures.subset([0])


def test_settings_for_folders(load: Load) -> None:
    with pytest.raises(UserError, match=r"leave data\.fraction out and set data\.train = train\[:25%\]$"):
        load(fraction=0.25)
    with pytest.raises(UserError, match=r"^data\.skip_corrupt = true: .*leave data\.skip_corrupt out"):
        load(skip_corrupt=True)


@pytest.mark.parametrize(("package", "what"), [("tensorflow_datasets", "tfds:food11"), ("array_record", "tfds:food11")])
def test_what_is_not_installed(package: str, what: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(UserError, match=rf"^{what} needs {package}: pip install 'jaxfood\[tfds\]'$"):
        load()


def edit(data_dir: Path, folder: Path, file: str, old: str, new: str) -> str:
    """A copy of the data set with another description; returns its data_dir."""
    shutil.copytree(data_dir, folder, dirs_exist_ok=True)
    path = folder / "food11" / "1.0.0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return str(folder)


def test_a_format_without_positions(load: Load, data_dir: Path, tmp_path: Path) -> None:
    root = edit(data_dir, tmp_path, "dataset_info.json", "array_record", "tfrecord")
    with pytest.raises(UserError, match=r"as tfrecord, which cannot be read in any order: move it away and prepare it"):
        load(root=root)


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_data_set_of_something_else(key: str, load: Load, data_dir: Path, tmp_path: Path) -> None:
    root = edit(data_dir, tmp_path, "dataset_info.json", f'"featureKey": "{key}"', '"featureKey": "file_name"')
    with pytest.raises(UserError) as error:
        load(root=root)
    assert str(error.value) == (
        "tfds:food11 is no set of pictures with a class each (its features: file_name, image, label): take another"
    )
