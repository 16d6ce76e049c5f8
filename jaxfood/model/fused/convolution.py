"""A 3x3 convolution alone, in the form of the platform: what residual networks are made of."""

import jax

from jaxfood.model.fused.forms import Form, add_gradients, on_each_platform, scan_groups, zero_kernel_gradient


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, padding 1, without bias: `[B, H, W, in]` and `[3, 3, in, out]` to `[B, H, W, out]`.

    Gradients of any kind and forward over reverse (`jvp` of `grad`) work; `jvp` of the function itself does not.
    """
    return _forward(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
    def forward(x: jax.Array, kernel: jax.Array, *, form: Form) -> jax.Array:
        return scan_groups(lambda _, x: (None, form.convolve(x, kernel)), None, (x,), form.groups_alone)[1]

    output: jax.Array = on_each_platform(forward, x, kernel)
    return output


def _save(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def backward(x: jax.Array, kernel: jax.Array, g: jax.Array, *, form: Form) -> tuple[jax.Array, jax.Array]:
        def add(total: jax.Array, x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
            return add_gradients(kernel, total, x, g, form=form)

        total, x_g = scan_groups(add, zero_kernel_gradient(kernel), (x, g), form.groups_alone)
        return x_g, total.astype(kernel.dtype)

    gradients: tuple[jax.Array, jax.Array] = on_each_platform(backward, *saved, g)
    return gradients


conv3x3.defvjp(_save, _backward)
