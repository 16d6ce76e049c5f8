"""The demo pictures: the homework's layout, the same every time, and not to be solved by colour."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxfood.data import demo
from jaxfood.data.cache import load_pictures
from jaxfood.data.demo import FOOD11_CLASSES, demo_root, draw_picture
from jaxfood.data.index import check_labels, index_pictures
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_root(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def splits(root: Path) -> tuple[Pictures, Pictures]:
    train, valid = (
        load_pictures(index_pictures(root / split), 16, cache_dir=root.parent, progress=False)
        for split in ("train", "valid")
    )
    return train, valid


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(demo, "_PICTURES_A_CLASS", {"train": 1, "valid": 1, "test": 1})


def nearest_mean_accuracy(splits: tuple[Pictures, Pictures], features: Callable[[np.ndarray], np.ndarray]) -> float:
    """How many of `valid` lie nearest to the mean of their own class in train."""
    train, valid = splits
    known, unknown = (features(pictures.images / 255).reshape(len(pictures), -1) for pictures in splits)
    means = np.stack([known[train.labels == label].mean(axis=0) for label in range(11)])
    nearest = np.square(unknown[:, None] - means).sum(axis=2).argmin(axis=1)
    return float(np.mean(nearest == valid.labels))


def colour_histogram(images: np.ndarray) -> np.ndarray:
    levels = (images * 3.999).astype(int) @ (16, 4, 1)
    return np.stack([np.bincount(picture.ravel(), minlength=64) for picture in levels])


@pytest.mark.parametrize(("split", "count"), [("train", 60), ("valid", 20)])
def test_labelled_splits(root, split, count):
    index = index_pictures(root / split)
    check_labels(index, 11)
    assert np.bincount(index.labels).tolist() == [count] * 11
    assert (root / split / f"10_{count - 1}.jpg").exists()


def test_test_split_is_unlabelled(root):
    index = index_pictures(root / "test")
    assert [path.name for path in index.paths] == [f"{number:04d}.jpg" for number in range(1, 111)]
    assert set(index.labels.tolist()) == {-1}


def test_classes_are_food11s(root):
    assert (root / "classes.txt").read_text().splitlines() == list(FOOD11_CLASSES)
    assert FOOD11_CLASSES[0] == "Bread"
    assert FOOD11_CLASSES[6] == "Noodles/Pasta"
    assert len(FOOD11_CLASSES) == 11


def test_sizes_vary(root):
    sizes = {draw_picture("train", 0, number).size for number in range(6)}
    assert len(sizes) > 3
    assert all(96 <= width <= 140 and 96 <= height <= 112 for width, height in sizes)


def test_pictures_are_reproducible_and_differ():
    for label in range(11):
        assert draw_picture("train", label, 0).tobytes() == draw_picture("train", label, 0).tobytes()
    assert draw_picture("train", 0, 0).tobytes() != draw_picture("valid", 0, 0).tobytes()
    assert draw_picture("train", 0, 0).tobytes() != draw_picture("train", 0, 1).tobytes()


def test_files_are_the_same_wherever_drawn(tmp_path, small_demo):
    one, other = demo_root(tmp_path / "one"), demo_root(tmp_path / "other")
    names = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert len(names) == 34
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_colour_does_not_give_the_group_away(splits):
    assert nearest_mean_accuracy(splits, lambda images: images.mean(axis=(1, 2))) < 0.4
    assert nearest_mean_accuracy(splits, colour_histogram) < 0.4


def test_raw_pixels_tell_something_but_not_enough(splits):
    assert 0.2 < nearest_mean_accuracy(splits, lambda images: images) < 0.6


def test_drawn_once(tmp_path, small_demo, monkeypatch):
    root = demo_root(tmp_path)
    monkeypatch.setattr(demo, "draw_picture", lambda *which: pytest.fail("drawn again"))
    assert demo_root(tmp_path) == root == tmp_path / "demo-v1"


def test_interrupted_drawing_leaves_nothing(tmp_path, small_demo, monkeypatch):
    def interrupt(split, label, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "draw_picture", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo_root(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_process_may_be_faster(tmp_path, small_demo, monkeypatch):
    def be_overtaken(unfinished: Path, root: Path) -> None:
        (root / "train").mkdir(parents=True)
        replace(unfinished, root)

    replace = os.replace
    monkeypatch.setattr(os, "replace", be_overtaken)
    assert demo_root(tmp_path).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-v1"]


def test_unwritable_cache_dir_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/cache.*data\.cache_dir"):
        demo_root(tmp_path / "file/cache")


def test_a_cache_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(UserError, match=r"^cannot write to the cache folder .*\(no permission\): mend"):
        demo_root(tmp_path)


def test_leftovers_of_a_killed_process_are_removed(tmp_path, small_demo):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, live = (tmp_path / f"demo-v1~{platform.node()}~{pid}~0.tmp" for pid in (ended.pid, os.getpid()))
    (dead / "train").mkdir(parents=True)
    live.mkdir()
    demo_root(tmp_path)
    assert not dead.exists()
    assert live.exists()
