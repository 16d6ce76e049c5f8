"""Distillation: formulas, PyTorch's divergence, what teachers see, devices, and runs that are taught."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood import TrainState, load_config
from jaxfood.config import Config
from jaxfood.config.loss import CrossEntropy
from jaxfood.config.sections import AugmentConfig, DeviceConfig
from jaxfood.data.augment import augment
from jaxfood.devices import by_rows, compile_step, make_mesh, on_every_device
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables, make_model, to_float
from jaxfood.optim.losses import distilled, make_loss
from jaxfood.runs.directory import load_run
from jaxfood.train import train_and_evaluate
from jaxfood.training import loop
from jaxfood.training.distillation import Teachers
from jaxfood.training.metrics import batch_sums, means, zero_sums
from jaxfood.training.saved import begin_from
from jaxfood.training.step import add_augmented_update, add_taught_update

SETTINGS = (
    *("data.image_size=32", "model.num_classes=3", "model.name=resnet", "model.width=4", "model.blocks=0"),
    *("optimizer.name=sgd", "optimizer.learning_rate=0.05"),
)
RNG = np.random.default_rng(1)
LOGITS, OTHERS = RNG.normal(0, 3, (2, 6, 3))
LABELS = RNG.integers(0, 3, 6).astype(np.int32)
TEMPERATURE, WEIGHT = 2.5, 0.3


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


TARGETS = softmax(OTHERS / TEMPERATURE)


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# The loss.


@pytest.mark.usefixtures("float64")
def test_the_loss_is_the_weighted_sum_of_both() -> None:
    """With class weights too, by which pictures count in both shares; a target of 0 is no NaN."""
    targets = TARGETS.copy()
    targets[0] = (0, 1, 0)
    weights = np.array([1, 0.5, 4])
    loss = make_loss(CrossEntropy(class_weights=(1, 0.5, 4)), 3)

    def summed(logits: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        taught = distilled(loss, targets, weight=WEIGHT, temperature=TEMPERATURE)
        sums = batch_sums(taught, logits, {"label": LABELS})
        return sums["loss"], sums

    grads, sums = jax.jit(jax.grad(summed, has_aux=True))(LOGITS)
    own = -np.log(softmax(LOGITS))[np.arange(6), LABELS]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = targets * (np.log(targets) - np.log(softmax(LOGITS / TEMPERATURE)))
    divergence = np.nansum(terms, axis=1)
    of_each = (1 - WEIGHT) * own + WEIGHT * TEMPERATURE**2 * divergence
    expected = np.sum(weights[LABELS] * of_each) / np.sum(weights[LABELS])
    assert float(means(sums)["loss"]) == pytest.approx(expected, rel=1e-12)
    by_hand = (1 - WEIGHT) * (softmax(LOGITS) - np.eye(3)[LABELS])
    by_hand += WEIGHT * TEMPERATURE * (softmax(LOGITS / TEMPERATURE) - targets)
    np.testing.assert_allclose(grads, weights[LABELS][:, None] * by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.torch
@pytest.mark.usefixtures("float64")
def test_the_divergence_is_pytorchs() -> None:
    import torch

    logits = torch.tensor(LOGITS, requires_grad=True)
    answers = torch.log_softmax(logits / TEMPERATURE, dim=1)
    kl = torch.nn.KLDivLoss(reduction="batchmean")(answers, torch.tensor(TARGETS)) * TEMPERATURE**2
    expected = WEIGHT * kl + (1 - WEIGHT) * torch.nn.CrossEntropyLoss()(logits, torch.tensor(LABELS, dtype=torch.long))
    expected.backward()

    def ours(logits: jax.Array) -> jax.Array:
        loss = make_loss(CrossEntropy(), 3)
        taught = distilled(loss, TARGETS, weight=WEIGHT, temperature=TEMPERATURE)
        mean: jax.Array = means(batch_sums(taught, logits, {"label": LABELS}))["loss"]
        return mean

    value, grads = jax.jit(jax.value_and_grad(ours))(LOGITS)
    assert float(value) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grads, logits.grad.numpy(), rtol=1e-10, atol=1e-12)


# The update.


def drawn(config: Config, seed: int) -> dict[str, Any]:
    """Variables in the type of the moment."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_variables(config))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.6, leaf.shape)), shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), shapes["batch_stats"])
    return {"params": params, "batch_stats": stats}


def teachers_of(config: Config) -> Teachers:
    """Two, of which the second sees its pictures at 64 px."""
    variables = tuple(drawn(config, seed) for seed in (1, 2))
    return Teachers(((make_model(config.model), 32), (make_model(config.model), 64)), variables, (), ())


