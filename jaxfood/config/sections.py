"""Every setting: its default, its meaning and what it accepts. Nowhere else stands a default.

The defaults are the recipe of the notes (HW3, Food-11): cross-entropy, Adam 3e-4 with L2 1e-5, gradient norm clipped at
10, constant rate, batches of 64, 8 epochs, patience 5, seed 6666, 128 px.
"""

import dataclasses
import math
from dataclasses import dataclass

from jaxfood.config.augment import AugmentConfig
from jaxfood.config.distributed import DistributedConfig
from jaxfood.config.fields import Section, setting
from jaxfood.config.landscape import LandscapeConfig
from jaxfood.config.loss import CrossEntropy, LossConfig
from jaxfood.config.model import Classifier, ModelConfig
from jaxfood.config.optimizer import Adam, OptimizerConfig
from jaxfood.config.schedule import Constant, ScheduleConfig
from jaxfood.errors import UserError

LAST_STEP = 2**31 - 1

RESIZES = ("squash", "crop", "pad")


@dataclass(frozen=True)
class DataConfig(Section):
    """Which pictures, and how large."""

    section = "data"
    source: str = setting(
        "folder",
        "where pictures come from: drawn ones, a folder of yours, or a data set prepared by TFDS (NAME, NAME/CONFIG, "
        "NAME:1.2.3)",
        choices=("demo", "folder", "tfds:NAME"),
    )
    root: str = setting("", "the folder that holds the split folders; tfds: its data_dir, empty for TFDS's own")
    train: str = setting(
        "train",
        "training pictures: a folder or a list (.txt, .csv, .tsv) under root, several joined by +; tfds: a split such "
        "as train[:90%]",
    )
    valid: str = setting("valid", "validation pictures, named as those of data.train")
    valid_fraction: float = setting(
        0.0,
        "validate on this share of the training pictures of each class, drawn by train.seed, and train on the others; "
        "data.valid is then not read; 0: no",
        at_least=0,
        below=1,
    )
    unlabeled: str = setting(
        "",
        "also train on pictures whose labels are not known (FixMatch): folders or lists under root or elsewhere, "
        "several joined by +; empty: none",
    )
    class_order: str = setting(
        "name",
        "how class folders are numbered: by their sorted names as ImageFolder does, or natural (2 before 10)",
        choices=("name", "natural"),
    )
    image_size: int = setting(
        128, "height and width in pixels after resizing", at_least=32, at_most=2048, multiple_of=32
    )
    resize: str = setting(
        "squash",
        "how a picture becomes a square: squash changes its proportions as the notes do; crop takes its middle "
        "(torchvision's Resize and CenterCrop of one number); pad keeps all of it between black bars",
        choices=RESIZES,
    )
    fraction: float = setting(1.0, "share of each class's training pictures that is used", above=0, at_most=1)
    skip_corrupt: bool = setting(False, "leave out pictures that cannot be decoded instead of stopping")
    exif_orientation: bool = setting(
        False, "turn pictures as their EXIF data say; the notes' code and torchvision ignore that"
    )
    resident: bool = setting(
        True, "keep all pictures on every device; false, and always for tfds: read each batch from disk"
    )
    cache_dir: str = setting("", "where decoded pictures are kept; empty: $XDG_CACHE_HOME/jaxfood or ~/.cache/jaxfood")


