import errno
import gc
import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxfood.config import Config
from jaxfood.config.model import Classifier
from jaxfood.errors import UserError
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.faults import keep_quiet, mend_of, reason_of
from jaxfood.runs.manifest import MANIFEST
from jaxfood.runs.progress import Progress
from jaxfood.training.metrics import zero_sums
from jaxfood.training.saved import restore_state, save_state
from jaxfood.training.state import TrainState

PROGRESS = Progress(num_train=8, steps_per_epoch=1)


@pytest.fixture(scope="module")
def variables() -> dict:
    """A tree of the model's form that is quick to write."""
    rng = np.random.default_rng(0)
    return {"params": {"head": {"kernel": rng.normal(size=(3, 2))}}, "batch_stats": {"mean": rng.normal(size=3)}}


@pytest.fixture(scope="module")
def state(variables: dict) -> TrainState:
    return TrainState.create(Config(), variables, total_steps=9)


def at(state: TrainState, step: int) -> TrainState:
    """The state after `step` updates; its parameters say which."""
    params = jax.tree.map(lambda leaf: leaf * 0 + step, state.params)
    return state.replace(step=jax.numpy.asarray(step, jax.numpy.int32), params=params)


def kept(checkpoints: Checkpoints) -> list[int]:
    return sorted(checkpoints._manager.all_steps())


@pytest.mark.smoke
@pytest.mark.parametrize(("keep_best", "expected"), [(1, [2, 5]), (2, [2, 4, 5])])
def test_keeps_the_best_and_the_last(tmp_path: Path, state: TrainState, keep_best: int, expected: list[int]) -> None:
    with Checkpoints(tmp_path, keep_best) as checkpoints:
        for step, accuracy in enumerate([0.1, 0.9, 0.2, 0.8, 0.3], start=1):
            save_state(checkpoints, at(state, step), zero_sums(updates=True), PROGRESS, accuracy=accuracy)
        checkpoints.wait()
        assert kept(checkpoints) == expected
        assert (checkpoints.find("best"), checkpoints.find("last"), checkpoints.find(5)) == (2, 5, 5)
        restored = checkpoints.restore_variables(2, state.variables)
        assert np.all(restored["params"]["head"]["kernel"] == 2)


def test_the_first_of_equals_is_the_best(tmp_path: Path, state: TrainState) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in enumerate([0.1, 0.5, 0.5, 0.5], start=1):
            save_state(checkpoints, at(state, step), zero_sums(updates=True), PROGRESS, accuracy=accuracy)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.find("best") == 2
        assert kept(checkpoints) == [2, 4]


def test_a_checkpoint_inside_an_epoch_is_never_the_best(tmp_path: Path, state: TrainState) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        save_state(checkpoints, at(state, 1), zero_sums(updates=True), PROGRESS, accuracy=0.0)
        save_state(checkpoints, at(state, 2), zero_sums(updates=True), PROGRESS)
        save_state(checkpoints, at(state, 3), zero_sums(updates=True), PROGRESS)
        checkpoints.wait()
        assert (checkpoints.find("best"), kept(checkpoints)) == (1, [1, 3])


def test_everything_comes_back(tmp_path: Path, state: TrainState) -> None:
    progress = Progress(8, 1, best_accuracy=1 / 3, best_epoch=4, stale=2, record={"step": 7, "train_loss": 0.1})
    sums = {name: value + 0.1 for name, value in zero_sums(updates=True).items()}
    told = []
    with Checkpoints(tmp_path) as checkpoints:
        save_state(
            checkpoints, at(state, 7), sums, progress, accuracy=0.5, when_safe=lambda: told.append(kept(checkpoints))
        )
    assert told == [[7]]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.read_progress(7) == progress
        restored, restored_sums = restore_state(checkpoints, 7, state, zero_sums(updates=True))
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 7))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored_sums, sums)


def test_polling_ends_a_save_with_its_checksums(tmp_path: Path, state: TrainState) -> None:
    told: list[bool] = []
    manifest, deadline = tmp_path / "checkpoints/7" / MANIFEST, time.monotonic() + 60
    with Checkpoints(tmp_path) as checkpoints:
        options = {"accuracy": 0.5, "when_safe": lambda: told.append(manifest.exists())}
        save_state(checkpoints, at(state, 7), zero_sums(updates=True), PROGRESS, **options)
        while not told and time.monotonic() < deadline:
            checkpoints.poll()
        assert told == [True]
    assert told == [True]


