"""What jaxfood and PyTorch are compared on, and jaxfood's side of the comparison; needs no PyTorch.

`torch_parity.py` is the other side, with the same functions. Weights and drawn pictures come from NumPy and fixed
seeds, and results are in PyTorch's names and layouts.
"""

import os
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxfood import Config, FoodClassifier, TrainState, load_config, train_step
from jaxfood.config.loss import CrossEntropy
from jaxfood.model.networks import predict_logits
from jaxfood.optim.losses import make_loss
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.weights import from_state_dict, to_state_dict
from jaxfood.training.step import loss_fn

Tensors = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]  # "image" [B, H, W, 3] in [0, 1] and "label" [B], perhaps "mask" [B]

NUMBERS = Path(__file__).with_name("reference_numbers.json")  # PyTorch's, by make_numbers.py
NUM_CLASSES = 11
SOURCES = ("drawn", "photographs")
DATA = Path(os.environ.get("JAXFOOD_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
HE_GAIN = 6**0.5  # keeps the signal's size through the layers, so that logits are large and depend on the picture


class Recipe(NamedTuple):
    """An optimizer, and how many of its steps on one batch are compared."""

    name: str
    learning_rate: float
    weight_decay: float
    clip_norm: float
    steps: int

    @property
    def config(self) -> Config:
        fields = ("name", "learning_rate", "weight_decay", "clip_norm")
        return load_config(overrides=tuple(f"optimizer.{field}={getattr(self, field)}" for field in fields))


ADAM = Recipe("adam", learning_rate=3e-4, weight_decay=1e-5, clip_norm=10.0, steps=5)  # the notes'
SGD = Recipe("sgd", learning_rate=0.01, weight_decay=0.0, clip_norm=5.0, steps=10)  # clips, on the small batch
RUNS = {  # recipe, type, pictures and their size
    "adam float64": (ADAM, "float64", 8, 32),
    "sgd float64": (SGD, "float64", 8, 32),
    # In float32 rounding now and then moves a gradient to another pixel of a pooling window, which weighs the more the
    # fewer the pictures: on 8 of them PyTorch's own losses leave its float64 ones by 1e-3, so these take 64. And Adam
    # makes whole steps of the noise that PyTorch has for gradients of the biases before BatchNorm, so few of them.
    "adam float32": (ADAM._replace(steps=2), "float32", 64, 32),
    "sgd float32": (SGD, "float32", 64, 32),
}


class Backward(NamedTuple):
    """Of one training batch: its loss, the gradient, and the running statistics after it."""

    loss: float
    gradient: Tensors
    statistics: Tensors


class Run(NamedTuple):
    """Of a recipe's steps: their losses, their gradient norms before clipping, and all tensors after the last."""

    losses: list[float]
    grad_norms: list[float]
    tensors: Tensors


# The comparisons. `side` is this module or `torch_parity`. Results are kept: don't change them.


@cache
def compare_logits(side: ModuleType, source: str) -> np.ndarray:
    """float32 logits of four pictures at 128 px."""
    return side.logits(make_weights(128, gain=HE_GAIN), make_batch(source, 4, 128)["image"])


@cache
def compare_backward(side: ModuleType, source: str) -> Backward:
    """float64 gradient and statistics of eight pictures at 64 px."""
    return side.backward(make_weights(64, dtype="float64"), make_batch(source, 8, 64, "float64"))


@cache
def compare_run(side: ModuleType, source: str, run: str) -> Run:
    """One of `RUNS`."""
    recipe, dtype, number, image_size = RUNS[run]
    return side.run(recipe, make_weights(image_size, dtype=dtype), make_batch(source, number, image_size, dtype))


def make_weights(image_size: int, num_classes: int = NUM_CLASSES, dtype: str = "float32", gain: float = 1) -> Tensors:
    """A state dict, the same numbers (float32's) in every `dtype`.

    Convolutions and linear layers come from `gain` times PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in));
    BatchNorm's vectors lie away from their defaults, so that mixing them up shows.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    shapes = jax.eval_shape(FoodClassifier(num_classes).init, jax.random.key(0), images)
    tensors = to_state_dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        if f"{layer}.running_var" in tensors:
            low, high = (0.5, 1.5) if kind in ("weight", "running_var") else (-0.5, 0.5)
        else:
            high = gain / tensors[f"{layer}.weight"][0].size ** 0.5
            low = -high
        values = low + (high - low) * _generator(name).random(tensor.shape)
        tensors[name] = values.astype(np.float32).astype(dtype)
    return tensors


def make_batch(source: str, number: int, image_size: int, dtype: str = "float32") -> Batch:
    """So many pictures of one of `SOURCES`, in [0, 1].

    Raises:
        FileNotFoundError: the photographs are not here.
    """
    images, labels = (_draw if source == "drawn" else _photographs)(number, image_size)
    return {"image": images.astype(dtype) / np.array(255, dtype), "label": labels}


def has_photographs() -> bool:
    return (DATA / "food10" / "train").is_dir()


def checksum(source: str) -> int:
    """Of the pictures that are compared at 64 px: another NumPy may draw, and another Pillow decode, differently."""
    return zlib.crc32(make_batch(source, 8, 64)["image"].tobytes())


def fingerprint(tensors: Tensors) -> dict[str, tuple[float, float]]:
    """Two numbers for each floating-point tensor: its norm, and its product with a fixed vector of random signs.

    A difference between two tensors changes the second by about the difference's norm.
    """
    numbers = {}
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            continue
        values = tensor.astype(np.float64).ravel()
        signs = _generator(f"signs of {name}").integers(0, 2, values.size) * 2 - 1
        numbers[name] = float(np.linalg.norm(values)), float(signs @ values)
    return numbers


# jaxfood's side.


def logits(weights: Tensors, images: np.ndarray) -> np.ndarray:
    """Logits `[B, num_classes]` by the running statistics."""
    with _precision(weights):
        variables = from_state_dict(weights)
        model = FoodClassifier(table_of_variables(variables).num_classes)
        return np.asarray(jax.jit(predict_logits, static_argnums=0)(model, variables, images))


def backward(weights: Tensors, batch: Batch) -> Backward:
    """One training batch without an update."""
    with _precision(weights):
        variables = from_state_dict(weights)
        loss, gradient, batch_stats = _backward(
            FoodClassifier(table_of_variables(variables).num_classes), variables, batch
        )
        tensors = to_state_dict({"params": gradient, "batch_stats": batch_stats})
    statistics = {name: tensors.pop(name) for name in list(tensors) if "running" in name}
    gradient = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    return Backward(float(loss), gradient, statistics)


@partial(jax.jit, static_argnums=0)
def _backward(model: FoodClassifier, variables: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, Any, Any]:
    compute = jax.value_and_grad(partial(loss_fn, model, make_loss(CrossEntropy(), model.num_classes)), has_aux=True)
    (loss, (batch_stats, _)), gradient = compute(variables["params"], variables["batch_stats"], batch)
    return loss, gradient, batch_stats


def run(recipe: Recipe, weights: Tensors, batch: Batch) -> Run:
    """A recipe's steps."""
    with _precision(weights):
        state = TrainState.create(recipe.config, from_state_dict(weights), total_steps=recipe.steps)
        metrics = []
        for _ in range(recipe.steps):
            state, step_metrics = train_step(state, batch)
            metrics.append(step_metrics)
        losses, grad_norms = ([float(step[name]) for step in metrics] for name in ("loss", "grad_norm"))
        return Run(losses, grad_norms, to_state_dict({"params": state.params, "batch_stats": state.batch_stats}))


def _precision(weights: Tensors) -> AbstractContextManager[None]:
    return jax.enable_x64(weights["fc.0.weight"].dtype == np.float64)


def _draw(number: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random fields: noise on grids of 4, 8 and 16 cells, interpolated linearly and averaged."""
    generator = _generator("drawn pictures")
    total = np.zeros((number, image_size, image_size, 3))
    for cells in (4, 8, 16):
        positions = np.linspace(0, cells - 1, image_size)
        interpolation = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(cells)))  # [pixels, cells]
        grid = generator.random((number, cells, cells, 3))
        total += np.einsum("hi,wj,nijc->nhwc", interpolation, interpolation, grid)
    return np.rint(total / 3 * 255).astype(np.uint8), generator.integers(0, NUM_CLASSES, number, np.int32)


def _photographs(number: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Training photographs spread evenly over the classes, decoded and resized as in the notes."""
    paths = sorted((DATA / "food10" / "train").glob("*.jpg"))
    if len(paths) < number:
        raise FileNotFoundError(f"no photographs in {DATA}/food10/train: set JAXFOOD_TEST_DATA to the folder of food10")
    paths = [paths[i * len(paths) // number] for i in range(number)]
    size = (image_size, image_size)
    images = [np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BILINEAR)) for path in paths]
    return np.stack(images), np.array([int(path.name.split("_")[0]) for path in paths], np.int32)


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))
