"""What simulate_scaling.py measures: an update on this machine against its prediction, and the gradient noise scale."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scaling_model import FLOAT32, Chip, Times, simulate

from jaxfood import Config, TrainState, load_config, train_step
from jaxfood.data.decode import decode_picture
from jaxfood.data.index import PictureIndex
from jaxfood.model.networks import init_variables
from jaxfood.training.step import loss_fn


class Check(NamedTuple):
    """This device as a chip, and an update predicted for it and measured, in seconds."""

    chip: Chip
    predicted: Times
    measured: float


def check(batch: int, image_size: int, repeats: int = 7, side: int = 4096) -> Check:
    """An update predicted from this device's own FLOP/s and bytes a second, and measured.

    A product of two matrices of `side` rows, passes over as much memory as 4 of them take, and updates take turns, so
    that a machine whose speed drifts slows them all; the medians count.
    """
    rng = np.random.default_rng(0)
    config = load_config(overrides=(f"data.image_size={image_size}", "model.num_classes=11"))
    images = jnp.asarray(rng.integers(0, 256, (batch, image_size, image_size, 3), np.uint8))
    pictures = {"image": images, "label": jnp.asarray(rng.integers(0, 11, batch, np.int32))}
    state = TrainState.create(config, init_variables(config), total_steps=1000)
    matrix = jnp.asarray(rng.normal(size=(side, side)), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # fresh memory would measure the operating system
    numbers = jnp.zeros(4 * side**2, jnp.float32)
    passes = 8

    def use_memory() -> jax.Array:
        nonlocal numbers
        for _ in range(passes):
            numbers = add(numbers)
        return numbers

    def update() -> TrainState:
        nonlocal state
        state, _ = train_step(state, pictures)
        return state

    works = (lambda: multiply(matrix, matrix), use_memory, update)
    seconds = np.array([[_seconds(work) for work in works] for _ in range(repeats + 1)])[1:]  # the first compiles
    product, memory, measured = np.median(seconds, axis=0)
    chip = Chip(2 * side**3 / product, 2 * passes * numbers.nbytes / memory, width=FLOAT32)
    times = simulate(chip, 1, batch, image_size)
    return Check(chip, times, measured)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def measure_noise(
    index: PictureIndex, config: Config, variables: dict[str, Any], batches: int, batch_size: int
) -> tuple[float, float]:
    """The gradient noise scale of labelled pictures at the weights `variables`, and its standard error (jackknife).

    BatchNorm sees `batch_size` pictures at a time, as in a training with batches of that size.
    """
    chosen = np.random.default_rng(0).permutation(len(index.paths))[: batches * batch_size]
    state = TrainState.create(config, variables, total_steps=1)
    gradient = jax.jit(
        jax.grad(lambda params, batch: loss_fn(state.model, state.loss, params, state.batch_stats, batch)[0])
    )

    def of(rows: np.ndarray) -> np.ndarray:
        images = np.stack([decode_picture(index.paths[row], config.data.image_size) for row in rows])
        return np.asarray(ravel_pytree(gradient(state.params, {"image": images, "label": index.labels[rows]}))[0])

    found = np.stack([of(rows) for rows in chosen.reshape(batches, batch_size)])
    gram = found @ found.T
    kept = [np.delete(np.arange(batches), left_out) for left_out in range(batches)]
    estimates = np.array([noise_scale(gram[np.ix_(rows, rows)], batch_size) for rows in kept])
    error = math.sqrt((batches - 1) * np.mean(np.square(estimates - estimates.mean())))
    return noise_scale(gram, batch_size), error


def noise_scale(gram: np.ndarray, batch_size: int) -> float:
    """tr(covariance of a picture's gradient) / |mean gradient|^2 (McCandlish et al. 2018, B_simple).

    `gram` `[N, N]` has the inner products of the gradients of N independent batches: on its diagonal is on average
    |mean|^2 + tr / batch_size, elsewhere |mean|^2.
    """
    count = len(gram)
    diagonal = np.trace(gram) / count
    elsewhere = (gram.sum() - np.trace(gram)) / (count * (count - 1))
    return batch_size * (diagonal / elsewhere - 1)
