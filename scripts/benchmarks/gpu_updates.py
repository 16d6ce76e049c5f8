"""jaxfood's update and PyTorch's, as `gpu.py` compares them: pictures lie on the device, no step waits.

All begin from the same weights and take the same batches in the same order, so that their first losses agree.
PyTorch takes every form that its performance guide advises: channels_last, autocast to bfloat16 or TF32, fused Adam,
cudnn.benchmark, torch.compile (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html).
"""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from jax.sharding import Mesh
from measuring import random_pictures
from torch import nn
from torch_reference import Classifier, make_classifier

from jaxfood import TrainState, UserError, load_config, train_step
from jaxfood.data.batches import ResidentBatches
from jaxfood.data.pictures import Pictures
from jaxfood.devices import make_mesh, on_every_device
from jaxfood.model.networks import init_variables
from jaxfood.pytorch.weights import to_state_dict
from jaxfood.training.metrics import read_means, zero_sums
from jaxfood.training.step import add_update, add_updates

WARM_UP = 5  # updates: compiled, cuDNN's algorithms chosen, CUDA graphs recorded (at PyTorch's third)


class Variant(NamedTuple):
    """One way to make updates."""

    framework: str  # jaxfood or PyTorch
    dtype: str  # float32 (TF32 in matrix products, where the GPU has it) or bfloat16
    form: str = ""  # PyTorch's: eager, or a mode of torch.compile
    gather: bool = True  # else one batch of random floats, which PyTorch takes again and again
    per_call: int = 0  # jaxfood's updates in a program, as its training makes them; 0: one, by `train_step`
    fixed: bool = False  # a loop of a known length: XLA asks the device after no turn whether there is another

    @property
    def name(self) -> str:
        form = f"compile {self.form}" if self.form not in ("", "eager") else self.form
        calls = f"{self.per_call} a call{', fixed' * self.fixed}" if self.per_call else ""
        words = (self.framework, form, self.dtype, calls, "" if self.gather else "on one batch of floats")
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
    program: str = ""  # what jaxfood's compiled update is made of


def measure(variant: Variant, setting: Setting) -> Measurement:
    """Updates of one variant. To be run in a process of its own: the peak of JAX's memory never goes back."""
    update: JaxUpdate | TorchUpdate
    if variant.framework == "PyTorch":
        update = TorchUpdate(variant, setting)
    else:
        update = (JaxUpdates if variant.per_call else JaxUpdate)(variant, setting)
    update.start()
    first_loss = update.loss()
    update.forget_peak()
    updates = variant.per_call or 1
    starts = setting._replace(steps=math.ceil(setting.steps / updates))
    seconds = [of_start / updates for of_start in seconds_of(update.start, update.wait, starts)]
    last_loss = update.loss()
    if not (math.isfinite(first_loss) and math.isfinite(last_loss)):
        raise RuntimeError(f"the loss went from {first_loss} to {last_loss}")
    return Measurement(update.device_name, seconds, first_loss, last_loss, update.peak_bytes(), update.program)


def seconds_of(start: Callable[[], Any], wait: Callable[[Any], object], setting: Setting) -> list[float]:
    """Seconds for one start in each block, after a warm-up. Within a block the starts queue up on the device."""

    def block(steps: int) -> None:
        for _ in range(steps - 1):
            start()
        wait(start())

    block(WARM_UP)
    seconds = []
    for _ in range(setting.blocks):
        begin = time.perf_counter()
        block(setting.steps)
        seconds.append((time.perf_counter() - begin) / setting.steps)
    return seconds


def order_of_pictures(setting: Setting) -> np.ndarray:
    """Positions of whole batches, a permutation that every epoch takes again."""
    whole = setting.pictures // setting.batch_size * setting.batch_size
    return np.random.default_rng(0).permutation(setting.pictures)[:whole]


def check_same_device(device: str) -> None:
    """Refuse to compare a GPU with a CPU; `device` is what PyTorch finds."""
    if (jax.default_backend() == "gpu") != (device == "cuda"):
        raise UserError(
            f"PyTorch computes on {device} and JAX on {jax.default_backend()}: install both for the GPU, or hide it "
            "from both (CUDA_VISIBLE_DEVICES= )"
        )


def make_variables(image_size: int) -> dict[str, Any]:
    """The weights that all begin from."""
    return init_variables(load_config(overrides=(f"data.image_size={image_size}", "model.num_classes=11")))