def test_what_is_saved_is_what_stood_there_when_saving_began(tmp_path: Path) -> None:
    """The step donates its state at once, while the checkpoint is still being written."""
    bump = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    big = {"params": {"w": np.zeros((2048, 2048), np.float32)}, "batch_stats": {}}
    config = Config(model=Classifier(num_classes=2))
    state = TrainState.create(config, big, total_steps=9)
    with Checkpoints(tmp_path) as checkpoints:
        save_state(checkpoints, state, zero_sums(updates=True), PROGRESS, accuracy=0.0)
        params = state.params
        for _ in range(20):
            params = bump(params)
        jax.block_until_ready(params)
        checkpoints.wait()
        target = TrainState.create(config, big, total_steps=9).variables
        assert not np.any(checkpoints.restore_variables(0, target)["params"]["w"])


def test_an_interrupted_save_leaves_the_earlier_checkpoint(tmp_path: Path, state: TrainState) -> None:
    """What it left is removed by whoever trains, never by whoever reads while another process may be saving."""
    with Checkpoints(tmp_path) as checkpoints:
        save_state(checkpoints, at(state, 1), zero_sums(updates=True), PROGRESS, accuracy=0.5)
    torn = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    torn.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.last, checkpoints.find("best")) == (1, 1)
        checkpoints.restore_variables(1, state.variables)
    assert torn.exists()
    with Checkpoints(tmp_path, clean_up=True) as checkpoints:
        save_state(checkpoints, at(state, 3), zero_sums(updates=True), PROGRESS, accuracy=0.4)
    assert not torn.exists()


def test_what_is_not_there_is_named(tmp_path: Path, state: TrainState) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(UserError, match="no checkpoint yet"):
            checkpoints.find("best")
        save_state(checkpoints, at(state, 3), zero_sums(updates=True), PROGRESS, accuracy=0.5)
        checkpoints.wait()
        for which in (4, "4", "first"):
            with pytest.raises(UserError, match=f"no checkpoint {which}; there are: best, last, 3"):
                checkpoints.find(which)
        wrong = {"params": {"head": {"kernel": np.zeros((3, 4))}}, "batch_stats": {"mean": np.zeros(3)}}
        with pytest.raises(UserError, match=r"params/head/kernel is \(3, 2\) there and \(3, 4\)"):
            checkpoints.restore_variables(3, wrong)


# Damage.


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, state: TrainState) -> Path:
    """Checkpoints 5, 10 and 15, the last of them the best."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with Checkpoints(run, keep_best=3) as checkpoints:
        for step in (5, 10, 15):
            save_state(checkpoints, at(state, step), zero_sums(updates=True), PROGRESS, accuracy=step / 100)
    return run


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of them to damage."""
    return shutil.copytree(whole_run, tmp_path / "run")


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def drop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def largest(folder: Path) -> Path:
    """Where the weights are."""
    return max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)


def without_manifests(run: Path) -> None:
    """As an earlier version left it."""
    for path in run.rglob(MANIFEST):
        path.unlink()


def message_of(run: Path, read: Callable[[Checkpoints], object]) -> str:
    """The UserError of a way to read, in one line; nothing on the disk has changed."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with Checkpoints(run) as checkpoints, pytest.raises(UserError) as caught:
        read(checkpoints)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_flipped_bit_in_weights_is_told_with_what_is_whole(run: Path, state: TrainState) -> None:
    file = largest(run / "checkpoints/15/model")
    flip(file)
    name = file.relative_to(run / "checkpoints/15").as_posix()
    message = message_of(run, lambda checkpoints: checkpoints.restore_variables(15, state.variables))
    assert message == (
        f"checkpoint 15 of {run} is damaged ({name}: other content): restore it from a copy, or take --which 10; to go "
        f"on from step 10 remove {run}/checkpoints/15"
    )
    with Checkpoints(run) as checkpoints:  # what is whole of it, and the others, are read
        assert checkpoints.read_progress(15) == PROGRESS
        checkpoints.restore_variables(10, state.variables)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    ("name", "hurt", "told"),
    [
        ("model/manifest.ocdbt", flip, "model/manifest.ocdbt: other content"),
        ("model/_METADATA", cut, "model/_METADATA: "),
        ("train/manifest.ocdbt", drop, "train/manifest.ocdbt: missing"),
        ("_CHECKPOINT_METADATA", drop, "_CHECKPOINT_METADATA: missing"),
        ("model", drop, "model/_METADATA: missing"),
    ],
)
def test_damage_is_one_line_with_or_without_checksums(
    run: Path,
    state: TrainState,
    name: str,
    hurt: Callable[[Path], None],
    told: str,
    checked: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without them what Orbax says stands for the file's name."""
    hurt(run / "checkpoints/15" / name)
    if not checked:
        without_manifests(run)
    message = message_of(run, lambda checkpoints: restore_state(checkpoints, 15, state, zero_sums(updates=True)))
    opening = f"checkpoint 15 of {run} "
    assert message.startswith(
        (f"{opening}is damaged (",) if checked else (f"{opening}is damaged (", f"{opening}cannot be read (")
    )
    assert message.endswith(f"or take --which 10; to go on from step 10 remove {run}/checkpoints/15")
    if checked and "missing" in told:
        assert (told in message) or f"{name}/" in message
    elif checked:
        assert told in message
    assert capfd.readouterr() == ("", "")


