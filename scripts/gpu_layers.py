"""Each of the classifier's blocks alone, in jaxfood and in PyTorch, as `benchmark_gpu.py --layers` compares them."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
from gpu_updates import Setting, Variant, Work, check_same_device, seconds_of, set_up_torch, wait_for_torch
from torch_reference import Classifier

from jaxfood.model.classifier import FEATURES, ConvBlock

Shape = tuple[int, int, int, int]


def measure_layers(variant: Variant, setting: Setting) -> dict[str, float]:
    """Median seconds of each block in training: "block1" forward, "block1 with backward" forward and backward.

    Together they are more than an update has: alone, nothing is fused across blocks.
    """
    works = jax_works(variant, setting) if variant.framework == "jaxfood" else torch_works(variant, setting)
    return {name: statistics.median(seconds_of(work, setting)) for name, work in works}


class Repeated:
    """A function of arrays on the device as work."""

    def __init__(self, function: Callable[[], object], wait: Callable[[object], object]) -> None:
        self._function, self._wait = function, wait

    def start(self) -> None:
        self._result = self._function()

    def wait(self) -> None:
        self._wait(self._result)


def block_shapes(setting: Setting) -> Iterator[tuple[Shape, int]]:
    """Each block's input `[B, H, W, in]` and its features."""
    size, features_in = setting.image_size, 3
    for features in FEATURES:
        yield (setting.batch_size, size, size, features_in), features
        size, features_in = size // 2, features


def jax_works(variant: Variant, setting: Setting) -> Iterator[tuple[str, Work]]:
    """jaxfood's blocks."""
    check_same_device(setting.device)
    for number, (shape, features) in enumerate(block_shapes(setting), start=1):
        forward, backward = _jax_block(shape, features, jnp.dtype(variant.dtype))
        yield f"block{number}", Repeated(forward, jax.block_until_ready)
        yield f"block{number} with backward", Repeated(backward, jax.block_until_ready)


def _jax_block(shape: Shape, features: int, dtype: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    block = ConvBlock(features, dtype=dtype)
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    variables = block.init(jax.random.key(1), x, train=True)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return block.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])[0]

    def backward(params: Any, x: jax.Array, g: jax.Array) -> Any:
        gradients = jax.vjp(forward, params, x)[1](g)
        return gradients[0] if shape[3] == 3 else gradients  # of the pictures nobody needs one

    params = variables["params"]
    compiled_forward = jax.jit(forward).lower(params, x).compile()
    y = compiled_forward(params, x)
    g = jax.random.normal(jax.random.key(2), y.shape, y.dtype)
    compiled_backward = jax.jit(backward).lower(params, x, g).compile()
    return lambda: compiled_forward(params, x), lambda: compiled_backward(params, x, g)


def torch_works(variant: Variant, setting: Setting) -> Iterator[tuple[str, Work]]:
    """The notes' blocks, as PyTorch computes them eagerly."""
    set_up_torch()
    cnn = Classifier(setting.image_size).cnn.train().to(setting.device, memory_format=torch.channels_last)
    for number, (shape, _) in enumerate(block_shapes(setting), start=1):
        forward, backward = _torch_block(
            cnn[4 * number - 4 : 4 * number], shape, getattr(torch, variant.dtype), setting
        )
        yield f"block{number}", Repeated(forward, lambda _: wait_for_torch(setting.device))
        yield f"block{number} with backward", Repeated(backward, lambda _: wait_for_torch(setting.device))


def _torch_block(
    block: torch.nn.Module, shape: Shape, dtype: torch.dtype, setting: Setting
) -> tuple[Callable[[], object], Callable[[], object]]:
    needs_gradient = shape[3] != 3
    x = torch.randn(shape, dtype=dtype, device=setting.device).permute(0, 3, 1, 2).requires_grad_(needs_gradient)
    inputs = [*block.parameters(), x] if needs_gradient else list(block.parameters())

    def forward() -> torch.Tensor:
        with torch.autocast(setting.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return block(x)

    g = torch.randn_like(forward())
    return forward, lambda: torch.autograd.grad(forward(), inputs, g)
