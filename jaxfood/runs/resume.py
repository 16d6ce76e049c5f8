"""What `--resume` may change of a run's configuration."""

import dataclasses

from jaxfood.config.loading import all_settings
from jaxfood.config.sections import Config
from jaxfood.errors import UserError

# Where data lie is not what they are: `runs.pictures` compares the pictures themselves.
_WHERE = ("data.root", "data.train", "data.valid", "data.cache_dir", "data.resident")
_CHANGEABLE = ("train.epochs", "train.patience", *_WHERE, "landscape.", "device.", "distributed.", "logging.")


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
    changed = [
        f"{name} ({before.get(name, 'unset')} -> {after.get(name, 'unset')})"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(_CHANGEABLE)
    ]
    if changed:
        raise UserError(
            f"--resume cannot change {', '.join(changed)}; it takes train.epochs, train.patience, "
            f"{', '.join(_WHERE)}, and landscape, device, distributed and logging settings: leave the others "
            "out, or begin a new run"
        )
