"""The optimizers' settings, one dataclass each: the fields that PyTorch's has, with PyTorch's defaults.

Adam's defaults are the notes' (`Adam(lr=0.0003, weight_decay=1e-5)`). `clip_norm` is the notes'
`clip_grad_norm_(max_norm=10)` for all of them; `inf` is no clipping.
"""

from dataclasses import dataclass

from jaxfood.config.settings import Section, setting


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """What every optimizer has."""

    section = "optimizer"
    name: str = setting("", "which optimizer")
    learning_rate: float = setting(1e-3, "learning rate, the schedule's highest", at_least=0)
    weight_decay: float = setting(0.0, "L2 penalty added to the gradient (adamw: decoupled decay)", at_least=0)
    clip_norm: float = setting(10.0, "highest norm of the whole gradient; inf: no clipping", above=0, infinite=True)


@dataclass(frozen=True)
class Sgd(OptimizerConfig):
    """`torch.optim.SGD(lr)`."""

    name: str = setting("sgd", "", choices=("sgd",))


@dataclass(frozen=True)
class Momentum(OptimizerConfig):
    """`torch.optim.SGD(lr, momentum=0.9)`."""

    name: str = setting("momentum", "", choices=("momentum",))
    momentum: float = setting(0.9, "share of the last step that is kept", at_least=0, below=1)


@dataclass(frozen=True)
class Nesterov(OptimizerConfig):
    """`torch.optim.SGD(lr, momentum=0.9, nesterov=True)`."""

    name: str = setting("nesterov", "", choices=("nesterov",))
    momentum: float = setting(0.9, "share of the last step that is kept", above=0, below=1)


@dataclass(frozen=True)
class Adagrad(OptimizerConfig):
    """`torch.optim.Adagrad`."""

    name: str = setting("adagrad", "", choices=("adagrad",))
    learning_rate: float = setting(1e-2, "learning rate, the schedule's highest", at_least=0)
    lr_decay: float = setting(0.0, "the rate at step t is divided by 1 + t * lr_decay", at_least=0)
    initial_accumulator_value: float = setting(0.0, "where the sum of squared gradients starts", at_least=0)
    eps: float = setting(1e-10, "added to the root of the accumulated squares", at_least=0)


@dataclass(frozen=True)
class RMSprop(OptimizerConfig):
    """`torch.optim.RMSprop`."""

    name: str = setting("rmsprop", "", choices=("rmsprop",))
    learning_rate: float = setting(1e-2, "learning rate, the schedule's highest", at_least=0)
    alpha: float = setting(0.99, "decay of the mean of squared gradients", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the mean square", at_least=0)
    momentum: float = setting(0.0, "share of the last step that is kept", at_least=0, below=1)
    centered: bool = setting(False, "divide by the standard deviation of the gradient instead of its mean square")


@dataclass(frozen=True)
class Adam(OptimizerConfig):
    """`torch.optim.Adam` with the notes' values; the weight decay is L2, as PyTorch's Adam has it."""

    name: str = setting("adam", "", choices=("adam",))
    learning_rate: float = setting(3e-4, "learning rate, the schedule's highest", at_least=0)
    weight_decay: float = setting(1e-5, "L2 penalty added to the gradient", at_least=0)
    beta1: float = setting(0.9, "decay of the mean gradient", at_least=0, below=1)
    beta2: float = setting(0.999, "decay of the mean squared gradient", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the mean square", at_least=0)


@dataclass(frozen=True)
class AdamW(OptimizerConfig):
    """`torch.optim.AdamW`: the decay is decoupled, `p *= 1 - lr * weight_decay`."""

    name: str = setting("adamw", "", choices=("adamw",))
    weight_decay: float = setting(1e-2, "decoupled weight decay", at_least=0)
    beta1: float = setting(0.9, "decay of the mean gradient", at_least=0, below=1)
    beta2: float = setting(0.999, "decay of the mean squared gradient", at_least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the mean square", at_least=0)


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    variant.name: variant for variant in (Sgd, Momentum, Nesterov, Adagrad, RMSprop, Adam, AdamW)
}
