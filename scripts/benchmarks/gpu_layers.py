"""Each of the classifier's blocks alone, in jaxfood and in PyTorch, as `gpu.py --layers` compares them."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
from gpu_updates import Setting, Variant, check_same_device, seconds_of, set_up_torch, wait_for_torch
from torch_reference import Classifier

from jaxfood.model.blocks import ConvBlock
from jaxfood.model.classifier import FEATURES

Shape = tuple[int, int, int, int]
Passes = tuple[Callable[[], object], Callable[[], object]]  # forward; forward and backward


def measure_layers(variant: Variant, setting: Setting) -> dict[str, float]:
    """Median seconds of each block in training: "block1" forward, "block1 with backward" forward and backward.

    Together they are more than an update has: alone, nothing is fused across blocks.
    """
    if variant.framework == "jaxfood":
        blocks, wait = jax_blocks(variant, setting), jax.block_until_ready
    else:
        blocks, wait = torch_blocks(variant, setting), lambda _: wait_for_torch(setting.device)
    seconds = {}
    for number, passes in enumerate(blocks, start=1):
        for what, start in zip(("", " with backward"), passes, strict=True):
            seconds[f"block{number}{what}"] = statistics.median(seconds_of(start, wait, setting))
    return seconds


def block_shapes(setting: Setting) -> Iterator[tuple[Shape, int]]:
    """Each block's input `[B, H, W, in]` and its features."""
    size, features_in = setting.image_size, 3
    for features in FEATURES:
        yield (setting.batch_size, size, size, features_in), features
        size, features_in = size // 2, features


def jax_blocks(variant: Variant, setting: Setting) -> Iterator[Passes]:
    """jaxfood's blocks."""
    check_same_device(setting.device)
    for shape, features in block_shapes(setting):
        yield _jax_block(shape, features, jnp.dtype(variant.dtype))


def _jax_block(shape: Shape, features: int, dtype: Any) -> Passes:
    block = ConvBlock(shape[-1], features, dtype=dtype)
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


def torch_blocks(variant: Variant, setting: Setting) -> Iterator[Passes]:
    """The notes' blocks, as PyTorch computes them eagerly."""
    set_up_torch()
    cnn = Classifier(setting.image_size).cnn.train().to(setting.device, memory_format=torch.channels_last)
    for number, (shape, _) in enumerate(block_shapes(setting)):
        yield _torch_block(cnn[4 * number : 4 * number + 4], shape, getattr(torch, variant.dtype), setting)


def _torch_block(block: torch.nn.Module, shape: Shape, dtype: torch.dtype, setting: Setting) -> Passes:
    needs_gradient = shape[3] != 3
    x = torch.randn(shape, dtype=dtype, device=setting.device).permute(0, 3, 1, 2).requires_grad_(needs_gradient)
    inputs = [*block.parameters(), x] if needs_gradient else list(block.parameters())

    def forward() -> torch.Tensor:
        with torch.autocast(setting.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return block(x)

    g = torch.randn_like(forward())
    return forward, lambda: torch.autograd.grad(forward(), inputs, g)
