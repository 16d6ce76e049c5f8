"""RUN/fold1 to RUN/foldK: the folds of `train.folds`, a run each, in one directory that is told from a run by a marker.

`RUN/folds.json`, the marker, holds what is known of the folds so far; `RUN/config.toml` what all were trained by.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxfood.errors import UserError
from jaxfood.files import read_bytes, reason, write_whole
from jaxfood.places import entries, is_folder

FOLDS = "folds.json"
FORMAT = 1  # of folds.json: raise it when an older jaxfood could not read what this one writes


def fold_of(workdir: Path, fold: int) -> Path:
    """The run of a fold, counted from 1."""
    return workdir / f"fold{fold}"


def is_fold(workdir: Path) -> bool:
    """Whether a directory is called as a fold's run."""
    return re.fullmatch(r"fold[1-9]\d{0,3}", workdir.name) is not None


def folders_of_folds(workdir: Path) -> list[Path]:
    """The folders in a directory that are called as a fold's run, by number."""
    found = [path for path in entries(workdir) if is_fold(path) and is_folder(path)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("fold")))


def write_folds(workdir: Path, known: Mapping[str, Any]) -> None:
    """Write folds.json, whole or not at all: strict JSON, with the format's number."""
    write_whole(workdir / FOLDS, json.dumps({"format": FORMAT, **known}, indent=2, allow_nan=False) + "\n")


def read_folds(workdir: Path) -> tuple[int, int]:
    """How many folds a directory of folds is to have, and how many of them, the first ones, are finished.

    Raises:
        UserError: folds.json cannot be read, is damaged, or of a later version.
    """
    path = workdir / FOLDS
    try:
        told = json.loads(read_bytes(path))
        found, count, finished = int(told["format"]), int(told["folds"]), len(told["accuracies"])
    except OSError as error:
        raise UserError(f"cannot read {path} ({reason(error)}): make it readable") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is damaged: {_go_on(workdir)}, which writes it anew") from None
    if found > FORMAT:
        raise UserError(f"{path} was made by a later jaxfood: upgrade jaxfood")
    return count, finished


def _go_on(workdir: Path) -> str:
    return f"go on with python -m jaxfood.train --workdir {workdir} --resume"
