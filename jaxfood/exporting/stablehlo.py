"""StableHLO: the program that XLA compiles, with its weights, by `jax.export`."""

import jax
import jax.numpy as jnp
from jax import export

from jaxfood.exporting.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(trained: Trained) -> bytes:
    """A program of uint8 images `[B, H, W, 3]`, of any B, to probabilities, for `jax.export.deserialize`.

    One program for all platforms, each compiled from the network's plain layers (`Trained.model`). JAX promises to read
    it for six months of its versions (https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees).
    """
    size = trained.image_size
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"batch, {size}, {size}, 3"), jnp.uint8)
    # By default GPUs and TPUs multiply with fewer digits (TF32, bfloat16): the file is to answer alike everywhere.
    with jax.default_matmul_precision("float32"):
        exported = export.export(jax.jit(trained.probabilities), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())
