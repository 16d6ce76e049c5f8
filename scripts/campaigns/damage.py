"""Damaged checkpoints: every file of one flipped, cut, emptied, grown, zeroed or removed, in many places.

    python scripts/campaigns/damage.py --count 2000

Of two checkpoints of a run the last one is damaged and read again: where it stands (best, last), how far it had come,
its weights, its whole state. Either that is refused in one line that names the checkpoint, or it is restored with the
bits that were saved; never with others, never with a traceback or a word on the terminal, and reading changes nothing
on the disk. Every fourth round has no manifest, as a run of an earlier version: there other bits may come back.
"""

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from campaign import RIGHT, Parser, finish, outcome_of, print_setting

from jaxfood.config import Config
from jaxfood.config.model import Classifier
from jaxfood.errors import UserError
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.manifest import MANIFEST
from jaxfood.runs.progress import Progress
from jaxfood.training.metrics import zero_sums
from jaxfood.training.saved import restore_state, save_state
from jaxfood.training.state import TrainState

EARLIER, LAST = 5, 10
UNCHECKED = "other bits, without a manifest"


def main() -> None:
    """Make a run, damage, read, print."""
    arguments = Parser(__doc__, count=2000).parse_args()
    print_setting("tensorstore")
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        state = make_run(run)
        step = run / "checkpoints" / str(LAST)
        names = sorted(path.relative_to(step).as_posix() for path in step.rglob("*"))
        for number in range(arguments.count):
            draw = random.Random(f"{arguments.seed} {number}")
            trial = Path(folder) / "trial"
            shutil.copytree(run, trial)
            # Each file in its turn: none is left out.
            name = names[number % len(names)]
            checked = number // len(names) % 4 != 3 or name == MANIFEST
            if not checked:
                for path in trial.rglob(MANIFEST):
                    path.unlink()
            what = damage(trial / "checkpoints" / str(LAST) / name, draw)
            for outcome in read(trial, state):
                if outcome == "other bits" and not checked:
                    outcome = UNCHECKED
                if outcome not in outcomes or outcome.startswith(("other bits", "traceback", "not one", "said")):
                    print(f"seed {arguments.seed}, trial {number}: {name} {what}: {outcome}")
                outcomes[outcome] += 1
            shutil.rmtree(trial)
    finish(outcomes, UNCHECKED)


def make_run(run: Path) -> TrainState:
    """A run of two checkpoints, the last of them the best, and the state of the last."""
    rng = np.random.default_rng(0)
    # Several files for the arrays, and one that compression cannot make small.
    params = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("first", "second", "third")}
    config = Config(model=Classifier(num_classes=2))
    state = TrainState.create(config, {"params": params, "batch_stats": {"mean": np.zeros(64)}}, total_steps=9)
    run.mkdir()
    with Checkpoints(run, keep_best=2) as checkpoints:
        for step in (EARLIER, LAST):
            progress = Progress(8, 1, best_accuracy=step / 100, best_epoch=step, record={"step": step, "loss": 0.5})
            state = state.replace(step=jax.numpy.asarray(step, jax.numpy.int32))
            save_state(checkpoints, state, zero_sums(updates=True), progress, accuracy=step / 100)
    return state


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file, or remove a folder; says how."""
    if path.is_dir():
        shutil.rmtree(path)
        return "removed"
    content, kind = bytearray(path.read_bytes()), draw.randrange(7)
    place = draw.randrange(len(content)) if content else 0
    if kind == 0:
        path.unlink()
        return "removed"
    if kind == 1:
        path.write_bytes(b"")
        return "emptied"
    if kind == 2:
        path.write_bytes(content[:place])
        return f"cut at {place}"
    if kind == 3:
        path.write_bytes(content + content[place:])
        return f"grown by {len(content) - place}"
    if kind == 4:
        content[place : place + 512] = bytes(len(content[place : place + 512]))
        path.write_bytes(content)
        return f"zeros from {place}"
    if content:
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"a bit flipped in byte {place}"


def read(run: Path, state: TrainState) -> Iterator[str]:
    """What comes of each way to read the last checkpoint."""
    before = content_of(run)

    def whole(checkpoints: Checkpoints) -> bool:
        restored, _ = restore_state(checkpoints, checkpoints.last or 0, state, zero_sums(updates=True))
        return equal(restored, state)

    def weights(checkpoints: Checkpoints) -> bool:
        return equal(checkpoints.restore_variables(checkpoints.find("last"), state.variables), state.variables)

    for ask in (
        whole,
        weights,
        lambda checkpoints: checkpoints.find("best") == LAST,
        lambda checkpoints: checkpoints.read_progress(checkpoints.last).best_epoch == LAST,
        lambda checkpoints: equal(checkpoints.restore_variables(EARLIER, state.variables), state.variables),
    ):
        with terminal() as said:
            try:
                with Checkpoints(run, keep_best=2) as checkpoints:
                    outcome = RIGHT if ask(checkpoints) else "other bits"
            except UserError as error:
                names = f"checkpoint {LAST} of " in str(error) or "cannot read" in str(error)
                outcome = outcome_of(str(error)) if names else f"not one that names it: {error}"
            except Exception as error:  # noqa: BLE001 - what the campaign is looking for
                outcome = f"traceback: {type(error).__name__}: {str(error)[:300]}"
        yield outcome
        if said:
            yield f"said on the terminal: {said[0][:300]}"
    if content_of(run) != before:
        yield "traceback: reading changed the disk"


@contextmanager
def terminal() -> Iterator[list[str]]:
    """What Python, or a library beside it, writes to standard error meanwhile."""
    said: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            if text := file.read().decode(errors="replace"):
                said.append(text)


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def equal(one: Any, other: Any) -> bool:
    """Whether two trees have the same bits."""
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


if __name__ == "__main__":
    main()
