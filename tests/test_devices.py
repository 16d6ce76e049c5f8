"""The same training over one device and over eight, in every form: losses, parameters, statistics."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxfood import TrainState, load_config, train_step
from jaxfood.config import Config
from jaxfood.config.loss import CrossEntropy
from jaxfood.config.sections import DeviceConfig
from jaxfood.data.batches import ResidentBatches, epoch_order
from jaxfood.data.pictures import Pictures
from jaxfood.devices import by_rows, compile_step, make_mesh, on_every_device, padded_rows, takes_rows_by_device
from jaxfood.errors import UserError
from jaxfood.model.networks import init_variables
from jaxfood.optim.losses import make_loss
from jaxfood.training.metrics import batch_sums, means, zero_sums
from jaxfood.training.step import add_evaluation, add_update, summed_loss

pytestmark = pytest.mark.usefixtures("narrow")

STEPS, BATCH_SIZE = 10, 10  # of 24 pictures: epochs of 10, 10 and 4, none of which 8 devices divide
SETTINGS = (
    *("data.image_size=32", "model.num_classes=3", f"train.batch_size={BATCH_SIZE}"),
    *("optimizer.name=sgd", "optimizer.learning_rate=0.01"),
)


def configured(*settings: str) -> Config:
    return load_config(None, (*SETTINGS, *settings))


@pytest.fixture(scope="module")
def food() -> Pictures:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 24).astype(np.int32)
    images = (rng.integers(0, 150, (24, 32, 32, 3)) + 50 * np.eye(3)[labels][:, None, None]).astype(np.uint8)
    return Pictures(images, labels, tuple(Path(f"{i}.jpg") for i in range(24)))


def train(config: Config, food: Pictures, devices: int) -> tuple[list[float], dict[str, Any]]:
    """The loss of each of ten updates, and the variables after them."""
    mesh = make_mesh(DeviceConfig(count=devices))
    pictures = ResidentBatches(food, mesh, parts=config.train.accumulate, by_device=takes_rows_by_device(config))
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), init_variables(config))
    state = on_every_device(TrainState.create(config, variables, total_steps=STEPS), mesh)
    sums = on_every_device(zero_sums(updates=True), mesh)
    losses: list[float] = []
    step = None
    for epoch in range(4):
        for batch in pictures.batches(epoch_order(0, epoch, len(food)), BATCH_SIZE):
            if len(losses) < STEPS:
                step = step or compile_step(add_update, config, mesh, (state, sums, batch))
                state, new_sums = step(state, sums, batch)
                losses.append(float(means(new_sums)["loss"]))
    return losses, jax.device_get(state.variables)


FORMS = {"jit": (), "pmap": ("train.parallel=pmap",)}


@pytest.fixture(scope="module", params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def on_one_device(request: pytest.FixtureRequest, food: Pictures) -> Any:
    double = request.param == "float64"
    with jax.enable_x64(double):
        yield *train(configured(), food, devices=1), 1e-10 if double else 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_eight_devices_are_as_one(form: str, on_one_device: Any, food: Pictures) -> None:
    losses, variables, tolerance = on_one_device
    found_losses, found_variables = train(configured(*FORMS[form]), food, devices=8)
    np.testing.assert_allclose(found_losses, losses, rtol=tolerance)
    compare = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    jax.tree.map(compare, found_variables, variables)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_without_synchronised_batch_norm_each_device_normalises_its_own_share(form: str, food: Pictures) -> None:
    """As PyTorch's DistributedDataParallel: the gradient of all, the running statistics of the first device."""
    with jax.enable_x64(True):
        config = configured(*FORMS[form], "model.sync_batch_norm=false")
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), init_variables(config))
        batch = {"image": food.images[:8], "label": food.labels[:8]}
        state = TrainState.create(config, variables, total_steps=1)
        shares = [{name: rows[first : first + 4] for name, rows in batch.items()} for first in (0, 4)]
        grad_fn = jax.jit(jax.grad(partial(summed_loss, state.model, state.loss), has_aux=True))
        (first, (batch_stats, _)), (second, _) = (
            grad_fn(variables["params"], variables["batch_stats"], share) for share in shares
        )
        rate = config.optimizer.learning_rate
        params = jax.tree.map(lambda p, a, b: p - rate * (a + b) / 8, variables["params"], first, second)

        mesh = make_mesh(DeviceConfig(count=2))
        arguments = (*on_every_device((state, zero_sums(updates=True)), mesh), place(batch, mesh, config))
        new_state, _ = compile_step(add_update, config, mesh, arguments)(*arguments)
        compare = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
        jax.tree.map(compare, new_state.variables, {"params": params, "batch_stats": batch_stats})


