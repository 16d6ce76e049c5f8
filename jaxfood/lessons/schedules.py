"""The learning rate of every schedule, step by step."""

from typing import Any

import jax
import numpy as np

from jaxfood.config import SCHEDULES, Config, load_config
from jaxfood.optim import plateau
from jaxfood.optim.optimizers import make_optimizer
from jaxfood.optim.schedules import make_schedule
from jaxfood.report.page import Page

STEPS, EPOCHS = 1000, 20
# Other settings than the defaults, where those would show little in so short a run.
SHOWN = {
    "constant": (),
    "warmup_cosine": (),
    "step": ("step_size=250", "gamma=0.5", "warmup_ratio=0.05"),
    "exponential": ("gamma=0.997", "warmup_ratio=0.05"),
    "inverse_sqrt": ("warmup_ratio=0.05",),
    "one_cycle": (),
    "plateau": ("factor=0.5",),
}


def measure(*, full: bool = False) -> dict[str, Any]:
    """The rate of each of 1,000 steps for each schedule: `{"steps", "epochs", "settings", "rates": {name: [1000]}}`.

    `plateau` is shown on a made validation loss that falls for six epochs and then stays. `full` changes nothing.
    """
    rates = {name: _plateau_rates() if name == "plateau" else _rates(name) for name in SCHEDULES}
    return {"steps": STEPS, "epochs": EPOCHS, "settings": SHOWN, "valid_losses": _valid_losses(), "rates": rates}


def write(numbers: dict[str, Any], page: Page) -> None:
    """One small picture for each schedule."""
    page.text("""The learning rate need not stay what it was: a rate that carries far at the beginning makes the end
        oscillate (decay), and adaptive optimizers know little of the gradients' sizes in their first steps (warm-up).
        The rate is shown as a share of `optimizer.learning_rate`.""")
    with page.figure("curves", "The rate of every schedule over a run of 1,000 steps", size=(10, 6)) as figure:
        axes = figure.subplots(2, 4, sharex=True, sharey=True).flat
        for axis, (name, rates) in zip(axes, numbers["rates"].items(), strict=False):
            axis.plot(rates)
            axis.set(title=name, xlabel="step")
        last = figure.axes[-1]
        last.set_title("what plateau sees", color="0.3")
        last.plot(np.repeat(numbers["valid_losses"], STEPS // EPOCHS), color="0.3")
        last.set_xlabel("step")
        last.annotate("validation loss", (300, 0.45), color="0.3")
        for axis in figure.axes[::4]:
            axis.set_ylabel("share of the highest rate")
    page.table(
        ("schedule", "settings shown", "first step", "highest", "last step"),
        (
            (f"`{name}`", " ".join(SHOWN[name]) or "its defaults", float(r[0]), float(np.max(r)), float(r[-1]))
            for name, r in numbers["rates"].items()
        ),
    )


def _config(name: str) -> Config:
    settings = (f"schedule.{setting}" for setting in SHOWN[name])
    return load_config(None, ("optimizer.learning_rate=1", f"schedule.name={name}", *settings))


def _rates(name: str) -> np.ndarray:
    config = _config(name)
    schedule = make_schedule(config.schedule, config.optimizer, STEPS)
    return np.asarray(jax.vmap(schedule)(np.arange(STEPS)))


def _plateau_rates() -> np.ndarray:
    config = _config("plateau")
    state = make_optimizer(config, STEPS).init(np.zeros(1))
    rates = []
    for loss in _valid_losses():
        rates += [plateau.rate_factor(state)] * (STEPS // EPOCHS)
        state = plateau.after_epoch(config, state, {"valid_loss": float(loss)})
    return np.array(rates)


def _valid_losses() -> np.ndarray:
    """Falls in the first six epochs, then stays."""
    return np.maximum(0.3, 0.9 - 0.1 * np.arange(EPOCHS))
