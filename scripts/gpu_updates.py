"""jaxfood's update and PyTorch's, as `benchmark_gpu.py` compares them: pictures lie on the device, no step waits.

All begin from the same weights and take the same batches in the same order, so that their first losses agree.
PyTorch takes every form that its performance guide advises: channels_last, autocast to bfloat16 or TF32, fused Adam,
cudnn.benchmark, torch.compile (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html).
"""

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import numpy as np
import torch
from parity import make_weights
from torch import nn
from torch_reference import Classifier, make_classifier

from jaxfood.config import load_config
from jaxfood.data.batches import ResidentBatches, epoch_order
from jaxfood.data.pictures import Pictures
from jaxfood.devices import make_mesh, on_every_device
from jaxfood.errors import UserError
from jaxfood.pytorch.weights import from_state_dict
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step

WARM_UP = 5  # updates: compiled, cuDNN's algorithms chosen, CUDA graphs recorded (at PyTorch's third)
NUM_CLASSES = 11


class Variant(NamedTuple):
    """One way to make updates."""

    framework: str  # jaxfood or PyTorch
    dtype: str  # float32 (TF32 in matrix products, where the GPU has it) or bfloat16
    form: str = ""  # PyTorch's: eager, or a mode of torch.compile
    gather: bool = True  # else one batch of random floats, which PyTorch takes again and again

    @property
    def name(self) -> str:
        form = f"compile {self.form}" if self.form not in ("", "eager") else self.form
        words = (self.framework, form, self.dtype, "" if self.gather else "on one batch of floats")
        return " ".join(word for word in words if word)


class Setting(NamedTuple):
    """What all variants have in common."""

    device: str  # cuda or cpu
    batch_size: int
    image_size: int
    pictures: int  # that lie on the device
    steps: int  # in a block, which ends with waiting for the device
    blocks: int


class Measurement(NamedTuple):
    """What one variant gave in one process."""

    device: str  # its name
    seconds: list[float]  # of an update, in each block
    first_loss: float
    last_loss: float
    peak_bytes: int  # of the device's memory; 0 where it is not counted


class Work(Protocol):
    """Something the device does again and again."""

    def start(self) -> None: ...  # returns at once

    def wait(self) -> None: ...  # until the device has done all that was started


class Update(Work, Protocol):
    """A training in progress."""

    device_name: str

    def loss(self) -> float: ...  # of the last update

    def peak_bytes(self) -> int: ...  # of the device's memory

    def forget_peak(self) -> None: ...  # what choosing algorithms took; JAX's next round, which compiles nothing, tells


def measure(variant: Variant, setting: Setting) -> Measurement:
    """Updates of one variant. To be run in a process of its own: the peak of JAX's memory never goes back."""
    update: Update = JaxUpdate(variant, setting) if variant.framework == "jaxfood" else TorchUpdate(variant, setting)
    update.start()
    first_loss = update.loss()
    update.forget_peak()
    seconds = seconds_of(update, setting)
    last_loss = update.loss()
    if not (math.isfinite(first_loss) and math.isfinite(last_loss)):
        raise RuntimeError(f"the loss went from {first_loss} to {last_loss}")
    return Measurement(update.device_name, seconds, first_loss, last_loss, update.peak_bytes())


def seconds_of(work: Work, setting: Setting) -> list[float]:
    """Seconds for one start of the work in each block, after a warm-up. Within a block steps queue up on the device."""
    for _ in range(WARM_UP):
        work.start()
    work.wait()
    seconds = []
    for _ in range(setting.blocks):
        begin = time.perf_counter()
        for _ in range(setting.steps):
            work.start()
        work.wait()
        seconds.append((time.perf_counter() - begin) / setting.steps)
    return seconds


