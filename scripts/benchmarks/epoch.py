"""What an epoch of the training loop costs beside its bare updates, saving in the background included.

    python scripts/benchmarks/epoch.py [--epochs 5] [--image_size 64] [--batch_size 32] [SECTION.FIELD=VALUE ...]

A run on the drawn demo pictures, on one device. In the middle of each epoch, when nothing is being saved, the same
compiled updates are called with the same arguments, which lie ready, from a copy of the state; the loop's epoch is
counted without that and without its evaluation. So both take turns, and while the loop trains, the checkpoint of the
epoch before is written. The first epoch has none to write and is left out.
"""

import statistics
import tempfile
from pathlib import Path
from unittest import mock

import jax
from measuring import Parser, Seconds, print_setting, print_table, timed

from jaxfood import load_config, train_and_evaluate
from jaxfood.cli import set_up_jax
from jaxfood.training import start
from jaxfood.training.logbook import Confusion
from jaxfood.training.loop import Training


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(epochs=5, image_size=64, batch_size=32)
    parser.add_argument("settings", nargs="*", help="more settings, such as model.name=resnet")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("give at least two epochs")
    settings = [f"data.image_size={arguments.image_size}", f"train.batch_size={arguments.batch_size}"]
    settings += [f"train.epochs={arguments.epochs}", f"train.patience={arguments.epochs}"]
    config = load_config("demo", [*settings, "device.count=1", "logging.progress=false", *arguments.settings])
    set_up_jax(config.device)
    Measured.epochs, Measured.updates = [], []
    with mock.patch.object(start, "Training", Measured), tempfile.TemporaryDirectory() as folder:
        train_and_evaluate(config, Path(folder) / "run")
    report(Measured.epochs[1:], Measured.updates[1:])


class Measured(Training):
    """A training that measures its epochs, and bare updates beside them."""

    epochs: list[Seconds]  # without evaluation and bare updates
    updates: list[Seconds]

    def _epoch(self) -> None:
        self._aside = Seconds(0, 0)
        whole = timed(super()._epoch)
        self.epochs.append(whole - self._aside)

    def _evaluate(self) -> tuple[dict[str, float], Confusion | None]:
        result = ({}, None)

        def aside() -> None:
            nonlocal result
            result = super(Measured, self)._evaluate()
            self.checkpoints.wait()
            self.updates.append(self._bare_updates())

        self._aside = timed(aside)
        return result

    def _bare_updates(self) -> Seconds:
        """The updates of the epoch that has just been trained."""
        epoch = self.step // self.progress.steps_per_epoch - 1
        calls = [arguments for _, arguments in self.calls.of_epoch(epoch)]
        state, sums = jax.block_until_ready(jax.tree.map(jax.numpy.copy, (self.state, self.sums)))

        def updates() -> None:
            nonlocal state, sums
            for arguments in calls:
                state, sums = self._updates_at[self.config.data.image_size](state, sums, *arguments)
            jax.block_until_ready(state)

        return timed(updates)


def report(epochs: list[Seconds], updates: list[Seconds]) -> None:
    print()
    print_setting("")
    rows = []
    for kind, name in zip(Seconds._fields, ("by the clock", "of a core"), strict=True):
        ours, bare = ([getattr(seconds, kind) for seconds in many] for many in (epochs, updates))
        more = statistics.median(one / other - 1 for one, other in zip(ours, bare, strict=True))
        rows.append((name, f"{statistics.median(ours):.2f}", f"{statistics.median(bare):.2f}", f"{more:+.1%}"))
    print_table(("median seconds", "the loop's epoch", "its bare updates", "more"), rows)


if __name__ == "__main__":
    main()