def test_damaged_progress(run: Path) -> None:
    flip(run / "checkpoints/15/memory/metadata")
    assert "(memory/metadata: other content)" in message_of(run, lambda checkpoints: checkpoints.read_progress(15))
    (run / "checkpoints/15/memory/metadata").write_text('{"num_train": 8, "epochs": 1}')
    without_manifests(run)
    assert "cannot be read (memory: " in message_of(run, lambda checkpoints: checkpoints.read_progress(15))


@pytest.mark.parametrize("checked", [True, False])
def test_damaged_metrics_hinder_only_the_choice_of_the_best(run: Path, state: TrainState, checked: bool) -> None:
    file = run / "checkpoints/15/metrics/metrics"
    file.write_text(file.read_text().replace("0.15", "0.05") if checked else "{")
    if not checked:
        without_manifests(run)
    message = message_of(run, lambda checkpoints: checkpoints.find("best"))
    damage = "is damaged" if checked else "cannot be read"
    assert message.startswith(f"checkpoint 15 of {run} {damage} (metrics")
    assert "or take --which 10" in message
    with Checkpoints(run, clean_up=True) as checkpoints:  # keeps it: which is the best cannot be told
        assert (checkpoints.find("last"), checkpoints.find(10)) == (15, 10)
        save_state(checkpoints, at(state, 20), zero_sums(updates=True), PROGRESS, accuracy=0.01)
        checkpoints.wait()
        assert kept(checkpoints) == [10, 15, 20]


def test_metrics_under_another_name_are_no_crash(run: Path) -> None:
    """One flipped bit in a checkpoint without checksums: the file is JSON still."""
    file = run / "checkpoints/15/metrics/metrics"
    file.write_text(file.read_text().replace("valid_accuracy", "valid_accuraqy"))
    without_manifests(run)
    message = message_of(run, lambda checkpoints: checkpoints.find("best"))
    assert message.startswith(f"checkpoint 15 of {run} cannot be read (metrics: no 'valid_accuracy'")


def test_a_damaged_manifest(run: Path, state: TrainState) -> None:
    file = run / "checkpoints/15" / MANIFEST
    for place in (0.0, 0.3, 0.99):
        flip(file, place)
        message = message_of(run, lambda checkpoints: checkpoints.restore_variables(15, state.variables))
        assert "(manifest.json: other content; without this file the checkpoint is read unchecked)" in message
        flip(file, place)
    file.unlink()
    with Checkpoints(run) as checkpoints:
        checkpoints.restore_variables(15, state.variables)


def test_no_other_checkpoint_is_whole(run: Path, state: TrainState) -> None:
    for step in (5, 10, 15):
        cut(largest(run / f"checkpoints/{step}/model"))
    message = message_of(run, lambda checkpoints: checkpoints.restore_variables(15, state.variables))
    assert message.endswith(" bytes): restore it from a copy; the run has no other checkpoint that is whole")


def test_a_checkpoint_removed_while_it_is_read(run: Path, state: TrainState) -> None:
    with Checkpoints(run) as checkpoints:
        shutil.rmtree(run / "checkpoints/10")
        with pytest.raises(UserError, match=r"checkpoint 10 of .* removed meanwhile"):
            checkpoints.restore_variables(10, state.variables)


