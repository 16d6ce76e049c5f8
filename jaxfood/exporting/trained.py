"""What is exported of a run: the network in its plain form, its weights, and what a caller must know of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.model.network import Network
from jaxfood.model.networks import predict_logits
from jaxfood.pytorch.layouts import flat_leaves, not_finite
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import load_run, read_classes, read_config
from jaxfood.version import __version__

INPUT, OUTPUT = "images", "probabilities"
MAX_BYTES = 2**31 - 2**20  # both formats count bytes in 32 bits with a sign; what is no weight takes the rest


_RESIZING = {  # in words, as `data.resize` does it
    "squash": "both sides to {size} px, bilinear with antialiasing (Pillow: picture.convert('RGB').resize(({size}, "
    "{size}), BILINEAR))",
    "crop": "the shorter side to {size} px, bilinear with antialiasing, then the middle {size} x {size} px "
    "(torchvision: Resize({size}), CenterCrop({size}))",
    "pad": "the longer side to {size} px, bilinear with antialiasing, in the middle of a black square "
    "(Pillow: ImageOps.pad(picture.convert('RGB'), ({size}, {size}), BILINEAR))",
}
_FAST = "a JPEG first decoded at 1/2, 1/4 or 1/8, where that is still large enough (Pillow: draft); then "
_NORMALIZED = ", minus the mean, by the deviation (normalize: of red, green and blue)"


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained classifier.

    Attributes:
        model: the network that computes in float32, layer by layer: the fused form needs a batch size, and has programs
            for one platform (`model.fused`).
        variables: `{"params": ..., "batch_stats": ...}` of NumPy arrays, float32.
        config: the run's.
        classes: their names in label order.
        step: of the checkpoint.
    """

    model: Network
    variables: dict[str, Any]
    config: Config
    classes: tuple[str, ...]
    step: int

    @property
    def image_size(self) -> int:
        """Height and width of a picture, in pixels."""
        return self.config.data.image_size

    def probabilities(self, images: jax.Array) -> jax.Array:
        """float32 `[B, num_classes]` of uint8 images `[B, H, W, 3]`: what every exported file computes."""
        return jax.nn.softmax(predict_logits(self.model, self.variables, images))


def plain_model(model: Network) -> Network:
    """The network as `Trained` has it."""
    plain: Network = model.clone(fused=False, dtype=None, axis_name=None)
    return plain


def load_trained(run: Path, which: str | int) -> Trained:
    """A run's classifier at a checkpoint: "best", "last" or a step.

    Raises:
        UserError: no run or several, no such checkpoint, weights that are not finite, or more than a file can hold.
    """
    read_config(run)  # refuses what is no run
    with Checkpoints(run) as checkpoints:
        step = checkpoints.find(which)
    model, variables, config = load_run(run, step)
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
    leaves = flat_leaves(arrays)
    if wrong := not_finite(leaves):
        raise UserError(f"{run}: the checkpoint of step {step} has {wrong}: give --which another, or train it anew")
    if (size := sum(leaf.nbytes for leaf in leaves.values())) > MAX_BYTES:
        raise UserError(f"{run} has {size / 2**30:.1f} GiB of weights, and an exported file takes 2: train a narrower")
    return Trained(plain_model(model), arrays, config, read_classes(run), step)


def describe(trained: Trained) -> dict[str, Any]:
    """What a program must know that runs the file, as JSON takes it; docs/export.md says what each key means."""
    config, size = trained.config, trained.image_size
    return {
        "classes": list(trained.classes),
        "image_size": size,
        "resize": config.data.resize,
        "decode": config.data.decode,
        "exif_orientation": config.data.exif_orientation,
        "input": f"{INPUT}: uint8 [batch, {size}, {size}, 3], pictures in RGB, 0 to 255",
        "resizing": _FAST * config.data.decodes_fast + _RESIZING[config.data.resize].format(size=size),
        "scaling": "in the file: divided by 255"
        + ", then minus the mean, by the deviation" * bool(config.model.normalize),
        "normalize": list(config.model.normalize),
        "output": f"{OUTPUT}: float32 [batch, {len(trained.classes)}], of the classes in their order",
        "network": config.model.name,
        "step": trained.step,
        "jaxfood": __version__,
    }