@dataclass(frozen=True)
class TrainConfig(Section):
    """The loop."""

    section = "train"
    epochs: int = setting(8, "passes over the training pictures", at_least=1, at_most=1_000_000)
    batch_size: int = setting(64, "pictures in one update, over all devices together", at_least=1, at_most=1_000_000)
    patience: int = setting(
        5, "stop when more epochs than this in a row brought no new best", at_least=0, at_most=1_000_000
    )
    seed: int = setting(6666, "seed of the first weights and of the order of pictures", at_least=0, below=2**31)
    accumulate: int = setting(
        1,
        "compute each batch in so many parts, one after another: one update, less memory; at most the batch_size",
        at_least=1,
        at_most=1_000_000,
    )
    folds: int = setting(
        0,
        "split the training pictures, of each class alike, into so many folds, and train a run for each, on the "
        "others, validated on its own; 0: one run, validated on data.valid",
        at_least=0,
        at_most=1000,
        other_than=1,
    )
    fold: int = setting(0, "train that one of the folds alone, from 1 on; 0: all", at_least=0, at_most=1000)
    init: str = setting(
        "", "what a new run begins with: a RUN, whose best weights it takes, or a file of PyTorch weights; empty: new"
    )
    freeze: str = setting(
        "",
        "parameters that stay as they are, by the beginnings of their names (layer1,block1.kernel), or body: all "
        "but the head",
    )
    parallel: str = setting("jit", "how one step spans several devices", choices=("jit", "pmap"))
    monitor: str = setting(
        "valid_accuracy",
        "what tells the best epoch, and with patience when to stop",
        choices=("valid_accuracy", "valid_loss"),
    )
    image_sizes: tuple[int, ...] = setting(
        (),
        "sizes of the training pictures, each for an equal part of the epochs (64,64,96: 64 px for two thirds); "
        "empty: always data.image_size, at which validation and prediction stay",
        of=int,
        at_least=32,
        at_most=2048,
        multiple_of=32,
    )
    ema_decay: float = setting(
        0.0,
        "also keep a moving average of weights and statistics, which is evaluated, kept as the best and predicts; this "
        "share of it stays at each update (0.999), less in the first ones; 0: no average",
        at_least=0,
        below=1,
    )
    sam_radius: float = setting(
        0.0,
        "sharpness-aware: take the gradient so far uphill (SAM's rho, 0.05), at the cost of another gradient; 0: no",
        at_least=0,
    )
    sam_every: int = setting(1, "sharpness-aware in every so many updates only", at_least=1)
    unlabeled_ratio: int = setting(
        2, "pictures of data.unlabeled in an update for each labelled one", at_least=1, at_most=1000
    )
    unlabeled_threshold: float = setting(
        0.95,
        "an answer is taken for an unlabelled picture's label where its probability is at least this; 1: never",
        at_least=0,
        at_most=1,
    )
    unlabeled_weight: float = setting(1.0, "weight of the unlabelled pictures' loss beside the labelled", at_least=0)
    teachers: str = setting(
        "",
        "runs to learn from, separated by commas: their answers to the same changed pictures are targets beside the "
        "labels (distillation); empty: none",
    )
    distill_weight: float = setting(
        0.5, "the teachers' share of the loss; the labels' is the rest", at_least=0, at_most=1
    )
    distill_temperature: float = setting(
        4.0, "by which logits are divided before the answers of teachers and run are compared", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate > self.batch_size:
            raise UserError(
                f"train.accumulate = {self.accumulate} parts of train.batch_size = {self.batch_size} pictures: a part "
                f"has at least one; set train.accumulate to {self.batch_size} or less"
            )

        if self.fold > self.folds:
            raise UserError(
                f"train.fold = {self.fold} and train.folds = {self.folds}: train.folds says how many folds there are, "
                "and train.fold is one of them, counted from 1"
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates in the whole run, a number that the int32 of the step counter and the schedules holds.

        Raises:
            UserError: it does not.
        """
        if self.epochs * steps_per_epoch > LAST_STEP:
            raise UserError(
                f"train.epochs = {self.epochs} of {steps_per_epoch} steps each are {self.epochs * steps_per_epoch:,} "
                f"steps, and steps are counted to {LAST_STEP:,}: set train.epochs to {LAST_STEP // steps_per_epoch} "
                "or less, or a larger train.batch_size"
            )
        return self.epochs * steps_per_epoch

    def size_of_epoch(self, epoch: int, image_size: int) -> int:
        """The size of the training pictures in an epoch, counted from 0, where the whole size is `image_size`."""
        if not self.image_sizes:
            return image_size
        return self.image_sizes[min(epoch, self.epochs - 1) * len(self.image_sizes) // self.epochs]

    @property
    def part_size(self) -> int:
        """Pictures in one of the parts of a batch: what fits in memory without gradients too."""
        return math.ceil(self.batch_size / self.accumulate)


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """What a run keeps beside the last checkpoint."""

    section = "checkpoint"
    keep_best: int = setting(
        1, "how many of the best checkpoints are kept, beside the last", at_least=1, at_most=10_000
    )
    every: int = setting(0, "also save after each so many steps inside an epoch; 0: at its end only", at_least=0)


@dataclass(frozen=True)
class DeviceConfig(Section):
    """What to compute on."""

    section = "device"
    platform: str = setting("", "cpu, gpu or tpu; empty: the best that JAX finds", choices=("", "cpu", "gpu", "tpu"))
    count: int = setting(0, "number of devices; 0: all", at_least=0, at_most=65_536)
    compilation_cache: bool = setting(True, "keep compiled steps on disk for the next start")


@dataclass(frozen=True)
class LoggingConfig(Section):
    """What a run shows."""

    section = "logging"
    progress: bool = setting(True, "show progress bars")
    tensorboard: bool = setting(False, "also write RUN/tensorboard (needs the extra: jaxfood[tensorboard])")
    wandb: bool = setting(False, "also tell Weights & Biases (needs the extra: jaxfood[wandb])")
    mlflow: bool = setting(False, "also tell MLflow (needs the extra: jaxfood[mlflow])")
    critical_learning_rate: int = setting(
        0,
        "after each so many epochs also measure the smallest rate at which a gradient step raises the loss, by about "
        "ten losses of landscape.samples pictures; 0: never",
        at_least=0,
    )
    report: bool = setting(
        False, "write RUN/report.html after each epoch: the run in a browser, refreshing itself until it is trained"
    )

    @property
    def tracks(self) -> bool:
        """Whether any tracker is told."""
        return self.tensorboard or self.wandb or self.mlflow


@dataclass(frozen=True)
class Config:
    """All settings of a run, checked. `dataclasses.replace` makes a changed copy."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = Classifier()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = Constant()
    loss: LossConfig = CrossEntropy()
    checkpoint: CheckpointConfig = CheckpointConfig()
    landscape: LandscapeConfig = LandscapeConfig()
    device: DeviceConfig = DeviceConfig()
    distributed: DistributedConfig = DistributedConfig()
    logging: LoggingConfig = LoggingConfig()


SECTIONS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Config))