def pictures(rows: int) -> np.ndarray:
    return (RNG.integers(0, 256, (rows, 32, 32, 3)) * RNG.uniform(0, 1, (rows, 1, 1, 3))).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_the_target_is_the_mean_answer_to_the_view_that_is_trained_on() -> None:
    config = load_config(None, (*SETTINGS, f"train.distill_weight={WEIGHT}", "train.seed=5"))
    teachers, images, positions = teachers_of(config), pictures(4), np.arange(4)
    changed = AugmentConfig(flip=True, crop=4)
    view = augment(changed, images, positions, jax.random.fold_in(jax.random.key(5), 0))
    larger = np.asarray(jax.image.resize(to_float(view), (4, 64, 64, 3), "linear"))
    model, both = make_model(config.model), teachers.variables
    logits = [model.apply(both[0], to_float(view), train=False), model.apply(both[1], larger, train=False)]
    expected = sum(softmax(np.asarray(each) / 4) for each in logits) / 2
    found = teachers.answer(both, view, temperature=4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)

    state = TrainState.create(config, drawn(config, 0), total_steps=10)
    batch = {"image": images, "label": LABELS[:4], "position": positions}
    options: dict[str, Any] = {"config": changed, "seed": 5, "steps_per_epoch": 3}
    answer = partial(teachers.answer, temperature=4.0)
    step = jax.jit(partial(add_taught_update, answer=answer, **options))
    new_state, sums = step(state, zero_sums(updates=True), both, batch)
    student, _ = model.apply(state.variables, to_float(view), train=True, mutable=["batch_stats"])
    loss = distilled(make_loss(config.loss, 3), jnp.asarray(expected), weight=WEIGHT, temperature=4)
    assert float(means(sums)["loss"]) == pytest.approx(float(means(batch_sums(loss, student, batch))["loss"]), rel=1e-6)
    untaught, _ = jax.jit(partial(add_augmented_update, **options))(state, zero_sums(updates=True), batch)
    assert np.any(new_state.params["head"]["bias"] != untaught.params["head"]["bias"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jit", "pmap"])
@pytest.mark.usefixtures("float64")
def test_eight_devices_are_taught_as_one(form: str) -> None:
    images, labels = pictures(32), np.arange(32, dtype=np.int32) % 3
    batch = {"image": images, "label": labels, "position": np.arange(32), "mask": np.ones(32)}
    found = []
    for devices, parallel in ((1, "jit"), (8, form)):
        config = load_config(None, (*SETTINGS, f"train.parallel={parallel}"))
        teachers, mesh = teachers_of(config), make_mesh(DeviceConfig(count=devices))
        by_device = {name: rows.reshape(devices, -1, *rows.shape[1:]) for name, rows in batch.items()}
        rows = jax.device_put(by_device if parallel == "pmap" else batch, by_rows(mesh))
        state = TrainState.create(config, drawn(config, 0), total_steps=10)
        whole = on_every_device((state, zero_sums(updates=True), teachers.variables), mesh)
        options: dict[str, Any] = {"config": AugmentConfig(flip=True), "seed": 5, "steps_per_epoch": 3}
        answer = partial(teachers.answer, temperature=4.0)
        step = compile_step(partial(add_taught_update, answer=answer, **options), config, mesh, (*whole, rows))
        new_state, sums = step(*whole, rows)
        found.append((float(means(sums)["loss"]), jax.device_get(new_state.params)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), found[1], found[0])


# A run.


@pytest.fixture
def teacher(tiny_config: Config, tmp_path: Path) -> Path:
    """A run of drawn weights, of another network than those it teaches."""
    config = load_config(None, (f"data.root={tiny_config.data.root}", *SETTINGS))
    begin_from(tmp_path / "teacher", config, jax.tree.map(np.float32, drawn(config, 1)))
    return tmp_path / "teacher"


def taught_by(config: Config, *teachers: str | Path, **train: Any) -> Config:
    named = ",".join(map(str, teachers))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, teachers=named, **train))


def refusal(config: Config, workdir: Path, **how: bool) -> str:
    with pytest.raises(UserError) as raised:
        train_and_evaluate(config, workdir, **how)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_paths_of_teachers_are_stored_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ("train.teachers=a, b/c,/d",))
    assert config.train.teachers == f"{tmp_path / 'a'},{tmp_path / 'b' / 'c'},/d"


def test_what_cannot_teach_is_refused(tiny_config: Config, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    absent = tmp_path / "teachr"
    message = refusal(taught_by(tiny_config, teacher, absent), run)
    assert message.startswith(f"train.teachers: {absent} does not exist")
    assert "is not a run: " in refusal(taught_by(tiny_config, tmp_path), run)
    itself = refusal(taught_by(tiny_config, teacher), teacher, overwrite=True)
    assert itself == f"train.teachers: {teacher} is this run itself: name others, or take another --workdir"
    (teacher / "classes.txt").write_text("0\n1\n")
    found = refusal(taught_by(tiny_config, teacher), run)
    assert found == (
        "train.teachers: the runs differ in their number of classes: this run has 3, "
        f"{teacher} has 2; give runs of the same classes"
    )
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_a_taught_run_goes_on_to_the_bit_with_its_own_teachers(
    tiny_config: Config, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    config = taught_by(tiny_config, teacher)
    train_and_evaluate(config, tmp_path / "whole")
    assert f"taught by {teacher} (resnet, best weights, step 0)\n" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "reached", lambda self, done: done == 4)
        one_by_one = dataclasses.replace(config, train=dataclasses.replace(config.train, steps_per_call=1))
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(one_by_one, tmp_path / "halves")
    moved = shutil.copytree(teacher, tmp_path / "moved")
    train_and_evaluate(taught_by(tiny_config, moved), tmp_path / "halves", resume=True)
    ours, theirs = (load_run(tmp_path / run, "last")[1] for run in ("halves", "whole"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    longer = taught_by(tiny_config, moved, epochs=3)
    digests = json.loads((tmp_path / "halves" / "teachers.json").read_text())["digests"]
    assert len(digests) == 1
    twice = refusal(taught_by(longer, moved, teacher), tmp_path / "halves", resume=True)
    assert "the teachers are not those of" in twice
    assert "(2, and there were 1)" in twice
    shutil.rmtree(moved)
    assert "does not exist" in refusal(longer, tmp_path / "halves", resume=True)
    other = load_config(None, (f"data.root={tiny_config.data.root}", *SETTINGS))
    begin_from(moved, other, jax.tree.map(np.float32, drawn(other, 2)))
    assert "(number 1 has other weights)" in refusal(longer, tmp_path / "halves", resume=True)
    alone = refusal(taught_by(tiny_config, epochs=3), tmp_path / "halves", resume=True)
    assert alone.startswith("--resume cannot change train.teachers (")
