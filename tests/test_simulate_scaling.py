"""The work counted by XLA and by a ring run by hand; limits that any time must keep; the document's tables."""

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulate_scaling
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scaling_measurements import check, measure_noise, noise_scale
from scaling_model import (
    CHIPS,
    Chip,
    all_reduce_seconds,
    best_batch,
    flops,
    layers,
    optimizer,
    reduced_bytes,
    sent_bytes,
    simulate,
)

from jaxfood import FoodClassifier
from jaxfood.config import load_config
from jaxfood.data.index import index_pictures
from jaxfood.model.classifier import FEATURES, HIDDEN
from jaxfood.model.networks import init_variables

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"


def plain_params(image_size: int, num_classes: int = 11) -> dict[str, Any]:
    """Shapes of the classifier's parameters, but for the convolutions' biases, which BatchNorm takes out."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    channels, widths = (3, *FEATURES), (FEATURES[-1] * (image_size // 32) ** 2, *HIDDEN, num_classes)
    return {
        "blocks": [(shape(3, 3, before, after), shape(after), shape(after)) for before, after in pairwise(channels)],
        "dense": [(shape(before, after), shape(after)) for before, after in pairwise(widths)],
    }


def plain_loss(params: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """The classifier in the plainest JAX. Padding repeats the picture, for XLA counts no products with zeros."""
    x = images
    for kernel, scale, offset in params["blocks"]:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean = x.mean((0, 1, 2))
        var = jnp.square(x - mean).mean((0, 1, 2))
        x = (x - mean) * lax.rsqrt(var + 1e-5) * scale + offset
        batch, height, width, features = x.shape
        x = jax.nn.relu(x.reshape(batch, height // 2, 2, width // 2, 2, features).max((2, 4)))
    x = x.reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(params["dense"]):
        x = (jax.nn.relu(x) if i else x) @ kernel + bias
    return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1).mean()


def arguments_of(batch: int, image_size: int, **sharding: Any) -> tuple[Any, ...]:
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.float32, **sharding)
    return plain_params(image_size), images, jax.ShapeDtypeStruct((batch,), jnp.int32, **sharding)


def test_parameters_are_the_classifiers():
    for size in (32, 128):
        images = jnp.zeros((1, size, size, 3))
        shapes = jax.eval_shape(FoodClassifier().init, jax.random.key(0), images)["params"]
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        assert sum(layer.parameters for layer in layers(1, size)) == count


@pytest.mark.slow
@pytest.mark.parametrize("which", ["forward", "update"])
def test_flops_are_those_that_xla_counts(which):
    work = plain_loss if which == "forward" else jax.grad(plain_loss)
    counted = jax.jit(work).lower(*arguments_of(2, 32)).compile().cost_analysis()["flops"]
    assert flops(layers(2, 32))[which == "update"] == pytest.approx(counted, rel=0.03)


def test_a_picture_of_the_homework_takes_what_the_document_says():
    forward, update = flops(layers(1, 128))
    assert forward == pytest.approx(2.188e9, rel=1e-3)
    assert update == pytest.approx(6.509e9, rel=1e-3)
    assert flops(layers(64, 128))[1] == 64 * update


def test_bytes_of_the_first_convolution():
    convolve, *_ = layers(2, 32, width=4)[0].forward
    assert convolve.bytes == 4 * (2 * 32 * 32 * (3 + 64) + 3 * 3 * 3 * 64)


def test_the_documents_memory_traffic():
    network = layers(64, 128)
    operations = [operation for layer in network for operation in (*layer.forward, *layer.backward)]
    assert sum(operation.bytes for operation in operations) / 64 == pytest.approx(39e6, rel=0.01)
    assert sum(operation.bytes for operation in operations if not operation.flops) / 64 == pytest.approx(24e6, rel=0.01)
    # Of the 64 channels of the first block: the output twice to read, its gradient twice, in bfloat16; the rest pooled.
    output = 2 * 64 * 128**2
    passes = sum(operation.bytes for operation in (*network[0].forward, *network[0].backward) if not operation.flops)
    assert passes / 64 == 4 * output + 6 * output // 4 + 4 * output // 8


def test_the_documents_predictions_for_one_device():
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", DOCUMENT.read_text(), re.M)
    assert len(rows) == 3
    for product, memory, predicted, measured, ratio in (map(float, row) for row in rows):
        chip = Chip(product * 1e9, memory * 1e9, width=4)
        assert simulate(chip, 1, 16, 128).total == pytest.approx(predicted, abs=1e-3)
        assert measured / predicted == pytest.approx(ratio, abs=0.01)


@pytest.mark.slow
def test_reduced_bytes_are_those_of_the_compiled_program():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    gradient = jax.jit(jax.grad(plain_loss), in_shardings=(everywhere, split, split), out_shardings=everywhere)
    program = gradient.lower(*arguments_of(8, 32)).compile().as_text()
    counted = 0
    for results in re.findall(r"= (.*) all-reduce(?:-start)?\(", program):
        for sizes in re.findall(r"f32\[([\d,]*)\]", results):
            counted += 4 * math.prod(int(size) for size in sizes.split(",") if size)
    gradients, moments = reduced_bytes(layers(1, 32))
    assert 0 <= counted - gradients - moments <= moments / 4  # how XLA derives the variance, a third sum backward


def test_a_ring_sends_so_many_bytes():
    chips, size = 5, 40
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 9, (chips, chips, size // chips))  # of each chip: its array in as many parts as chips
    expected = parts.sum(0)
    sent = np.zeros(chips, int)
    for turn in range(2 * (chips - 1)):  # reduce-scatter, then all-gather
        moving = [(chip - turn) % chips for chip in range(chips)]
        messages = [parts[chip, part].copy() for chip, part in enumerate(moving)]
        for chip, (part, message) in enumerate(zip(moving, messages, strict=True)):
            receiver = (chip + 1) % chips
            parts[receiver, part] = message + (parts[receiver, part] if turn < chips - 1 else 0)
            sent[chip] += message.size
    np.testing.assert_array_equal(parts, np.broadcast_to(expected, parts.shape))
    assert set(sent) == {sent_bytes(size, chips)}


def test_all_reduce_within_a_ring_and_between_groups():
    ring = Chip(1, 1, group=8, axes=1, link=100.0, hop=3.0, launch=7.0, outer_link=10.0, outer_hop=5.0)
    assert all_reduce_seconds(ring, 800, 1) == 0
    assert all_reduce_seconds(ring, 800, 8) == pytest.approx(7 + 2 * 7 / 8 * 800 / 100 + 2 * 7 * 3)
    # Four groups: each chip has an eighth of the array to sum with three others, through a tree of two levels.
    between = 2 * 3 / 4 * 100 / 10 + 2 * 2 * 5
    assert all_reduce_seconds(ring, 800, 32) == pytest.approx(all_reduce_seconds(ring, 800, 8) + between)


def test_a_torus_is_as_many_hops_as_its_sides():
    torus = Chip(1, 1, group=64, axes=3, hop=1.0)
    assert all_reduce_seconds(torus, 8, 64) == pytest.approx(2 * 3 * (4 - 1))


def test_the_roofline_is_the_longer_of_arithmetic_and_memory():
    _, count = flops(layers(4, 64))
    assert simulate(Chip(1e9, math.inf), 1, 4, 64).total == pytest.approx(count / 1e9)
    network = layers(4, 64, width=2)
    size = sum(step.bytes for layer in network for step in (*layer.forward, *layer.backward)) + optimizer(network).bytes
    assert simulate(Chip(math.inf, 1e9), 1, 4, 64).total == pytest.approx(size / 1e9)
    both = simulate(Chip(1e9, 1e9), 1, 4, 64)
    assert max(count, size) / 1e9 <= both.total <= (count + size) / 1e9


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_scaling(chip):
    counts = [2**i for i in range(11)]
    weak = [simulate(chip, chips, 64, 128) for chips in counts]
    strong = [simulate(chip, chips, 1024 // chips, 128) for chips in counts]
    for alone in (weak[0], strong[0]):
        assert alone.batch_norm == alone.gradients == alone.all_reduce == 0
    totals = [times.total for times in weak]
    assert totals == sorted(totals)
    work = [times.compute + times.memory for times in strong]
    assert work == sorted(work, reverse=True)
    for chips, times in zip(counts, strong, strict=True):
        assert times.total >= strong[0].total / chips  # nothing is faster than perfect scaling
        assert 0 <= times.gradients <= times.all_reduce


def test_batch_norm_waits_for_twenty_all_reduces():
    times = simulate(Chip(math.inf, math.inf, group=8, hop=1.0), 8, 1, 32)
    assert times.batch_norm == pytest.approx(20 * 2 * 7)  # five blocks, two sums forward and two backward


def test_gradients_hide_behind_what_is_left_of_the_backward_pass():
    gradients = reduced_bytes(layers(1, 32))[0]
    slow_link = simulate(Chip(1e12, 1e11, group=8, link=1e6), 8, 1, 32)
    assert slow_link.all_reduce == pytest.approx(sent_bytes(gradients, 8) / 1e6)
    assert slow_link.gradients == pytest.approx(slow_link.all_reduce, rel=0.01)
    slow_chip = Chip(1e6, math.inf, group=8, link=1e9)
    first = layers(1, 32)[0]  # its gradient is known when the pass is over
    assert simulate(slow_chip, 8, 1, 32).gradients == pytest.approx(sent_bytes(4 * first.gradient, 8) / 1e9)


def test_the_best_batch_grows_with_the_noise_and_not_without_it():
    chip = CHIPS["TPU v5e"]
    assert best_batch(chip, 1, 128, 0)[0] == 1
    sizes = [best_batch(chip, 8, 128, noise)[0] for noise in (0, 100, 1000, 10_000)]
    assert sizes == sorted(set(sizes))


def test_noise_scale_of_gradients_with_a_known_one():
    rng = np.random.default_rng(0)
    batch_size, batches, length = 4, 200, 500
    mean = np.full(length, 0.1)  # |mean|^2 = 5, and a picture's noise below has a trace of 500 * 9
    gradients = mean + rng.normal(size=(batches, length)) * 3 / math.sqrt(batch_size)
    assert noise_scale(gradients @ gradients.T, batch_size) == pytest.approx(500 * 9 / 5, rel=0.1)


def test_the_document_shows_what_the_script_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["simulate_scaling.py"])
    simulate_scaling.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) > 60
    document = DOCUMENT.read_text().splitlines()
    assert [line for line in lines if line not in document] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size", "40"], "divisible by 32"),
        (["--check", "-1"], "positive"),
        (["--check", "0"], "positive"),
        (["--measure_noise", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["simulate_scaling.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        simulate_scaling.main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_measurements(tiny_food):
    chip, predicted, measured = check(batch=2, image_size=32, repeats=1, side=256)
    assert predicted == simulate(chip, 1, 2, 32)
    assert 0 < chip.flops < math.inf
    assert 0 < chip.memory < math.inf
    assert measured > 0
    config = load_config(overrides=("data.image_size=32", "model.num_classes=3"))
    scale, error = measure_noise(
        index_pictures(tiny_food / "train"), config, init_variables(config), batches=5, batch_size=4
    )
    assert math.isfinite(scale)
    assert error > 0
