"""The losses' settings: what training minimises, and what validation reports as its loss."""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting, variant

BALANCED = "balanced"
_WEIGHTS = (
    "a weight for each class, separated by commas; empty: all 1; balanced: from the training pictures, n / (K n_c) "
    "where n_c of all n are of this one of K classes, as scikit-learn has it"
)


@dataclass(frozen=True)
class LossConfig(Section):
    """What every loss has."""

    section = "loss"
    name: str = setting("", "what training minimises")


LOSSES: dict[str, type[LossConfig]] = {}  # by name, of the dataclasses below


@variant("cross_entropy", LOSSES)
class CrossEntropy(LossConfig):
    """`torch.nn.CrossEntropyLoss`, the notes' loss."""

    label_smoothing: float = setting(0.0, "share of the target spread evenly over all classes", at_least=0, at_most=1)
    class_weights: tuple[float, ...] | str = setting((), _WEIGHTS, words=(BALANCED,), at_least=0, at_most=1_000_000)


@variant("mse", LOSSES)
class MeanSquaredError(LossConfig):
    """`torch.nn.MSELoss` of softmax and one-hot, which the notes compare with cross-entropy."""


@variant("focal", LOSSES)
class Focal(LossConfig):
    """Focal loss (Lin et al. 2017, its recommended gamma): cross-entropy times (1 - p)^gamma of the right class."""

    gamma: float = setting(2.0, "how little pictures that are right already weigh", at_least=0, at_most=1000)
    class_weights: tuple[float, ...] | str = setting((), _WEIGHTS, words=(BALANCED,), at_least=0, at_most=1_000_000)
