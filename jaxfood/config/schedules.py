"""The schedules' settings: the learning rate as a function of the step, a factor of `optimizer.learning_rate`."""

from dataclasses import dataclass

from jaxfood.config.settings import Section, setting


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """What every schedule has."""

    section = "schedule"
    name: str = setting("", "how the learning rate changes from step to step")


@dataclass(frozen=True)
class Constant(ScheduleConfig):
    """The same rate throughout, as in the notes' code."""

    name: str = setting("constant", "", choices=("constant",))


@dataclass(frozen=True)
class WarmupCosine(ScheduleConfig):
    """A linear rise from 0, then half a cosine down to `final_ratio` at the last step."""

    name: str = setting("warmup_cosine", "", choices=("warmup_cosine",))
    warmup_ratio: float = setting(0.1, "share of all steps in which the rate rises", at_least=0, below=1)
    final_ratio: float = setting(0.0, "rate at the last step, as a share of the highest", at_least=0, at_most=1)


@dataclass(frozen=True)
class Step(ScheduleConfig):
    """`torch.optim.lr_scheduler.StepLR`, its `step()` called after every update."""

    name: str = setting("step", "", choices=("step",))
    step_size: int = setting(1000, "steps from one decay to the next", at_least=1)
    gamma: float = setting(0.1, "factor of each decay", above=0, at_most=1)


@dataclass(frozen=True)
class Exponential(ScheduleConfig):
    """`torch.optim.lr_scheduler.ExponentialLR`, its `step()` called after every update."""

    name: str = setting("exponential", "", choices=("exponential",))
    gamma: float = setting(0.999, "factor of every step", above=0, at_most=1)


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    variant.name: variant for variant in (Constant, WarmupCosine, Step, Exponential)
}