# What a killed removal leaves.


@pytest.mark.parametrize("gone", ["model", "memory/metadata", "metrics", "_CHECKPOINT_METADATA"])
def test_a_half_removed_checkpoint_is_none(run: Path, state: TrainState, gone: str) -> None:
    without_manifests(run)
    drop(run / "checkpoints/10" / gone)
    with Checkpoints(run) as checkpoints:
        assert (checkpoints.steps, checkpoints.last, checkpoints.find("best")) == ([5, 15], 15, 15)
        with pytest.raises(UserError, match="no checkpoint 10; there are: best, last, 5, 15"):
            checkpoints.find(10)
    assert (run / "checkpoints/10").exists()
    with Checkpoints(run, keep_best=2, clean_up=True) as checkpoints:
        assert not (run / "checkpoints/10").exists()
        save_state(checkpoints, at(state, 20), zero_sums(updates=True), PROGRESS, accuracy=0.2)
    with Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [15, 20]


def test_the_last_checkpoint_is_never_taken_for_a_half_removed_one(run: Path, state: TrainState) -> None:
    without_manifests(run)
    for step in (10, 15):  # as who ships a run to predict with may leave it
        drop(run / f"checkpoints/{step}/train")
    with Checkpoints(run, clean_up=True) as checkpoints:
        assert checkpoints.steps == [5, 10, 15]
        assert "train/_METADATA: missing" in message_of(
            run, lambda checkpoints: restore_state(checkpoints, 15, state, zero_sums(updates=True))
        )


def test_a_checkpoint_with_a_manifest_was_damaged_and_not_half_removed(run: Path, state: TrainState) -> None:
    drop(run / "checkpoints/10/model")
    with Checkpoints(run, clean_up=True) as checkpoints:
        assert checkpoints.steps == [5, 10, 15]
        with pytest.raises(UserError, match=r"checkpoint 10 of .* is damaged \(model/.*: missing\): .* --which 15$"):
            checkpoints.restore_variables(10, state.variables)


def test_a_checkpoint_is_moved_away_before_it_is_deleted(run: Path, state: TrainState) -> None:
    """So that a kill leaves it whole or not at all."""
    removed = run / "checkpoints/removed"
    with Checkpoints(run, keep_best=1, clean_up=True) as checkpoints:
        save_state(checkpoints, at(state, 20), zero_sums(updates=True), PROGRESS, accuracy=0.2)
        checkpoints._manager.wait_until_finished()
        assert sorted(path.name for path in removed.iterdir()) == ["10", "15", "5"]
        checkpoints.wait()
        assert not removed.exists()
    (removed / "15/model").mkdir(parents=True)
    with Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [20]
    with Checkpoints(run, clean_up=True):
        assert not removed.exists()


# What cannot be written.


@pytest.mark.parametrize("limit", [0, 300, 5000])
def test_a_full_disk_is_one_line(run: Path, state: TrainState, limit: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The system lets no file grow beyond `limit` bytes."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before, told = resource.getrlimit(resource.RLIMIT_FSIZE), []
    noise = {"w": np.random.default_rng(0).normal(size=20_000)}  # that cannot be compressed

    def save() -> None:
        with Checkpoints(run, keep_best=3, clean_up=True) as checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            checkpoints.save(20, noise, noise, PROGRESS, when_safe=lambda: told.append(20))

    try:
        with pytest.raises(UserError) as caught:
            save()
        gc.collect()  # asyncio tells some errors only then
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"cannot save checkpoint 20 in {run} (File too large): raise the limit on the size of files (ulimit -f), then "
        "go on with --resume; the checkpoint of step 15 stands"
    )
    assert (told, capfd.readouterr()) == ([], ("", ""))
    with Checkpoints(run, keep_best=3, clean_up=True) as checkpoints:
        assert checkpoints.steps == [5, 10, 15]
        save_state(checkpoints, at(state, 20), zero_sums(updates=True), PROGRESS, accuracy=0.2)
    with Checkpoints(run) as checkpoints:
        assert checkpoints.steps == [10, 15, 20]
        restore_state(checkpoints, 20, state, zero_sums(updates=True))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["10", "15", "20"]