class JaxUpdate:
    """jaxfood's own update on the batches that its training gathers."""

    wait = staticmethod(jax.block_until_ready)

    def __init__(self, variant: Variant, setting: Setting) -> None:
        check_same_device(setting.device)
        config = load_config(overrides=("model.num_classes=11", f"model.dtype={variant.dtype}", "device.count=1"))
        mesh = make_mesh(config.device)
        state = TrainState.create(config, make_variables(setting.image_size), total_steps=1000)
        self._state = on_every_device(state, mesh)  # as the batches are: else the step is compiled twice
        pictures = random_pictures(setting.pictures, setting.image_size)
        batches = ResidentBatches(Pictures(pictures["image"], pictures["label"], (Path(),) * setting.pictures), mesh)
        self._device = mesh.devices.flat[0]
        self.device_name = self._device.device_kind
        self._prepare(variant, setting, batches, mesh)

    def _prepare(self, variant: Variant, setting: Setting, batches: ResidentBatches, mesh: Mesh) -> None:
        """Compile the update and begin to draw its batches."""
        epochs = (batches.batches(order_of_pictures(setting), setting.batch_size) for _ in itertools.repeat(None))
        self._batches = itertools.chain.from_iterable(epochs)
        self._update = train_step.lower(self._state, next(self._batches)).compile()
        self._batches = itertools.chain.from_iterable(epochs)
        self.program = describe_program(self._update)

    def start(self) -> TrainState:
        """Returns at once; `wait` for what it returns."""
        self._state, self._metrics = self._update(self._state, next(self._batches))
        return self._state

    def loss(self) -> float:
        return float(self._metrics["loss"])

    def peak_bytes(self) -> int:
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use", 0)  # CPU devices count nothing

    def forget_peak(self) -> None:
        """Nothing to do: the next round, which compiles nothing, does not have what choosing algorithms took."""


class JaxUpdates(JaxUpdate):
    """Several of jaxfood's updates in a program, which gathers their batches; the first call makes one alone."""

    def _prepare(self, variant: Variant, setting: Setting, batches: ResidentBatches, mesh: Mesh) -> None:
        self._zero, self._pictures = on_every_device(zero_sums(updates=True), mesh), batches.pictures
        epochs = (batches.chosen(order_of_pictures(setting), setting.batch_size) for _ in itertools.repeat(None))
        self._batches, self._stack, self._per_call = (
            itertools.chain.from_iterable(epochs),
            batches.stack,
            variant.per_call,
        )
        updates = partial(add_updates, add=add_update)
        self._count: tuple[np.int32, ...] = (np.int32(1),)
        if variant.fixed:  # a Python number: `lax.fori_loop` of it is a scan
            self._count = ()
            updates = partial(_fixed_updates, count=variant.per_call)
        arguments = (self._state, self._zero, *self._count, self._pictures, self._drawn(self._per_call))
        self._update = jax.jit(updates, donate_argnums=0).lower(*arguments).compile()
        self.program = describe_program(self._update)

    def _drawn(self, count: int) -> dict[str, jax.Array]:
        return self._stack(list(itertools.islice(self._batches, count)), self._per_call)

    def start(self) -> TrainState:
        drawn = self._drawn(int(self._count[0]) if self._count else self._per_call)
        self._state, self._sums = self._update(self._state, self._zero, *self._count, self._pictures, drawn)
        self._count = (np.int32(self._per_call),) if self._count else ()
        return self._state

    def loss(self) -> float:
        """The mean of the last call's updates."""
        return read_means(self._sums)["loss"]


def _fixed_updates(state: TrainState, sums: Any, pictures: Any, drawn: Any, *, count: int) -> tuple[TrainState, Any]:
    return add_updates(state, sums, count, pictures, drawn, add=add_update)


def describe_program(compiled: Any) -> str:
    """How many kernels an update has and what it moves, as XLA counts; of a loop's body it counts one turn."""
    text, cost = compiled.as_text(), compiled.cost_analysis()
    # What is inside a fusion is no kernel of its own.
    bodies = re.split(r"\n(?=[%\w].*\{\n)", text)
    outer = "\n".join(body for body in bodies if not re.match(r"%?\S*(fused_|computation)", body))
    counts = {name: len(re.findall(rf"\s{name}\(", outer)) for name in ("fusion", "custom-call", "copy")}
    words = [f"{count} {name}s".replace("copys", "copies") for name, count in counts.items() if count]
    moved = (cost[0] if isinstance(cost, list) else cost or {}).get("bytes accessed", 0)
    return ", ".join([*words, f"{moved / 1e9:.3g} GB" if moved else "bytes not counted"])


class TorchUpdate:
    """The notes' update, by everything that makes PyTorch fast."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        set_up_torch()
        jax.config.update("jax_platforms", "cpu")  # the weights come by JAX, which would take most of the GPU's memory
        self._device, self._variant = setting.device, variant
        weights = to_state_dict(make_variables(setting.image_size))
        model = make_classifier(weights).train().to(setting.device)
        self._model: Classifier = model.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=3e-4, weight_decay=1e-5, fused=True)
        compiled = {} if variant.form == "default" else {"mode": variant.form}
        eager = variant.form == "eager"
        self._compute = self._forward if eager else torch.compile(self._forward, fullgraph=True, **compiled)
        pictures = random_pictures(setting.pictures, setting.image_size)
        images, labels = (torch.from_numpy(pictures[name]).to(setting.device) for name in ("image", "label"))
        order = torch.from_numpy(order_of_pictures(setting)).to(setting.device)
        gathered = self._gather(images, labels.long(), order.split(setting.batch_size))
        self._batches = gathered if variant.gather else itertools.repeat(self._floats(next(gathered)))
        self.device_name = torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"
        self.program = ""

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

    def wait(self, started: object) -> None:
        wait_for_torch(self._device)

    def loss(self) -> float:
        return self._loss.item()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else 0

    def forget_peak(self) -> None:
        """What choosing algorithms took."""
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()


def set_up_torch() -> None:
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, which its convolutions take by default and JAX everywhere


def wait_for_torch(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
