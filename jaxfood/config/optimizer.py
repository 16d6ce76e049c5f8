"""The optimizers' settings, one dataclass each: the fields that PyTorch's has, with PyTorch's defaults.

Adam's defaults are the notes' (`Adam(lr=0.0003, weight_decay=1e-5)`). `clip_norm` is the notes'
`clip_grad_norm_(max_norm=10)` for all of them; `inf` is no clipping. The optimizers that only the notes' formulas
define are at the end; where neither the notes nor PyTorch has a value, a comment says what was chosen.
"""

import math
from dataclasses import dataclass

from jaxfood.config.fields import Section, setting, variant

_RATE = "learning rate, the schedule's highest"


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """What every optimizer has."""

    section = "optimizer"
    name: str = setting("", "which optimizer")
    learning_rate: float = setting(1e-3, _RATE, at_least=0)
    weight_decay: float = setting(0.0, "L2 penalty added to the gradient (adamw: decoupled decay)", at_least=0)
    decay_biases_and_norms: bool = setting(True, "decay biases and BatchNorm's parameters too, as PyTorch does")
    clip_value: float = setting(
        math.inf, "highest size of a gradient's element, before clip_norm", above=0, infinite=True
    )
    clip_norm: float = setting(10.0, "highest norm of the whole gradient; inf: no clipping", above=0, infinite=True)


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {}  # by name, of the dataclasses below


@variant("sgd", OPTIMIZERS)
class Sgd(OptimizerConfig):
    """`torch.optim.SGD(lr)`."""


@variant("momentum", OPTIMIZERS)
class Momentum(OptimizerConfig):
    """`torch.optim.SGD(lr, momentum=0.9)`."""

    momentum: float = setting(0.9, "share of the last step that is kept", at_least=0, below=1)


@variant("nesterov", OPTIMIZERS)
class Nesterov(OptimizerConfig):
    """`torch.optim.SGD(lr, momentum=0.9, nesterov=True)`."""

    momentum: float = setting(0.9, "share of the last step that is kept", above=0, below=1)


@variant("adagrad", OPTIMIZERS)
class Adagrad(OptimizerConfig):
    """`torch.optim.Adagrad`."""

    learning_rate: float = setting(1e-2, _RATE, at_least=0)
    lr_decay: float = setting(0.0, "the rate at step t is divided by 1 + t * lr_decay", at_least=0)
    initial_accumulator_value: float = setting(0.0, "where the sum of squared gradients starts", at_least=0)
    eps: float = setting(1e-10, "added to the root of the squares (adadelta: inside both roots)", at_least=0)


@variant("rmsprop", OPTIMIZERS)
class RMSprop(OptimizerConfig):
    """`torch.optim.RMSprop`."""

    learning_rate: float = setting(1e-2, _RATE, at_least=0)
    alpha: float = setting(0.99, "decay of the mean of squared gradients", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the mean square", at_least=0)
    momentum: float = setting(0.0, "share of the last step that is kept", at_least=0, below=1)
    centered: bool = setting(False, "divide by the standard deviation of the gradient instead of its mean square")


@variant("adadelta", OPTIMIZERS)
class Adadelta(OptimizerConfig):
    """`torch.optim.Adadelta`."""

    learning_rate: float = setting(1.0, _RATE, at_least=0)
    rho: float = setting(0.9, "decay of the mean squares of gradient and step", at_least=0, below=1)
    eps: float = setting(1e-6, "added inside the roots of both mean squares", above=0)


@dataclass(frozen=True)
class _Moments(OptimizerConfig):
    """What Adam and its kin have."""

    beta1: float = setting(0.9, "decay of the mean gradient", at_least=0, below=1)
    beta2: float = setting(0.999, "decay of the mean squared gradient", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the mean square", at_least=0)


@variant("adam", OPTIMIZERS)
class Adam(_Moments):
    """`torch.optim.Adam` with the notes' values; the weight decay is L2, as PyTorch's Adam has it."""

    learning_rate: float = setting(3e-4, _RATE, at_least=0)
    weight_decay: float = setting(1e-5, "L2 penalty added to the gradient", at_least=0)


@variant("amsgrad", OPTIMIZERS)
class Amsgrad(_Moments):
    """`torch.optim.Adam(amsgrad=True)`: the largest mean square so far divides, not the present one."""


@variant("nadam", OPTIMIZERS)
class Nadam(_Moments):
    """`torch.optim.NAdam`: Adam with Nesterov's look ahead."""

    learning_rate: float = setting(2e-3, _RATE, at_least=0)
    momentum_decay: float = setting(4e-3, "how fast beta1 rises from its half to its value", at_least=0)


@variant("adamw", OPTIMIZERS)
class AdamW(_Moments):
    """`torch.optim.AdamW`: the decay is decoupled, `p *= 1 - lr * weight_decay`."""

    weight_decay: float = setting(1e-2, "decoupled weight decay", at_least=0)


@variant("muon", OPTIMIZERS)
class Muon(AdamW):
    """Steps along the orthogonalised momentum of each kernel, `AdamW` for biases and norms; the decay is decoupled.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. As `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`
    its steps have AdamW's size (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that rates are of one kind.
    PyTorch's takes matrices alone; here a convolution's kernel is one of all that enters it by its outputs.
    """

    weight_decay: float = setting(0.1, "decoupled weight decay", at_least=0)
    momentum: float = setting(0.95, "share of the mean gradient that is kept, for kernels", at_least=0, below=1)


@variant("notes_momentum", OPTIMIZERS)
class NotesMomentum(OptimizerConfig):
    """The notes' momentum, m1 = lambda m0 - eta g: the learning rate is inside the movement."""

    momentum: float = setting(0.9, "lambda, the share of the last movement that is kept", at_least=0, below=1)


# The three below move a parameter by about the learning rate at first, as Adam does: they have the notes' rate of Adam.


@variant("notes_adagrad", OPTIMIZERS)
class NotesAdagrad(OptimizerConfig):
    """The notes' AdaGrad: sigma is the root of the *mean* of all squared gradients so far."""

    learning_rate: float = setting(3e-4, _RATE, at_least=0)


@variant("notes_rmsprop", OPTIMIZERS)
class NotesRMSprop(OptimizerConfig):
    """The notes' RMSProp: sigma starts at |g_0|, then follows the recursion with alpha (PyTorch's 0.99)."""

    learning_rate: float = setting(3e-4, _RATE, at_least=0)
    alpha: float = setting(0.99, "decay of sigma squared", at_least=0, below=1)


@variant("notes_adam", OPTIMIZERS)
class NotesAdam(OptimizerConfig):
    """The notes' Adam: RMSProp's sigma, the momentum's direction. The two decays are Adam's."""

    learning_rate: float = setting(3e-4, _RATE, at_least=0)
    momentum: float = setting(0.9, "share of the last direction that is kept", at_least=0, below=1)
    alpha: float = setting(0.999, "decay of sigma squared", at_least=0, below=1)
