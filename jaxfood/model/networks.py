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
        case settings.ResNet18() | settings.ResNet34():
            return TorchvisionResNet(depth=int(config.name.removeprefix("resnet")), stem=config.stem, **common)
    raise TypeError(f"no network for {config}")


def init_variables(config: Config) -> dict[str, Any]:
    """Fresh `{"params": ..., "batch_stats": ...}`, from `train.seed` alone."""
    images = jnp.zeros((1, config.data.image_size, config.data.image_size, 3))
    return jax.jit(make_model(config.model).init)(jax.random.key(config.train.seed), images)


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