@pytest.mark.parametrize("ask", ["poll", "wait", "save", "end"])
def test_an_error_in_the_background_is_raised_at_the_next_question(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told = []

    def save() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            monkeypatch.setattr(checkpoints._manager._checkpointer, "wait_until_finished", fail)
            save_state(checkpoints, at(state, 1), zero_sums(updates=True), PROGRESS, when_safe=lambda: told.append(1))
            while ask == "poll":
                checkpoints.poll()
            if ask == "wait":
                checkpoints.wait()
            if ask == "save":
                save_state(checkpoints, at(state, 2), zero_sums(updates=True), PROGRESS)

    with pytest.raises(UserError, match=r"checkpoint 1 in .* \(No space left.*free some space, .*none before it"):
        save()
    assert not told


@pytest.mark.parametrize(("first", "raised"), [(UserError, "first"), (KeyboardInterrupt, "cannot save checkpoint 20")])
def test_a_save_that_fails_while_another_error_ends_the_training(
    run: Path, state: TrainState, first: type[BaseException], raised: str
) -> None:
    """A mistake is the first cause; but one who stops a training must hear that it was not saved."""

    def save() -> None:
        with Checkpoints(run) as checkpoints:
            save_state(checkpoints, at(state, 20), zero_sums(updates=True), PROGRESS)
            checkpoints._manager.wait_until_finished()
            (run / "checkpoints/20" / MANIFEST).mkdir()
            (run / "checkpoints/20" / MANIFEST / "in the way").touch()
            raise first("first")

    with pytest.raises(UserError, match=raised):
        save()


def test_a_fault_of_the_program_is_no_damage(run: Path, state: TrainState) -> None:
    target = {"params": {"head": {"kernel": np.zeros((3, 2))}}, "batch_stats": {"mean": SimpleNamespace(shape=(3,))}}
    with Checkpoints(run) as checkpoints, pytest.raises(ValueError, match="Unsupported type") as caught:
        checkpoints.restore_variables(15, target)
    assert not isinstance(caught.value, UserError)


def test_only_what_orbax_leaves_behind_is_kept_from_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    for name in ("absl", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    keep_quiet.__wrapped__()
    of_orbax = SimpleNamespace(cr_code=SimpleNamespace(co_filename="/lib/orbax/checkpoint/a.py"))
    others = [
        SimpleNamespace(exc_value=RuntimeError("another"), object=None),
        SimpleNamespace(
            exc_value=ValueError(), object=SimpleNamespace(cr_code=SimpleNamespace(co_filename="/mine.py"))
        ),
    ]
    for unraisable in (
        SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None),
        SimpleNamespace(exc_value=ValueError(), object=of_orbax),
        *others,
    ):
        sys.unraisablehook(unraisable)
    assert shown == others
    for path, level, is_shown in (
        ("/lib/orbax/a.py", 40, False),
        ("/lib/orbax/a.py", 20, True),
        ("/mine.py", 40, True),
    ):
        record = logging.LogRecord("absl", level, path, 1, "failed", (), None)
        assert bool(logging.getLogger("absl").filter(record)) == is_shown
    for text, is_shown in (('ValueError(Error opening "zarr" driver: ...)', False), ("ValueError('mine')", True)):
        record = logging.LogRecord("asyncio", 40, "/base_events.py", 1, "Task exception: %s", (text,), None)
        assert bool(logging.getLogger("asyncio").filter(record)) == is_shown


def test_damage_of_one_item_is_none_of_another(run: Path, state: TrainState) -> None:
    for name in ("train/_METADATA", "metrics/metrics"):
        cut(run / "checkpoints/15" / name)
    with Checkpoints(run) as checkpoints:
        assert checkpoints.restore_variables(15, state.variables)["params"]["head"]["kernel"][0, 0] == 15
    flip(largest(run / "checkpoints/10/model"))
    with Checkpoints(run) as checkpoints:
        assert checkpoints.read_progress(10) == PROGRESS


def test_reasons_are_short() -> None:
    tensorstore = ValueError('Error writing "a" in "/b": Failed to write 7 bytes: No space [os_error_code=\'28\']\n[x]')
    assert (reason_of(tensorstore), mend_of(tensorstore)) == ("No space left on device", "free some space")
    assert (reason_of(OSError(errno.EIO, "")), mend_of(OSError(errno.EIO, ""))) == ("Input/output error", "mend that")
    assert reason_of(KeyError("model")) == "no 'model'"
    assert reason_of(ValueError("a\nb")) == "a b"
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("a" * 1000))) < 210
