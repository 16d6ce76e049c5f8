"""A 3x3 convolution without pooling, as residual networks have, against XLA's own and PyTorch's, layer by layer.

    python scripts/benchmarks/convolution.py [--batch_size 64] [--steps 7]

Forward alone, and with both gradients; float32, all in one process in turns. PyTorch takes the faster of its two memory
formats.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Parser, Work, in_turns, need_torch, print_setting, print_table

from jaxfood.model.fused.convolution import conv3x3
from jaxfood.model.layers import convolution

LAYERS = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels in and out, and pixels: a ResNet-18's for 32 px stems


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(batch_size=64, steps=7)
    arguments = parser.parse_args()
    need_torch()
    print_setting(f"batch {arguments.batch_size}, float32, milliseconds, median of {arguments.steps}\n")
    rows = []
    for channels, side in LAYERS:
        works = jax_works(arguments.batch_size, channels, side) | torch_works(arguments.batch_size, channels, side)
        seconds = {name: taken.clock for name, taken in in_turns(works, arguments.steps, warm_up=2).items()}
        for kind in ("forward", "with gradients"):
            ours, xla = (seconds[f"{name} {kind}"] for name in ("fused", "plain"))
            theirs = min(seconds[f"{name} {kind}"] for name in ("contiguous", "channels_last"))
            times = (f"{1e3 * taken:.1f}" for taken in (ours, xla, theirs))
            rows.append((f"{channels} channels, {side} px", kind, *times, f"{theirs / ours:.2f}"))
    print_table(("layer", "", "jaxfood", "XLA's own", "PyTorch", "ratio"), rows)


def jax_works(batch_size: int, channels: int, side: int) -> dict[str, Work]:
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(batch_size, side, side, channels)), jnp.float32) for _ in range(2))
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, channels)), jnp.float32)
    works: dict[str, Work] = {}
    for name, function in (("fused", conv3x3), ("plain", partial(convolution, stride=1, padding=1))):
        forward = jax.jit(function)
        both = jax.jit(lambda x, kernel, g, function=function: jax.vjp(function, x, kernel)[1](g))
        works[f"{name} forward"] = lambda forward=forward: forward(x, kernel).block_until_ready()
        works[f"{name} with gradients"] = lambda both=both: jax.block_until_ready(both(x, kernel, g))
    return works


def torch_works(batch_size: int, channels: int, side: int) -> dict[str, Work]:
    import torch

    works: dict[str, Work] = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=layout)
        x, g = (torch.randn(batch_size, channels, side, side).to(memory_format=layout) for _ in range(2))
        x.requires_grad_()

        def forward(conv: torch.nn.Module = conv, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                conv(x)

        def both(conv: torch.nn.Module = conv, x: torch.Tensor = x, g: torch.Tensor = g) -> None:
            x.grad = conv.weight.grad = None
            conv(x).backward(g)

        works[f"{name} forward"], works[f"{name} with gradients"] = forward, both
    return works


if __name__ == "__main__":
    main()