@pytest.mark.slow
def test_another_devices_running_statistics_that_are_not_finite_do_not_reach_the_first(food: Pictures) -> None:
    """Its gradient does, as it should: the loss is not finite, and training stops; what is saved stays whole."""
    config = configured("model.sync_batch_norm=false")
    images = food.images[:8].astype(np.float32) / 255
    images[4:] = np.nan
    mesh = make_mesh(DeviceConfig(count=2))
    state = on_every_device(TrainState.create(config, init_variables(config), total_steps=1), mesh)
    batch = {"image": images, "label": food.labels[:8], "mask": np.ones(8, np.float32)}
    arguments = (state, on_every_device(zero_sums(updates=True), mesh), jax.device_put(batch, by_rows(mesh)))
    new_state, sums = compile_step(add_update, config, mesh, arguments)(*arguments)
    assert not np.isfinite(sums["loss"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(new_state.batch_stats))


def test_padding_that_is_not_finite_enters_no_sum() -> None:
    logits, labels = np.float32([[1, 2, 3], [np.nan, 0, 0]]), np.array([2, 7])  # of three classes
    sums = batch_sums(make_loss(CrossEntropy(), 3), logits, {"label": labels, "mask": np.array([1, 0])})
    assert {name: float(value) for name, value in means(sums).items()} == pytest.approx(
        {"loss": np.log(np.exp([1, 2, 3]).sum()) - 3, "accuracy": 1}
    )


def place(batch: dict[str, np.ndarray], mesh: Mesh, config: Config) -> dict[str, jax.Array]:
    """A batch as the step takes it."""
    pictures = Pictures(batch["image"], batch["label"], tuple(map(Path, map(str, batch["label"]))))
    resident = ResidentBatches(pictures, mesh, parts=config.train.accumulate, by_device=takes_rows_by_device(config))
    return next(resident.batches(np.arange(len(pictures)), len(pictures)))


@pytest.mark.slow
@pytest.mark.smoke
def test_evaluation_counts_each_picture_once_over_eight_devices(food: Pictures) -> None:
    found = {}
    for form, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
        config, mesh = configured(*FORMS[form]), make_mesh(DeviceConfig(count=devices))
        state = TrainState.create(config, init_variables(config), total_steps=1)
        evaluation = partial(add_evaluation, state.model, state.loss)
        batch = place({"image": food.images[:5], "label": food.labels[:5]}, mesh, config)
        arguments = (*on_every_device((state.variables, zero_sums(updates=False)), mesh), batch)
        sums = compile_step(evaluation, config, mesh, arguments)(*arguments)
        assert sums["count"] == 5
        found[form, devices] = means(jax.device_get(sums))
    for values in found.values():
        assert values == pytest.approx(found["jit", 1], rel=1e-5)


# Accumulation.


@pytest.mark.slow
def test_parts_sum_to_the_batch_and_batch_norm_sees_each_alone(food: Pictures) -> None:
    """Against PyTorch's habit, written out: `backward` for each part, then one `step`."""
    with jax.enable_x64(True):
        config = configured("train.accumulate=2")
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), init_variables(config))
        state = TrainState.create(config, variables, total_steps=1)
        batch = {"image": food.images[:5], "label": food.labels[:5]}
        grad_fn = jax.jit(jax.grad(partial(summed_loss, state.model, state.loss), has_aux=True))
        total, batch_stats = jax.tree.map(jnp.zeros_like, variables["params"]), variables["batch_stats"]
        for part in range(2):
            rows = {name: values[part::2] for name, values in batch.items()}
            grads, (batch_stats, _) = grad_fn(variables["params"], batch_stats, rows)
            total = jax.tree.map(jnp.add, total, grads)
        rate = config.optimizer.learning_rate
        params = jax.tree.map(lambda p, g: p - rate * g / 5, variables["params"], total)

        mesh = make_mesh(DeviceConfig(count=1))
        new_state, metrics = train_step(state, place(batch, mesh, config))  # 5 pictures in 6 rows
        compare = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
        jax.tree.map(compare, new_state.variables, {"params": params, "batch_stats": batch_stats})
        assert metrics["accuracy"] * 5 == pytest.approx(round(float(metrics["accuracy"] * 5)))


