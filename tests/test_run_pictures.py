"""RUN/pictures.csv: a run goes on with its own pictures, wherever they lie, and with no others."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jaxfood.config import Config
from jaxfood.data.records import PictureRecord
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.runs.directory import read_classes
from jaxfood.runs.pictures import check_pictures, most_frequent_label, read_pictures, write_pictures
from jaxfood.train import train_and_evaluate
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_food: Path) -> Callable[[Path], tuple[Path, Config, Path]]:
    """Copies a run of one epoch on class folders, and its pictures, for a test to change."""
    from jaxfood.config import load_config

    root, workdir = (tmp_path_factory.mktemp("trained") / name for name in ("food", "run"))
    for split in ("train", "valid"):
        for picture in (tiny_food / split).iterdir():
            folder = root / split / ("Bread", "Egg", "Soup")[int(picture.name[0])]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, folder)
    settings = (
        "data.image_size=32",
        "train.batch_size=8",
        "train.epochs=1",
        "device.count=1",
        "logging.progress=false",
    )
    config = load_config(None, (f"data.root={root}", *settings))
    train_and_evaluate(config, workdir)

    def copy(folder: Path) -> tuple[Path, Config, Path]:
        shutil.copytree(workdir, folder / "run")
        shutil.copytree(root, folder / "food")
        data = replace(config.data, root=str(folder / "food"), cache_dir=str(folder / "cache"))
        return folder / "run", replace(config, data=data, train=replace(config.train, epochs=2)), folder / "food"

    return copy


def test_what_a_run_was_trained_on_is_written_down(trained: Callable, tmp_path: Path) -> None:
    workdir, _, root = trained(tmp_path)
    records = read_pictures(workdir)
    names = sorted(path.relative_to(root / "train").as_posix() for path in (root / "train").rglob("*.jpg"))
    assert [record.name for record in records if record.split == "train"] == names
    assert len(records) == 21 + 9
    assert len({record.digest for record in records}) == 30
    assert (workdir / "pictures.csv").read_text().startswith("split,name,label,digest\ntrain,Bread/0_0.jpg,0,")
    assert "num_classes = 3" in (workdir / "config.toml").read_text()
    log = (workdir / "log.txt").read_text()
    assert "class       train   valid\n 0 Bread        7       3\n 1 Egg          7       3\n" in log


def test_the_same_pictures_may_lie_elsewhere(trained: Callable, tmp_path: Path) -> None:
    workdir, config, root = trained(tmp_path)
    (root / "train").rename(root / "training")
    os.utime(root / "training/Egg/1_0.jpg", (1, 1))
    data = replace(config.data, train="training")
    assert train_and_evaluate(replace(config, data=data), workdir, resume=True)["epochs"] == 2


def rename_class(root: Path) -> None:
    for split in ("train", "valid"):
        (root / split / "Bread").rename(root / split / "Toast")


def swap_labels(root: Path) -> None:
    for name in ("Bread/0_0.jpg", "Egg/1_0.jpg"):
        (root / "train" / name).rename(root / "train" / name.replace("_", "-"))
    (root / "train/Bread/0-0.jpg").rename(root / "train/Egg/0_0.jpg")
    (root / "train/Egg/1-0.jpg").rename(root / "train/Bread/1_0.jpg")


def replace_picture(root: Path) -> None:
    shutil.copy(root / "train/Bread/0_1.jpg", root / "train/Bread/0_0.jpg")


def add_validation_picture(root: Path) -> None:
    shutil.copy(root / "train/Bread/0_1.jpg", root / "valid/Bread/0_9.jpg")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_class, r"class 2 is Toast, was Soup"),
        (swap_labels, r"train has lost 2 \(Bread/0_0\.jpg, Egg/1_0\.jpg\); train has gained 2"),
        (replace_picture, r"train has other content in 1 \(Bread/0_0\.jpg\)"),
        (add_validation_picture, r"valid has gained 1 \(Bread/0_9\.jpg\)"),
    ],
)
def test_other_pictures_are_refused_by_name(
    change: Callable[[Path], None], named: str, trained: Callable, tmp_path: Path
) -> None:
    """Each went on in silence once, against the promise of equal bits."""
    workdir, config, root = trained(tmp_path)
    change(root)
    before = (workdir / "config.toml").read_bytes()
    with pytest.raises(UserError, match=rf"^the pictures are not those that .*run was trained on: .*{named}"):
        train_and_evaluate(config, workdir, resume=True)
    assert (workdir / "config.toml").read_bytes() == before


@pytest.mark.slow
def test_weights_from_elsewhere_take_the_names_of_the_folders(trained: Callable, tmp_path: Path) -> None:
    _, config, _ = trained(tmp_path)
    config = replace(config, model=replace(config.model, num_classes=3), train=replace(config.train, epochs=1))
    begin_from(tmp_path / "new", config, init_variables(config))
    assert read_classes(tmp_path / "new") == ("0", "1", "2")
    assert read_pictures(tmp_path / "new") is None
    train_and_evaluate(config, tmp_path / "new", resume=True)
    assert read_classes(tmp_path / "new") == ("Bread", "Egg", "Soup")
    assert len(read_pictures(tmp_path / "new")) == 30


def test_numbers_fit_the_names_that_a_run_has(trained: Callable, tmp_path: Path) -> None:
    """As of a data folder that has lost its classes.txt: what the labels stand for is the run's to know."""
    workdir, _, _ = trained(tmp_path)
    records = read_pictures(workdir)
    assert check_pictures(workdir, ("Bread", "Egg", "Soup"), records, ("0", "1", "2"))
    assert check_pictures(workdir, ("0", "1", "2"), records, ("Bread", "Egg", "Soup"))
    with pytest.raises(UserError, match="4 classes, were 3"):
        check_pictures(workdir, ("Bread", "Egg", "Soup"), records, ("0", "1", "2", "3"))


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ['say "hi", twice\n.jpg', "豆腐/1.jpg", os.fsdecode(b"\xcb\xae\xb9\xfb.jpg")]
    records = tuple(PictureRecord("train", name, label, "0f") for label, name in enumerate(names))
    write_pictures(tmp_path, records)
    assert read_pictures(tmp_path) == records
    assert most_frequent_label(tmp_path) == 0


@pytest.mark.parametrize("content", [b"", b"x,y\n", b"split,name,label,digest\ntrain,a.jpg,one,0f\n", b"\0\xff"])
def test_a_damaged_list_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pictures.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"pictures\.csv is damaged"):
        read_pictures(tmp_path)
