"""Random changes of the training pictures, anew in each epoch; none by default, as in the notes.

Names and meaning are torchvision's (v2); where pixels are interpolated it is bilinear.
"""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting
from jaxfood.errors import UserError


@dataclass(frozen=True)
class AugmentConfig(Section):
    """What is changed, in this order."""

    section = "augment"
    resized_crop: float = setting(
        0.0,
        "cut out a part of at least this share of the area, and resize it (RandomResizedCrop, scale); 0: no",
        at_least=0,
        at_most=1,
    )
    resized_crop_ratio: float = setting(
        4 / 3, "longest width of that part over its height, and the other way round (ratio)", at_least=1, at_most=100
    )
    flip: bool = setting(False, "mirror half of the pictures left to right (RandomHorizontalFlip)")
    vertical_flip: bool = setting(False, "mirror half of the pictures upside down (RandomVerticalFlip)")
    crop: int = setting(
        0, "pad by so many mirrored pixels and cut the old size out at random (RandomCrop); 0: no", at_least=0, below=32
    )
    rotation: float = setting(0.0, "turn by at most so many degrees (RandomAffine, degrees)", at_least=0, at_most=180)
    translate: float = setting(
        0.0, "shift by at most this share of the side (RandomAffine, translate)", at_least=0, at_most=1
    )
    zoom: float = setting(0.0, "zoom by a factor of 1 - zoom to 1 + zoom (RandomAffine, scale)", at_least=0, below=1)
    shear: float = setting(0.0, "shear by at most so many degrees (RandomAffine, shear)", at_least=0, at_most=80)
    brightness: float = setting(0.0, "a factor of 1 - value to 1 + value, as all of ColorJitter", at_least=0)
    contrast: float = setting(0.0, "the same for the contrast", at_least=0)
    saturation: float = setting(0.0, "the same for the colours", at_least=0)
    hue: float = setting(0.0, "turn the colours by at most this share of the circle", at_least=0, at_most=0.5)
    grayscale: float = setting(
        0.0, "share of the pictures that lose their colours (RandomGrayscale)", at_least=0, at_most=1
    )
    trivial: bool = setting(
        False, "one change for each picture, of fourteen kinds and any strength (TrivialAugmentWide)"
    )
    erase: float = setting(
        0.0, "share of the pictures in which a rectangle is made black (RandomErasing)", at_least=0, at_most=1
    )
    mixup: float = setting(
        0.0,
        "mix each picture, and its label, with another one, by a share of Beta(value, value) (MixUp)",
        at_least=0,
    )
    cutmix: float = setting(
        0.0, "put a rectangle of another picture in, of an area by Beta(value, value) (CutMix)", at_least=0
    )
    mix_share: float = setting(
        1.0, "share of the batches that are mixed; with mixup and cutmix each half of them", above=0, at_most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop and self.resized_crop:
            raise UserError(
                "augment.crop and augment.resized_crop both cut: set one of them to 0 (RandomCrop or RandomResizedCrop)"
            )
