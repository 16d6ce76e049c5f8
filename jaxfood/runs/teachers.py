"""RUN/teachers.json: which weights a run is taught by, by their content: a path is no identity, and teachers move."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxfood.errors import UserError
from jaxfood.files import read_bytes, reason, write_whole

TEACHERS = "teachers.json"


def write_teachers(workdir: Path, digests: Sequence[str]) -> None:
    """Write down the digests of the teachers' weights, in their order."""
    write_whole(workdir / TEACHERS, json.dumps({"digests": list(digests)}) + "\n")


def check_teachers(workdir: Path, digests: Sequence[str]) -> None:
    """Check that a run goes on with the teachers that it began with, wherever they lie now.

    Raises:
        UserError: they are others, in number, order or weights; or what is known of them is damaged.
    """
    try:
        before = [str(digest) for digest in json.loads(read_bytes(workdir / TEACHERS))["digests"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = reason(error) if isinstance(error, OSError) else "damaged"
        raise UserError(
            f"cannot read {workdir / TEACHERS} ({why}): restore it; without it --resume cannot tell whether the "
            "teachers are the run's"
        ) from error
    if before == list(digests):
        return
    if len(before) != len(digests):
        what = f"{len(digests)}, and there were {len(before)}"
    else:
        pairs = enumerate(zip(before, digests, strict=True), start=1)
        what = f"number {next(number for number, (a, b) in pairs if a != b)} has other weights"
    raise UserError(
        f"train.teachers: the teachers are not those of {workdir} ({what}): name the same runs, as they were, or begin "
        "a new run"
    )
