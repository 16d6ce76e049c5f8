"""Buckets of Google Cloud Storage: pictures, runs and mistakes, against an emulator of the service on this machine.

The emulator knows no credentials: what the service says of those is said by a server of a few lines.
"""

import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxfood import files, predict, train
from jaxfood.config import Config, load_config, to_toml
from jaxfood.config.sections import LoggingConfig
from jaxfood.data.cache import load_pictures
from jaxfood.data.cache_folder import cache_folder
from jaxfood.data.decode import decode_picture
from jaxfood.data.index import PictureIndex, index_files, index_pictures
from jaxfood.data.splits import load_splits
from jaxfood.data.tfds import prepare_food11
from jaxfood.data.walk import of_bucket
from jaxfood.errors import UserError
from jaxfood.exporting import files as export_files
from jaxfood.files import Lines, list_bucket, read_bytes, remove, to_path, write_whole
from jaxfood.inference.submission import write_submission
from jaxfood.runs import directory as run
from jaxfood.runs.directory import load_run
from jaxfood.train import train_and_evaluate
from jaxfood.training.logbook import Logbook, read_metrics


class Requests(logging.Handler):
    """What the emulator was asked since it was last cleared, as `"GET /storage/v1/b/food/o?prefix=a" 200 -`."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def clear(self) -> None:
        self._lines.clear()

    def count(self, text: str = "") -> int:
        return sum(text in line for line in self._lines)


def need_gcsfs() -> None:
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs, which reads and writes buckets, is not installed")


@pytest.fixture(scope="module")
def requests() -> Iterator[Requests]:
    """The emulator, with a bucket `food`, in the place of the service for gcsfs and TensorStore."""
    need_gcsfs()
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="stands for Google Cloud Storage")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    requests, logger = Requests(), logging.getLogger(emulator.__name__)
    logger.addHandler(requests)
    logger.setLevel(logging.INFO)
    with (
        pytest.MonkeyPatch.context() as patch,
        emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="food"),
    ):
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, f"http://127.0.0.1:{port}")
        patch.setenv("NO_GCE_CHECK", "true")  # or google-auth looks for the machine's own credentials
        yield requests
    logger.removeHandler(requests)


@pytest.fixture(scope="module")
def food(requests: Requests, tiny_food: Path) -> Path:
    """`tiny_food` in the bucket."""
    for path in tiny_food.rglob("*.jpg"):
        write_whole(to_path("gs://food/data") / path.relative_to(tiny_food).as_posix(), path.read_bytes())
    return to_path("gs://food/data")


@pytest.fixture
def folder(requests: Requests, request: pytest.FixtureRequest) -> Path:
    """A place in the bucket for one test."""
    return to_path(f"gs://food/{request.node.name}")


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], None]]:
    """A service that answers every request by a status and a message."""
    need_gcsfs()
    files._filesystem()  # sets gcsfs up
    import gcsfs

    answer = SimpleNamespace(status=200, message="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f'{{"error": {{"code": {answer.status}, "message": "{answer.message}"}}}}'.encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        filesystem = gcsfs.GCSFileSystem(token="anon", endpoint_url=f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(files, "_filesystem", lambda: filesystem)
        monkeypatch.setattr(files, "_check_reachable", files._check_reachable.__wrapped__)
        yield lambda status, message: answer.__dict__.update(status=status, message=message)
        server.shutdown()
        thread.join()


def names_and_labels(index: PictureIndex) -> list[tuple[str, int]]:
    return [(index.name(path), int(label)) for path, label in zip(index.paths, index.labels, strict=True)]


# Paths.


@pytest.mark.parametrize("path", ["runs/a", "/a/b", "", "a:b", "gs", "gs/x", Path("runs/a")])
def test_a_path_of_this_machine_is_pathlibs(path: str | Path) -> None:
    assert to_path(path) == Path(path)
    assert type(to_path(path)) is type(Path(path))


@pytest.mark.parametrize("path", ["gs://food/a/b", "gs://food/a/b/", Path("gs://food/a/b")])
def test_a_path_in_a_bucket_keeps_its_bucket(requests: Requests, path: str | Path) -> None:
    assert str(to_path(path)) == str(to_path(to_path(path))) == "gs://food/a/b"
    assert str(files.absolute(to_path(path) / "c")) == "gs://food/a/b/c"


def test_gcsfs_is_loaded_for_buckets_alone() -> None:
    code = """