@pytest.mark.slow
def test_a_batch_in_parts_is_the_same_update_where_batch_norm_sees_the_same(food: Pictures) -> None:
    """Each picture twice, one for each part: mean and variance of a part are then the whole batch's."""
    with jax.enable_x64(True):
        twice = {"image": np.repeat(food.images[:4], 2, axis=0), "label": np.repeat(food.labels[:4], 2)}
        updated = []
        for parts in (1, 2):
            config = configured(f"train.accumulate={parts}")
            variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), init_variables(config))
            state, metrics = train_step(TrainState.create(config, variables, total_steps=1), twice)
            updated.append((state.params, metrics))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), *updated)


@pytest.mark.slow
def test_a_part_of_padding_alone_moves_no_statistics(food: Pictures) -> None:
    config = configured("train.accumulate=4")
    state = TrainState.create(config, init_variables(config), total_steps=1)
    mask = np.array([1, 0, 0, 0], np.float32)
    batch = {"image": food.images[:4], "label": food.labels[:4], "mask": mask}
    once = configured()
    alone = {name: rows[:1] for name, rows in batch.items()}
    expected, _ = train_step(TrainState.create(once, init_variables(once), total_steps=1), alone)
    new_state, metrics = train_step(state, batch)
    assert metrics["loss"] > 0
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), new_state.variables, expected.variables)


def test_rows_that_do_not_divide_into_parts_are_refused(food: Pictures) -> None:
    config = configured("train.accumulate=4")
    state = TrainState.create(config, init_variables(config), total_steps=1)
    with pytest.raises(ValueError, match=r"5 rows does not divide into train\.accumulate = 4 parts"):
        train_step(state, {"image": food.images[:5], "label": food.labels[:5]})


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"device\.count = 99: there are only 8 \(cpu\)"):
        make_mesh(DeviceConfig(count=99))


@pytest.mark.parametrize(
    ("settings", "chips", "line"),
    [
        (("train.batch_size=64",), 1, "64 pictures a chip leave 50% .* 128 would fill it"),
        (("train.batch_size=640",), 4, "160 pictures a chip leave 38% .* 1024 would fill it"),
        (("train.batch_size=512", "train.accumulate=2"), 4, "64 pictures a chip leave 50% .* 1024 would fill it"),
        (("train.batch_size=512",), 4, "^$"),
    ],
)
def test_a_batch_that_a_tpu_pads_is_told(settings: tuple[str, ...], chips: int, line: str) -> None:
    def mesh(platform: str) -> Any:
        return SimpleNamespace(size=chips, devices=np.array([SimpleNamespace(platform=platform)] * chips))

    assert re.search(line, padded_rows(load_config(None, settings), mesh("tpu")))
    assert padded_rows(load_config(None, settings), mesh("cpu")) == ""
