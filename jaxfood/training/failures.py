"""What ends a training beside the user: numbers that are not finite, too little memory, a run that is gone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxfood.config.sections import Config
from jaxfood.errors import UserError, bounded
from jaxfood.files import is_remote
from jaxfood.places import is_file, is_folder
from jaxfood.runs.directory import CHECKPOINTS, CONFIG, whole_of


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether no number of a tree is NaN or infinite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))


def not_finite(
    what: str, workdir: Path, config: Config, *, step: int, rate: float, grad_norm: float, last: int | None
) -> UserError:
    """The error for a training whose numbers are no longer finite.

    Args:
        what: is not finite, as the beginning of a sentence: "the training loss is nan".
        workdir: the run.
        config: its.
        step: after which it was seen.
        rate: the learning rate of that step.
        grad_norm: the gradient norm, a mean over the epoch's updates so far.
        last: the step of the last checkpoint, if there is one.
    """
    kept = f"the checkpoint of step {last} stands" if last is not None else "there is no checkpoint yet"
    lower = f"--optimizer.learning_rate {config.optimizer.learning_rate / 10:g}"
    return UserError(
        f"{what} at step {step} (learning rate {rate:.3g}, gradient norm {grad_norm:.3g}); {kept}; begin again with a "
        f"lower rate: python -m jaxfood.train --config {whole_of(workdir) / CONFIG} --workdir NEW {lower}"
    )


@contextmanager
def enough_memory(config: Config) -> Iterator[None]:
    """Turns the failure to get memory, the device's or the host's, into UserError.

    JAX raises its own error with the text RESOURCE_EXHAUSTED, NumPy and Python a MemoryError.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, jax.errors.JaxRuntimeError) and not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", text):
            raise
        parts = min(2 * config.train.accumulate, config.train.batch_size)
        raise UserError(
            f"out of memory ({bounded(text, 200) or 'the host has no more'}) with train.batch_size = "
            f"{config.train.batch_size} at {config.data.image_size} px in {config.train.accumulate} "
            f"part{'s' * (config.train.accumulate > 1)}: compute it in more parts, --train.accumulate {parts}, or set "
            "data.resident = false, a smaller train.batch_size or data.image_size"
        ) from error


def check_there(workdir: Path) -> None:
    """Check that a run's directory is where it was, before something is written there.

    Raises:
        UserError: it was moved or removed; what Orbax and others would make anew in its place would be half a run.
    """
    if not is_file(workdir / CONFIG):
        raise UserError(
            f"{workdir} was moved or removed while it was trained, and nothing more is written: go on where it is now "
            "with --workdir and --resume"
        )
    if not is_remote(workdir) and not is_folder(workdir / CHECKPOINTS):
        raise UserError(
            f"{workdir / CHECKPOINTS} was moved or removed while the run was trained, and nothing more is written: put "
            "it back, then go on with --resume"
        )