import sys
from jaxfood.data.cache_folder import cache_folder
from jaxfood.data.walk import of_bucket
from jaxfood.data.index import index_files
index_files([sys.executable], labelled=False)
cache_folder("~/cache")
assert not {"etils.epath", "fsspec", "gcsfs"} & sys.modules.keys()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


def test_data_root_in_a_bucket_stays_as_it_is(requests: Requests, tmp_path: Path) -> None:
    config = load_config(None, ["data.root=gs://food/data/"])
    assert config.data.root == "gs://food/data"
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config


# Mistakes.


@pytest.mark.parametrize("command", [train.main, predict.main])
def test_another_service_is_refused(command: Callable[[list[str]], None]) -> None:
    words = ["--workdir", "s3://b/run"] if command is train.main else ["s3://b/run", "--images", "x"]
    with pytest.raises(UserError, match=r"s3://b/run: .* only gs://BUCKET"):
        command(words)


def test_no_bucket_is_refused() -> None:
    with pytest.raises(UserError, match="names no bucket"):
        to_path("gs://")


def test_gcsfs_that_is_not_installed_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"gs://food/a needs gcsfs: pip install 'jaxfood\[gs\]'"):
        to_path("gs://food/a")


def test_a_bucket_that_is_not_there(requests: Requests) -> None:
    with pytest.raises(UserError, match="there is no bucket gs://fodo: check its name, or make it"):
        to_path("gs://fodo/run")


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_one_may_not_list(
    answering: Callable[[int, str], None], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    answering(status, "Anonymous caller does not have storage.objects.list access")
    with pytest.raises(UserError, match=r"gs://food cannot be reached \(.*objects\.list.*gcloud auth") as caught:
        to_path("gs://food/run")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_one_may_not_write_to(
    answering: Callable[[int, str], None], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_check_reachable", lambda bucket: None)
    answering(status, "no storage.objects.create access")
    with pytest.raises(UserError, match=r"cannot write gs://food/s\.csv: .*objects\.create.*give another") as caught:
        write_submission(to_path("gs://food/s.csv"), ["1"], [0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cache_dir", ["gs://food/cache", Path("gs://food/cache")])
def test_the_cache_of_decoded_pictures_is_local(cache_dir: str | Path) -> None:
    with pytest.raises(UserError, match=r"data\.cache_dir = gs:/+food/cache: .* set a local folder"):
        cache_folder(cache_dir)


def test_a_picture_that_one_may_not_read_is_no_broken_one(
    answering: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_check_reachable", lambda bucket: None)
    answering(403, "no storage.objects.get access")
    with pytest.raises(UserError, match=r"cannot read gs://food/0_0\.jpg \(.*objects\.get.*\): mend that") as caught:
        decode_picture(to_path("gs://food/0_0.jpg"), 32)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(food: Path, tiny_config: Config) -> None:
    with pytest.raises(UserError, match="no such folder or file: gs://food/gone; check the path"):
        index_pictures("gs://food/gone")
    config = load_config(None, ["data.root=gs://food/gone"])
    with pytest.raises(UserError, match=r"data\.root = gs://food/gone: no such folder"):
        load_splits(config.data, 3, seed=0)
    config = load_config(None, [f"data.root={food}", "data.train=trian"])
    with pytest.raises(UserError, match="/trian does not exist; gs://food/data holds: test, train, valid"):
        load_splits(config.data, 3, seed=0)


# Pictures.


def test_a_folder_in_a_bucket_is_indexed_as_one_here(food: Path, tiny_food: Path, requests: Requests) -> None:
    write_whole(food / "train/.hidden/0_1.jpg", b"")
    write_whole(food / "train/.0_1.jpg", b"")
    write_whole(food / "train/notes.txt", b"")
    requests.clear()
    index = index_pictures(f"{food}/train")
    assert requests.count() == 1  # not one for each picture
    here = index_pictures(tiny_food / "train")
    assert names_and_labels(index) == names_and_labels(here)
    assert str(index.paths[0]) == "gs://food/data/train/0_0.jpg"


def test_class_folders_lists_and_single_pictures(folder: Path) -> None:
    for name in ("Bread/1.jpg", "Soup/2.jpg", "Soup/3_a.jpg", "@eaDir/4.jpg", "Soup/5.heic", "cover.jpg"):
        write_whole(folder / "train" / name, b"x")
    write_whole(folder / "list.txt", "\ufefftrain/Soup/3_a.jpg\r\ntrain/Bread/1\r\n".encode())
    index = index_pictures(folder / "train")
    assert of_bucket(["Bread/1.jpg", "Soup/"]).folders == ["Soup"]  # a folder made by hand, empty
    assert index.classes == ("Bread", "Soup")
    assert names_and_labels(index) == [("Bread/1.jpg", 0), ("Soup/2.jpg", 1), ("Soup/3_a.jpg", 1)]
    passed_over = {".heic": 1, "hidden or left by a system": 1, "loose pictures beside the class folders": 1}
    assert index.passed_over == passed_over
    listed = index_pictures(folder / "list.txt")
    assert [path.name for path in listed.paths] == ["3_a.jpg", "1.jpg"]
    assert listed.labels.tolist() == [1, 0]
    assert names_and_labels(index_pictures(folder / "train/Soup/3_a.jpg", index.classes))[0][1] == 1
    listed = index_files([folder / "train/Soup/3_a.jpg", folder / "train/Bread/1.jpg"], index.classes)
    assert listed.root == folder / "train"
    assert listed.labels.tolist() == [1, 0]
    assert len({*(listed + index.subset([1])).versions.items()} & {*index.versions.items()}) == 3
    with pytest.raises(UserError, match=r"1 of the pictures .* \(gs://food/.*/train/4_a\.jpg\): correct"):
        index_files([folder / "train/Soup/3_a.jpg", folder / "train/4_a.jpg"])


def test_pictures_are_read_once_and_decoded_as_those_here(
    food: Path, tiny_food: Path, requests: Requests, tmp_path: Path
) -> None:
    def load() -> np.ndarray:
        index = index_pictures(food / "valid")
        return load_pictures(index, 32, cache_dir=tmp_path, progress=False).images

    requests.clear()
    images = load()
    here = load_pictures(index_pictures(tiny_food / "valid"), 32, cache_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(images, here.images)
    assert requests.count() == 1 + len(images)

    requests.clear()
    np.testing.assert_array_equal(load(), images)
    assert requests.count() == 1

    changed = read_bytes(food / "valid/1_0.jpg")
    original = read_bytes(food / "valid/0_0.jpg")
    write_whole(food / "valid/0_0.jpg", changed)
    np.testing.assert_array_equal(load()[0], load()[3])
    write_whole(food / "valid/0_0.jpg", original)


def test_a_data_set_is_prepared_of_pictures_in_a_bucket(food: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="makes data sets of TFDS")
    assert (prepare_food11(food, tmp_path) / "dataset_info.json").is_file()


def test_unreadable_pictures_in_a_bucket_are_named(folder: Path, tmp_path: Path, tiny_food: Path) -> None:
    write_whole(folder / "0_1.jpg", (tiny_food / "train/0_0.jpg").read_bytes())
    write_whole(folder / "0_2.jpg", b"<html>404 not found</html>")
    with pytest.raises(
        UserError, match=r"1 of the 2 pictures in gs://food/.* cannot be read: 0_2\.jpg \(an HTML page.*\): mend"
    ):
        load_pictures(index_pictures(folder), 32, cache_dir=tmp_path, progress=False)


# Files.


def test_files_in_a_bucket_appear_whole_and_go(folder: Path) -> None:
    write_whole(folder / "a/b.txt", "麵")
    write_whole(folder / "a/c.txt", b"2")
    write_whole(folder / "ab.txt", b"3")
    assert read_bytes(folder / "a/b.txt") == "麵".encode()
    assert list_bucket(folder).keys() == {"a/b.txt", "a/c.txt", "ab.txt"}
    version = list_bucket(folder)["a/c.txt"]
    write_whole(folder / "a/c.txt", b"4")  # as long as before
    assert list_bucket(folder)["a/c.txt"] != version
    for name in ("a", "gone", "a"):
        remove(folder / name)
    assert list_bucket(folder).keys() == {"ab.txt"}


def test_an_exported_file_in_a_bucket_and_its_metadata(folder: Path) -> None:
    pytest.importorskip("flatbuffers", reason="export writes with it, and it is not installed")
    file = folder / "food.stablehlo"
    export_files.check_writable(file, overwrite=False)
    export_files.write(file, b"program", {"classes": ["Bread"]})
    assert read_bytes(file) == b"program"
    assert json.loads(read_bytes(folder / "food.stablehlo.json")) == {"classes": ["Bread"]}
    with pytest.raises(UserError, match=r"^gs://food/.*/food\.stablehlo\.json is there already: give --overwrite"):
        export_files.check_writable(file, overwrite=False)
    export_files.check_writable(file, overwrite=True)


def test_a_file_in_a_bucket_that_grows_is_written_now_and_then(
    folder: Path, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: clock.now))
    path = folder / "log.txt"
    log = Lines(path)
    requests.clear()
    for number in range(5):
        log.add(str(number))
    assert requests.count() == 1
    assert read_bytes(path) == b"0\n"
    clock.now += 60
    log.add("食")
    assert read_bytes(path).decode() == "0\n1\n2\n3\n4\n食\n"
    log.add("6")
    requests.clear()
    for _ in range(2):
        log.flush()
    assert requests.count() == 1
    again = Lines(path)
    again.add("7")
    assert read_bytes(path).decode() == "0\n1\n2\n3\n4\n食\n6\n7\n"


# Runs.


def test_a_run_in_a_bucket_is_one_before_its_first_checkpoint(folder: Path, tiny_config: Config) -> None:
    """A bucket has no empty folders: `checkpoints/` is not there yet."""
    run.check_free(folder, overwrite=False)
    run.begin(folder, ["a", "b", "c"])
    run.write_config(folder, tiny_config)
    assert run.read_config(folder) == tiny_config
    assert run.read_classes(folder) == ("a", "b", "c")
    with pytest.raises(UserError, match="is a run already"):
        run.check_free(folder, overwrite=False)
    write_whole(folder / "mine.txt", b"")
    write_whole(folder / "checkpoints/3/x", b"")
    run.begin(folder, ["a", "b", "c"], overwrite=True)
    run.write_config(folder, tiny_config)
    assert list_bucket(folder).keys() == {"mine.txt", "config.toml", "classes.txt", "run.json"}
    write_whole(folder / "other/config.toml", b"")  # of another program
    with pytest.raises(UserError, match="is not empty and not a run"):
        run.check_free(folder / "other", overwrite=True)


def test_tensorboard_is_told_the_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tensorboardX writes there by itself. Not tried: at its end it writes once more, and retries for two minutes."""
    opened: list[str] = []
    writer = SimpleNamespace(close=lambda: None)
    module = SimpleNamespace(SummaryWriter=lambda path, purge_step: opened.append(path) or writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    Logbook(folder, LoggingConfig(progress=False, tensorboard=True)).close()
    assert opened == [f"{folder}/tensorboard"]


@pytest.mark.slow
def test_training_in_a_bucket_is_training_here(
    food: Path, folder: Path, tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, die while saving, resume, predict, replace."""
    settings = ["--data.image_size", "32", "--model.num_classes", "3", "--train.batch_size", "8", "--device.count", "1"]
    begin = ["--workdir", str(folder), "--data.root", str(food), *settings, "--logging.progress", "false"]
    train.main([*begin, "--train.epochs", "1"])
    write_whole(folder / "checkpoints/6/model/_METADATA", b"{}")  # no commit_success.txt: the save was never finished
    assert load_run(folder, "last")[2].data.root == str(food)
    train.main(["--workdir", str(folder), "--resume", "--train.epochs", "2"])

    train_and_evaluate(tiny_config, tmp_path / "run")
    both = zip(read_metrics(folder / "metrics.jsonl"), read_metrics(tmp_path / "run/metrics.jsonl"), strict=True)
    for there, here in both:
        for name in there.keys() - {"seconds", "images_per_second"}:
            assert there[name] == here[name], name
    weights = [load_run(workdir, "last")[1] for workdir in (str(folder), tmp_path / "run")]
    jax.tree.map(np.testing.assert_array_equal, *weights)
    log = read_bytes(folder / "log.txt").decode()
    assert log in capsys.readouterr().out.replace("\r", "")
    assert log.count("epoch") > 2

    predict.main([str(folder), "--images", f"{food}/test", "--out", f"{folder}.csv"])
    predict.main([str(tmp_path / "run"), "--images", f"{food}/test", "--out", str(tmp_path / "here.csv")])
    assert read_bytes(to_path(f"{folder}.csv")) == (tmp_path / "here.csv").read_bytes()

    train.main([*begin, "--train.epochs", "1", "--overwrite"])
    assert [record["epoch"] for record in read_metrics(folder / "metrics.jsonl")] == [1]
    assert {name.split("/")[1] for name in list_bucket(folder) if name.startswith("checkpoints/")} == {"3"}
