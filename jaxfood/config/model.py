"""The networks' settings, one dataclass each."""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting, variant
from jaxfood.errors import UserError

MAX_CLASSES = 100_000


@dataclass(frozen=True)
class ModelConfig(Section):
    """What every network has."""

    section = "model"
    name: str = setting("", "which network")
    num_classes: int = setting(
        0,
        "number of classes, labels run from 0 to one less; 0: as many as the training pictures have",
        at_least=0,
        at_most=MAX_CLASSES,
        other_than=1,
    )
    dtype: str = setting(
        "float32", "type to compute in; parameters and statistics stay float32", choices=("float32", "bfloat16")
    )
    sync_batch_norm: bool = setting(
        True, "BatchNorm over the global batch; false: each device over its own share, as PyTorch's DDP"
    )
    dropout: float = setting(
        0.0, "share of what enters the last fully connected layers that is set to 0 in training", at_least=0, below=1
    )
    normalize: tuple[float, ...] = setting(
        (),
        "mean and standard deviation of red, green and blue, six numbers: pictures minus mean, by deviation; empty: no "
        "(0.485,0.456,0.406,0.229,0.224,0.225 for weights trained on ImageNet)",
        at_least=0,
        at_most=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.normalize) not in (0, 6) or 0 in self.normalize[3:]:
            raise UserError(
                f"model.normalize = {','.join(map(str, self.normalize))}: it takes six numbers, the means of red, "
                "green and blue and then their deviations, which are above 0"
            )


MODELS: dict[str, type[ModelConfig]] = {}  # by name, of the dataclasses below


@variant("classifier", MODELS)
class Classifier(ModelConfig):
    """The notes' `Classifier`: five blocks of convolution and pooling, three fully connected layers."""

    width: int = setting(64, "channels of the first block; all other layers in proportion", at_least=1, at_most=4096)


@variant("resnet", MODELS)
class ResNet(ModelConfig):
    """A residual network for pictures of 64 to 128 px: more accuracy for the same time than the notes'."""

    width: int = setting(
        32, "channels of the stem; each stage has twice those of the one before", at_least=1, at_most=4096
    )
    blocks: tuple[int, ...] = setting(
        (1, 1, 1), "residual blocks in each stage, of which each halves the picture", of=int, at_least=0, at_most=1000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.blocks) <= 4:
            raise UserError(
                f"model.blocks has {len(self.blocks)} numbers: it takes one to four, as a picture of 32 px can be "
                "halved four times after the stem"
            )


@dataclass(frozen=True)
class ResNetConfig(ModelConfig):
    """What torchvision's residual networks have."""

    stem: str = setting(
        "imagenet",
        "first layers: imagenet, torchvision's 7x7 and pooling, a quarter of height and width; small, 3x3 at full size",
        choices=("imagenet", "small"),
    )


@variant("resnet18", MODELS)
class ResNet18(ResNetConfig):
    """torchvision's `resnet18`."""


@variant("resnet34", MODELS)
class ResNet34(ResNetConfig):
    """torchvision's `resnet34`."""
