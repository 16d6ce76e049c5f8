"""What `--resume` may change of a run's configuration."""

import dataclasses

from jaxfood.config.loading import all_settings
from jaxfood.config.loss import BALANCED
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.optim.schedules import make_schedule

# Where data lie, and which can be read, is not what they are: `runs.pictures` compares the pictures themselves.
_WHERE = ("data.root", "data.train", "data.valid", "data.skip_corrupt", "data.cache_dir", "data.resident")
# The same of pictures and runs which may move but not come or go: that would be another training.
ELSEWHERE = ("data.unlabeled", "train.teachers")
_WEIGHTS = "loss.class_weights"
# How long, what changes no number, and where.
_ALONE = ("train.epochs", "train.patience", "train.steps_per_call", "checkpoint.interval", *_WHERE)
_SECTIONS = ("landscape", "device", "distributed", "logging")


# Schedules that know how long the run is: with another number of epochs what is left of them is another curve.
_OF_THE_WHOLE = ("warmup_cosine", "one_cycle", "inverse_sqrt")


def schedule_changes(stored: Config, wanted: Config, step: int, total_steps: int) -> list[str]:
    """What another number of epochs makes of the learning rate and of the pictures' sizes, a line each.

    Args:
        stored: the run's configuration so far.
        wanted: that with which it goes on.
        step: updates done.
        total_steps: updates of the whole run, with which it goes on.
    """
    if stored.train.epochs == wanted.train.epochs or not step:
        return []
    said = []
    if wanted.train.image_sizes:
        said = [
            f"train.epochs {stored.train.epochs} -> {wanted.train.epochs}: each of train.image_sizes is for an equal "
            "part of all epochs, so the sizes of the epochs change too"
        ]
    if wanted.schedule.name not in _OF_THE_WHOLE and not wanted.schedule.warmup_ratio:
        return said
    before = make_schedule(stored.schedule, stored.optimizer, total_steps * stored.train.epochs // wanted.train.epochs)
    after = make_schedule(wanted.schedule, wanted.optimizer, total_steps)
    return said + [
        f"train.epochs {stored.train.epochs} -> {wanted.train.epochs}: the schedule {wanted.schedule.name} spans the "
        f"whole run, so the learning rate goes on at {float(after(step)):.3g}, where it stood at "
        f"{float(before(step - 1)):.3g}"
    ]


def may_change(name: str) -> bool:
    """Whether `--resume` takes any other value of a setting, "SECTION.FIELD"."""
    return name in _ALONE or name.partition(".")[0] in _SECTIONS


def check_resumable(stored: Config, wanted: Config) -> None:
    """Check that a run may go on under another configuration.

    Raises:
        UserError: more is changed than what changes no number: how long, where, and what is shown.
    """
    if not wanted.model.num_classes:  # as many as the pictures have: `runs.pictures` compares these
        wanted = dataclasses.replace(
            wanted, model=dataclasses.replace(wanted.model, num_classes=stored.model.num_classes)
        )
    before, after = dict(all_settings(stored)), dict(all_settings(wanted))
    for name in ELSEWHERE:
        if before[name] and after[name]:
            after[name] = before[name]
    if _WEIGHTS in before and after.get(_WEIGHTS) == BALANCED:
        after[_WEIGHTS] = before[_WEIGHTS]  # compared as numbers, once the pictures are counted
    changed = [
        f"{name} ({before.get(name, 'unset')} -> {after.get(name, 'unset')})"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not may_change(name)
    ]
    if changed:
        raise UserError(
            f"--resume cannot change {', '.join(changed)}; it takes {', '.join(_ALONE)}, where "
            f"{' and '.join(ELSEWHERE)} lie, and landscape, device, distributed and logging settings: leave the others "
            "out, or begin a new run"
        )
