from pathlib import Path

import jax
import numpy as np
import pytest

from jaxfood.config import Config
from jaxfood.config.sections import ModelConfig
from jaxfood.errors import UserError
from jaxfood.runs.checkpoints import Checkpoints
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


def test_what_is_saved_is_what_stood_there_when_saving_began(tmp_path: Path) -> None:
    """The step donates its state at once, while the checkpoint is still being written."""
    bump = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    big = {"params": {"w": np.zeros((2048, 2048), np.float32)}, "batch_stats": {}}
    config = Config(model=ModelConfig(num_classes=2))
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
