"""3x3 convolution by Winograd's F(2x2, 3x3): 16 multiplications where the direct way has 36.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308. A tile of
4x4 values of the input becomes 16 others by additions, and so does a kernel; their products over the channels become
2x2 values of the output, by additions again. F(4x4, 3x3) would save more and lose digits.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Line = Sequence[jax.Array]

_TURNED = 3, 1, 2, 0  # where what `_kernel_line` gives lies for a line read backwards


def winograd3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, padding 1: `[B, H, W, in]`, H and W even, and `[3, 3, in, out]` to `[B, H, W, out]`.

    For float32 and float64: in bfloat16 the additions would lose digits.
    """
    return _convolve(x, _transform(_kernel_line, kernel))


def winograd3x3_input_gradient(g: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of its `x` by that of its output.

    The convolution of `g` with the kernel turned around, whose transform is the kernel's own in another order: made of
    the turned kernel it takes longer than the products, as a CPU reads it across its lines.
    """
    kernels = _transform(_kernel_line, kernel)
    return _convolve(g, [[kernels[i][j].T for j in _TURNED] for i in _TURNED])


def _convolve(x: jax.Array, kernels: Sequence[Line]) -> jax.Array:
    """With a transformed kernel, 4 x 4 of `[in, out]`."""
    batch, height, width, features_in = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tile = [[padded[:, i : i + height : 2, j : j + width : 2] for j in range(4)] for i in range(4)]
    products = [
        [jnp.matmul(a.reshape(-1, features_in), b) for a, b in zip(inputs, row, strict=True)]
        for inputs, row in zip(_transform(_input_line, tile), kernels, strict=True)
    ]
    (a, b), (c, d) = _transform(_output_line, products)
    windows = jnp.stack([a, b, c, d], 1).reshape(batch, height // 2, width // 2, 2, 2, -1)
    return windows.swapaxes(2, 3).reshape(batch, height, width, -1)


def _transform(along: Callable[[Line], Line], square: Sequence[Line] | jax.Array) -> Sequence[Line]:
    """A line's transform along both directions of a square."""
    rows = [along(row) for row in square]
    columns = [along(column) for column in zip(*rows, strict=True)]
    return list(zip(*columns, strict=True))


def _input_line(x: Line) -> Line:
    return x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]


def _kernel_line(k: Line) -> Line:
    return k[0], (k[0] + k[1] + k[2]) / 2, (k[0] - k[1] + k[2]) / 2, k[2]


def _output_line(x: Line) -> Line:
    return x[0] + x[1] + x[2], x[1] - x[2] - x[3]
