"""Weights & Biases."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxfood.errors import UserError
from jaxfood.extras import require
from jaxfood.files import is_remote
from jaxfood.runs.directory import WANDB
from jaxfood.training.trackers.writer import PROJECT, Outcome, Scalars, Tracked, going_on, in_one_line


def check_wandb() -> None:
    """Check that somebody is logged in, and the server knows them; offline, that it is installed.

    Raises:
        UserError: it is not so.
    """
    require("wandb", "logging.wandb = true", extra="wandb")
    if _mode() != "online":
        return
    import wandb

    try:
        logged_in = wandb.login(prompt=False, verify=True)
    except Exception as error:  # requests and urllib3 have their own beside wandb's
        raise _unreachable(error) from error
    if not logged_in:
        raise _unreachable("nobody is logged in")


class Wandb:
    """A run of Weights & Biases, gone on with under the id in RUN/trackers.json. Its files are in RUN/wandb."""

    def __init__(self, run: Tracked) -> None:
        import wandb

        nested: dict[str, dict[str, Any]] = {}
        for name, value in run.settings.items():
            section, _, setting = name.partition(".")
            nested.setdefault(section, {})[setting] = value
        offline = _mode() == "offline"
        stored = run.stored(WANDB)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                id=stored or None,
                resume="allow" if stored and not offline else None,  # offline ones become one when they are synced
                name=run.name,
                group=run.group or None,
                dir=None if is_remote(run.workdir) else str(run.workdir),
                config=nested,
                allow_val_change=True,
                settings=wandb.Settings(console="off", silent=True),  # log.txt has the lines, and the terminal a bar
            )
        except wandb.Error as error:
            raise _unreachable(error) from error
        run.store(WANDB, self._run.id)
        if offline:
            where = run.workdir / "wandb" if not is_remote(run.workdir) else Path("wandb")
            run.say(f"wandb: offline, in {where}; to bring it to the server: wandb sync {where}/offline-run-*")
        elif not self._run.disabled:
            run.say(f"wandb: {self._run.url}")
        if not stored:
            for step, values in run.epochs.items():
                self.add_scalars(values, step)

    def add_scalars(self, values: Scalars, step: int) -> None:
        with going_on("wandb"):
            self._run.log(dict(values), step=step)

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        import wandb

        with going_on("wandb"):
            self._run.log({name: wandb.Image(pixels)}, step=step)

    def close(self, outcome: Outcome) -> None:
        with going_on("wandb"):
            self._run.finish(exit_code={"finished": 0, "interrupted": 130, "failed": 1}[outcome])


def _mode() -> str:
    import wandb

    mode = str(wandb.setup().settings.mode)
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def _unreachable(error: object) -> UserError:
    return UserError(
        f"logging.wandb = true: Weights & Biases cannot be reached ({in_one_line(error)}): check the network and that "
        "you are logged in (wandb login), set WANDB_MODE=offline, or leave it out"
    )
