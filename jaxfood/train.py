"""`python -m jaxfood.train`: train a classifier on a folder of pictures."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jaxfood import cli, processes
from jaxfood.config import loading
from jaxfood.config.sections import Config
from jaxfood.errors import UserError
from jaxfood.files import to_path

DESCRIPTION = """Train an image classifier on a folder of pictures. Without --config and without any --data setting the
demo recipe is taken: drawn pictures, no download. Settings not given keep the recipe's values."""


def train_and_evaluate(
    config: Config, workdir: str | Path, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train a classifier in a work directory and keep its best and its last checkpoint there.

    Args:
        config: every setting. With `resume` only how long, where and what is shown may differ from the run's own.
        workdir: becomes a RUN: config.toml, metrics.jsonl, log.txt, classes.txt, checkpoints/.
        resume: go on from the last checkpoint as if nothing had happened.
        overwrite: replace the run that is there.

    Returns:
        `workdir`, `epochs` and `step` done, `best_epoch`, `best_accuracy` (validation), `stopped_early`, and `seconds`
        of each kind of work. With `train.folds`: see `jaxfood.training.folds.train_folds`.

    Raises:
        UserError: a mistake in the settings or the pictures; no earlier run is lost by it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    from jaxfood.report.html import write_training_report
    from jaxfood.run_landscape.after_epoch import measure_critical_rate, measure_landscape
    from jaxfood.training.after_epoch import lower_rate_on_plateau
    from jaxfood.training.folds import holding_folds, train_folds
    from jaxfood.training.reporting import no_report
    from jaxfood.training.start import train_in

    workdir = to_path(workdir)
    after_epoch = {
        "plateau": lower_rate_on_plateau,
        "landscape": measure_landscape,
        "critical rate": measure_critical_rate,
    }
    train_one = partial(train_in, after_epoch=after_epoch, write_report=write_training_report)
    if config.train.folds and not config.train.fold:
        write_report = write_training_report if config.logging.report else no_report
        return train_folds(workdir, config, train_one, resume=resume, overwrite=overwrite, write_report=write_report)
    with holding_folds(workdir):
        return train_one(workdir, config, resume=resume, overwrite=overwrite)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    parser = cli.Parser("train", DESCRIPTION)
    parser.add_argument("--config", help=f"a TOML file, or a recipe: {', '.join(loading.recipes())}")
    parser.add_argument("--workdir", type=cli.path, help="the run's directory (default: the next free runs/NAME-N)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    how.add_argument("--overwrite", action="store_true", help="replace the run in --workdir")
    arguments, flags = parser.parse_with_settings(argv)
    recipe, workdir = arguments.config, arguments.workdir

    earlier = []
    if arguments.resume:
        if workdir is None:
            raise UserError("--resume needs --workdir RUN: which run goes on?")
        from jaxfood.runs.directory import CONFIG, read_stored

        read_stored(workdir)  # refuses what is no run
        earlier = [loading.read_toml(workdir / CONFIG)]
    else:
        recipe = cli.choose_recipe(recipe, flags)
    given = [] if recipe is None else [loading.read_toml(loading.find_config(recipe))]
    config = loading.merge(*earlier, *given, flags)

    cli.set_up_jax(config.device, config.distributed)
    from jaxfood.runs.directory import make_workdir

    if workdir is not None:
        train_and_evaluate(config, workdir, resume=arguments.resume, overwrite=arguments.overwrite)
        return
    made = make_workdir(Path(recipe).stem if recipe else "run") if processes.is_first() else Path()
    try:
        train_and_evaluate(config, processes.share(str(made))[0])
    finally:
        if processes.is_first():
            for folder in (made, made.parent):
                with suppress(OSError):  # it fails, as it should, where a run has begun
                    folder.rmdir()


if __name__ == "__main__":
    cli.run(main)
