"""The network of a configuration: made, initialised, and applied to pictures."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxfood.config import model as settings
from jaxfood.config.model import ModelConfig
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.model.classifier import FoodClassifier
from jaxfood.model.network import Network
from jaxfood.model.resnet import ResNet
from jaxfood.model.torchvision_resnet import TorchvisionResNet


def make_model(config: ModelConfig) -> Network:
    """The network of a configuration.

    Raises:
        UserError: the number of classes is left to the training pictures, and these were not asked.
    """
    if not config.num_classes:
        raise UserError("model.num_classes = 0 is known once the training pictures are read: set the number of classes")
    common: dict[str, Any] = {
        "num_classes": config.num_classes,
        "dtype": jnp.bfloat16 if config.dtype == "bfloat16" else None,
        "dropout": config.dropout,
        "normalize": config.normalize,
    }
    match config:
        case settings.Classifier():
            return FoodClassifier(width=config.width, **common)
        case settings.ResNet():
            return ResNet(width=config.width, blocks=config.blocks, **common)
        case settings.ResNet18() | settings.ResNet34():
            return TorchvisionResNet(depth=int(config.name.removeprefix("resnet")), stem=config.stem, **common)
    raise TypeError(f"no network for {config}")


def init_variables(config: Config, image_size: int = 0) -> dict[str, Any]:
    """Fresh `{"params": ..., "batch_stats": ...}`, from `train.seed` alone; for `data.image_size` or another."""
    size = image_size or config.data.image_size
    images = jnp.zeros((1, size, size, 3))
    plain = make_model(config.model).clone(fused=False)  # the same variables, traced in half the time
    return jax.jit(plain.init)(jax.random.key(config.train.seed), images)


def check_image_sizes(config: Config) -> None:
    """Check that the network takes pictures of all sizes that it is to be trained on.

    Raises:
        UserError: it does not.
    """
    sizes = set(config.train.image_sizes)
    if not sizes:
        return
    if (largest := max(sizes)) > config.data.image_size:
        raise UserError(
            f"train.image_sizes has {largest}, and pictures are kept at data.image_size = {config.data.image_size}: "
            f"raise that to {largest}, or leave {largest} out"
        )

    def shapes(size: int) -> Any:
        return jax.eval_shape(lambda: init_variables(config, size))

    whole = shapes(config.data.image_size)
    if any(shapes(size) != whole for size in sizes):
        raise UserError(
            f"train.image_sizes: model.name = {config.model.name} has layers made for pictures of one size: take a "
            "network that ends in a mean over the picture (resnet, resnet18), or leave train.image_sizes empty"
        )


def count_classes(variables: Mapping[str, Any]) -> int:
    """How many classes the network of given variables tells apart."""
    return variables["params"]["head"]["kernel"].shape[-1]


def to_float(images: jax.Array) -> jax.Array:
    """uint8 images in [0, 1], as torchvision's `ToTensor`; floating-point images as they are."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def predict_logits(model: Network, variables: Any, images: jax.Array) -> jax.Array:
    """Logits `[B, num_classes]` by the running statistics."""
    logits: Any = model.apply(variables, to_float(images), train=False)
    return logits