def random_pictures(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, H, W, 3] and labels int32 [N]: the speed does not depend on them."""
    rng = np.random.default_rng(0)
    size = (setting.pictures, setting.image_size, setting.image_size, 3)
    return rng.integers(0, 256, size, np.uint8), rng.integers(0, NUM_CLASSES, setting.pictures, np.int32)


def order_of_pictures(setting: Setting) -> np.ndarray:
    """Positions of whole batches, a permutation that every epoch takes again."""
    return epoch_order(0, 0, setting.pictures)[: setting.pictures // setting.batch_size * setting.batch_size]


def check_same_device(device: str) -> None:
    """Refuse to compare a GPU with a CPU; `device` is what PyTorch finds."""
    if (jax.default_backend() == "gpu") != (device == "cuda"):
        raise UserError(
            f"PyTorch computes on {device} and JAX on {jax.default_backend()}: install both for the GPU, or hide it "
            "from both (CUDA_VISIBLE_DEVICES= )"
        )


class JaxUpdate:
    """jaxfood's own update on the batches that its training gathers."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        check_same_device(setting.device)
        config = load_config(
            overrides=(f"model.dtype={variant.dtype}", f"data.image_size={setting.image_size}", "device.count=1")
        )
        mesh = make_mesh(config.device)
        variables = from_state_dict(make_weights(setting.image_size, NUM_CLASSES))
        self._state = on_every_device(TrainState.create(config, variables, total_steps=1000), mesh)
        images, labels = random_pictures(setting)
        self._pictures = ResidentBatches(Pictures(images, labels, (Path(),) * len(images)), mesh)
        self._batches = self._epochs(order_of_pictures(setting), setting.batch_size)
        self._device = mesh.devices.flat[0]
        self.device_name = self._device.device_kind

    def _epochs(self, order: np.ndarray, batch_size: int) -> Iterator[dict[str, jax.Array]]:
        while True:
            yield from self._pictures.batches(order, batch_size)

    def start(self) -> None:
        self._state, self._metrics = train_step(self._state, next(self._batches))

    def wait(self) -> None:
        jax.block_until_ready(self._state)

    def loss(self) -> float:
        return float(self._metrics["loss"])

    def peak_bytes(self) -> int:
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use", 0)  # CPU devices count nothing

    def forget_peak(self) -> None:
        pass


class TorchUpdate:
    """The notes' update, by everything that makes PyTorch fast."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        set_up_torch()
        jax.config.update("jax_platforms", "cpu")  # the weights come by JAX, which would take most of the GPU's memory
        self._device, self._variant = setting.device, variant
        model = make_classifier(make_weights(setting.image_size, NUM_CLASSES)).train().to(setting.device)
        self._model: Classifier = model.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=3e-4, weight_decay=1e-5, fused=True)
        compiled = {} if variant.form == "default" else {"mode": variant.form}
        eager = variant.form == "eager"
        self._compute = self._forward if eager else torch.compile(self._forward, fullgraph=True, **compiled)
        images, labels = (torch.from_numpy(array).to(setting.device) for array in random_pictures(setting))
        order = torch.from_numpy(order_of_pictures(setting)).to(setting.device)
        gathered = self._gather(images, labels.long(), order.split(setting.batch_size))
        self._batches = gathered if variant.gather else itertools.repeat(self._floats(next(gathered)))
        self.device_name = torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"

    def _gather(
        self, images: torch.Tensor, labels: torch.Tensor, batches: tuple[torch.Tensor, ...]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches gathered on the device: uint8 `[B, 3, H, W]`, which lie there as `[B, H, W, 3]` (channels_last)."""
        for positions in itertools.cycle(batches):
            yield images.index_select(0, positions).permute(0, 3, 1, 2), labels.index_select(0, positions)

    def _floats(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return batch[0] / 255, batch[1]

    def _forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss, in float32."""
        if images.dtype == torch.uint8:
            images = images.to(getattr(torch, self._variant.dtype)) / 255
        with torch.autocast(self._device, torch.bfloat16, enabled=self._variant.dtype == "bfloat16"):
            logits = self._model(images)
        return nn.functional.cross_entropy(logits.float(), labels)

    def start(self) -> None:
        self._optimizer.zero_grad()  # first: CUDA graphs take the memory of the last gradients again
        loss = self._compute(*next(self._batches))
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), max_norm=10)
        self._optimizer.step()
        self._loss = loss.detach()

    def wait(self) -> None:
        wait_for_torch(self._device)

    def loss(self) -> float:
        return self._loss.item()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else 0

    def forget_peak(self) -> None:
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()


def set_up_torch() -> None:
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, which its convolutions take by default and JAX everywhere


def wait_for_torch(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
