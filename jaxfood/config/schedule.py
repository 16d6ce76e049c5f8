"""The schedules' settings: the learning rate as a function of the step, a factor of `optimizer.learning_rate`.

Each may begin with a linear rise from 0, the notes' warm-up (`warmup_ratio`); what follows counts its steps from there.
"""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting, variant

_RISE = "share of all steps in which the rate rises"


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """What every schedule has."""

    section = "schedule"
    name: str = setting("", "how the learning rate changes from step to step")
    warmup_ratio: float = setting(0.0, _RISE, at_least=0, below=1)


SCHEDULES: dict[str, type[ScheduleConfig]] = {}  # by name, of the dataclasses below


@variant("constant", SCHEDULES)
class Constant(ScheduleConfig):
    """The same rate throughout, as in the notes' code."""


@variant("warmup_cosine", SCHEDULES)
class WarmupCosine(ScheduleConfig):
    """A linear rise from 0, then half a cosine down to `final_ratio` at the last step."""

    warmup_ratio: float = setting(0.1, _RISE, at_least=0, below=1)
    final_ratio: float = setting(0.0, "rate at the last step, as a share of the highest", at_least=0, at_most=1)


@variant("step", SCHEDULES)
class Step(ScheduleConfig):
    """`torch.optim.lr_scheduler.StepLR`, its `step()` called after every update."""

    step_size: int = setting(1000, "steps from one decay to the next", at_least=1)
    gamma: float = setting(0.1, "factor of each decay", above=0, at_most=1)


@variant("exponential", SCHEDULES)
class Exponential(ScheduleConfig):
    """`torch.optim.lr_scheduler.ExponentialLR`, its `step()` called after every update."""

    gamma: float = setting(0.999, "factor of every step", above=0, at_most=1)


@variant("inverse_sqrt", SCHEDULES)
class InverseSqrt(ScheduleConfig):
    """A linear rise, then a fall with the root of the step (Vaswani et al. 2017, "Attention is all you need")."""

    warmup_ratio: float = setting(0.1, _RISE, at_least=0, below=1)


@variant("one_cycle", SCHEDULES)
class OneCycle(ScheduleConfig):
    """`torch.optim.lr_scheduler.OneCycleLR(cycle_momentum=False)`: up half a cosine, and down another."""

    warmup_ratio: float = setting(0.3, _RISE, at_least=0, below=1)
    div_factor: float = setting(25.0, "the highest rate divided by the first", at_least=1)
    final_div_factor: float = setting(1e4, "the first rate divided by the last", at_least=1)


@variant("plateau", SCHEDULES)
class Plateau(ScheduleConfig):
    """`torch.optim.lr_scheduler.ReduceLROnPlateau`, its `step(metric)` called after every epoch.

    PyTorch's patience of 10 would never be reached before `train.patience` ends the run; 2 was chosen.
    """

    monitor: str = setting(
        "valid_loss", "what is to improve", choices=("valid_loss", "valid_accuracy", "train_loss", "train_accuracy")
    )
    factor: float = setting(0.1, "factor of each decay", above=0, below=1)
    patience: int = setting(2, "decay when more epochs than this in a row brought no improvement", at_least=0)
    threshold: float = setting(1e-4, "least improvement that counts, relative to the best so far", at_least=0, below=1)
    cooldown: int = setting(0, "epochs after a decay in which none is counted", at_least=0)
    min_learning_rate: float = setting(0.0, "the rate is not reduced below this", at_least=0)


@dataclass(frozen=True)
class RangeTest(ScheduleConfig):
    """An exponential rise to the highest rate: what `preview --find_lr` trains by, and no run can choose."""

    name: str = setting("range_test", "", choices=("range_test",))
    start_ratio: float = setting(1e-8, "the first rate, as a share of the highest", above=0, below=1)
    steps: int = setting(100, "steps from the first rate to the highest", at_least=2)
