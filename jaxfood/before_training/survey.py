"""A look at a training before it begins: preview.md and its pictures."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

from jaxfood.before_training.range_test import Found, find_learning_rate
from jaxfood.before_training.sheets import draw_sheets
from jaxfood.config.schedule import Plateau, RangeTest
from jaxfood.config.sections import Config
from jaxfood.data.augment import changes
from jaxfood.data.batches import steps_per_epoch
from jaxfood.data.records import class_table
from jaxfood.data.splits import Splits, load_splits
from jaxfood.devices import make_mesh
from jaxfood.errors import UserError, first_few, printable
from jaxfood.extras import require
from jaxfood.files import reason, write_whole
from jaxfood.optim.losses import make_loss
from jaxfood.optim.schedules import make_schedule
from jaxfood.report.page import COLOURS, Page, escaped
from jaxfood.training.distillation import find_teachers
from jaxfood.training.pseudo_labels import check_unlabeled

_MOST_POINTS = 2000  # of the schedule's curve
_MOST_EPOCHS = 40  # whose ends are marked


def preview(config: Config, out: Path, *, find_lr: bool) -> None:
    """Write preview.md and its pictures, and print on the way what is found. Nothing is trained but by `find_lr`.

    Args:
        config: of the training to come.
        out: a local folder.
        find_lr: whether to try learning rates, on weights that are then forgotten.

    Raises:
        UserError: what `train` refuses before it begins; a folder that cannot be written to.
    """
    require("matplotlib", "preview", extra="lessons")
    mesh = make_mesh(config.device)
    check_unlabeled(config)
    find_teachers(config)
    progress = config.logging.progress
    splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed, progress=progress)
    config = splits.completed(config)
    make_loss(config.loss, config.model.num_classes)  # refuses class weights that do not fit
    steps = steps_per_epoch(len(splits.train), config.train.batch_size)
    total_steps = config.train.total_steps(steps)
    # Only now: what is refused leaves nothing behind.
    page = Page(out, "preview", "what a training will see and do", prefix="")
    _introduce(page, config, splits, steps)
    if boxed := draw_sheets(page, config, splits):
        _say(f"no font here has {first_few(boxed)}, a box in the pictures: install one that has (Noto Sans CJK)")
    numbers = {
        "train": len(splits.train),
        "valid": len(splits.valid),
        "classes": splits.classes,
        "steps_per_epoch": steps,
        "total_steps": total_steps,
        "schedule": _draw_schedule(page, out, config, steps, total_steps),
    }
    if find_lr:
        with tqdm(total=RangeTest().steps, desc="rates", unit="step", leave=False, disable=not progress) as bar:
            found = find_learning_rate(config, splits, mesh, bar.update)
        numbers["learning_rates"] = _write_found(page, out, config, found)
    page.save(numbers)
    _say(page.file)


def _introduce(page: Page, config: Config, splits: Splits, steps: int) -> None:
    """What a training says of its pictures when it begins, on the terminal and on the page."""
    epochs = config.train.epochs
    summary = (
        f"{len(splits.train)} training and {len(splits.valid)} validation pictures of {len(splits.classes)} classes, "
        f"{config.data.image_size} px; {epochs} epoch{'s' * (epochs > 1)} of {steps} step{'s' * (steps > 1)}, "
        f"{config.train.batch_size} pictures a step"
    )
    table = class_table(splits.records, splits.classes)
    remarks = list(splits.remarks)
    if not changes(config.augment):
        remarks.append("no augmentation is set (augment): the network will see each picture the same in every epoch")
    _say(summary, *table, *remarks)
    page.text(f"{summary}.")
    if table:
        page.lines(table)
    for remark in remarks:
        page.text(escaped(remark))


def _draw_schedule(page: Page, out: Path, config: Config, steps: int, total_steps: int) -> dict[str, object]:
    """schedule.png and schedule.csv: the learning rate of the steps 0, 1, ... or of 2,000 of them."""
    schedule = make_schedule(config.schedule, config.optimizer, total_steps)
    shown = np.unique(np.linspace(0, total_steps - 1, min(total_steps, _MOST_POINTS)).round().astype(int))
    rates = np.asarray(jax.vmap(schedule)(shown))
    highest = int(np.argmax(rates))
    sentence = f"{config.schedule.name}: the learning rate is {rates[0]:.3g} at step 0, " + (
        f"at most {rates[highest]:.3g} (step {shown[highest]}), {rates[-1]:.3g} at the last, step {shown[-1]}"
        if np.ptp(rates) > 0
        else f"and so to the last, step {shown[-1]}"
    )
    if isinstance(config.schedule, Plateau):
        sentence += f"; how often it is multiplied by {config.schedule.factor:g}, {config.schedule.monitor} decides"
    _say(sentence)
    with page.figure("schedule", escaped(sentence)) as figure:
        axis = figure.subplots()
        axis.plot(shown, rates)
        axis.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
        if 1 < config.train.epochs <= _MOST_EPOCHS:
            axis.set_xticks(np.arange(1, config.train.epochs) * steps, minor=True)
            axis.grid(visible=True, axis="x", which="minor", linestyle=":", alpha=0.8)
            axis.set_xlabel("step (dotted: the epochs' ends)")
    _write_table(out / "schedule.csv", ("step", "learning_rate"), zip(shown.tolist(), rates.tolist(), strict=True))
    return {"step": shown, "learning_rate": rates}


def _write_found(page: Page, out: Path, config: Config, found: Found) -> dict[str, object]:
    """learning_rates.png and learning_rates.csv, and the suggestion in a line."""
    sentence = _in_words(config, found)
    _say(sentence)
    with page.figure("learning_rates", escaped(sentence)) as figure:
        axis = figure.subplots()
        axis.semilogx(found.rates, found.losses, ".", color="0.6", label="of each batch")
        axis.semilogx(found.rates, found.smoothed, label="smoothed")
        marks = (("suggested: falls fastest", found.fastest, "-"), ("least", found.least, "--"))
        for (name, rate, line), colour in zip(marks, COLOURS[1:], strict=False):
            if rate is not None:
                axis.axvline(rate, color=colour, linestyle=line, label=f"{name}, {rate:.1e}")
        finite = found.smoothed[np.isfinite(found.smoothed)]
        if len(finite):
            axis.set_ylim(0, 1.5 * max(finite[0], finite.min()))
        axis.set(xlabel="learning rate", ylabel="loss")
        axis.legend()
    columns = ("step", "learning_rate", "loss", "smoothed")
    rows = zip(
        range(len(found.rates)), found.rates.tolist(), found.losses.tolist(), found.smoothed.tolist(), strict=True
    )
    _write_table(out / "learning_rates.csv", columns, rows)
    return {
        "learning_rate": found.rates,
        "loss": found.losses,
        "smoothed": found.smoothed,
        "diverged": found.diverged,
        "fastest": found.fastest,
        "least": found.least,
        "suggestion": found.suggestion,
    }


def _in_words(config: Config, found: Found) -> str:
    last = f"{found.rates[-1]:.1e}"
    end = f"it diverged at {last}" if found.diverged else f"it did not diverge up to {last}"
    if found.suggestion is None or found.least is None:
        return (
            f"no learning rate to suggest: the loss never fell from its {found.losses[0]:.4g}, and {end}; keep "
            f"--optimizer.learning_rate {config.optimizer.learning_rate:g}, and look at pictures, labels and augment"
        )
    return (
        f"suggested: --optimizer.learning_rate {found.suggestion:g}, where the loss falls fastest; it is least at "
        f"{found.least:.1e} (a tenth of that, a more careful rule, is {found.least / 10:.1e}), and {end}; this "
        f"training has {config.optimizer.learning_rate:g}"
    )


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path} ({reason(error)}); choose another --out") from error


def _say(*lines: object) -> None:
    for line in lines:
        tqdm.write(printable(line))
