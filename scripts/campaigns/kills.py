"""kill -9 at random moments of train, predict, convert and landscape: is anything lost, and do the bits come out equal?

    python scripts/campaigns/kills.py --count 100

Each command runs in a process of its own on small drawn pictures and is killed after a time drawn evenly from its whole
duration: while it imports, decodes, compiles, trains, saves, writes. Then it is begun again (train with --resume, where
there is a run) until it ends, killed once more in a third of the cases. Right is: it ends with status 0, and weights,
optimizer state and metrics (or submission, or page) are those of an undisturbed run, to the last bit.
"""

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from campaign import RIGHT, SETTINGS, Parser, bits_of, draw_pictures, finish, print_setting, run, start
from narrow import narrow

from jaxfood.runs.directory import is_run

TRAIN = (*SETTINGS, "--train.epochs", "4", "--checkpoint.every", "2")


def main() -> None:
    """Make what is undisturbed, then kill."""
    parser = Parser(__doc__, count=100)
    arguments = parser.parse_args()
    print_setting()
    narrow()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        data = draw_pictures(base / "food")
        campaign = Campaign(base, data, random.Random(arguments.seed))
        commands = (*(3 * [campaign.train]), campaign.overwrite, campaign.convert, campaign.predict, campaign.landscape)
        for number in range(arguments.count):
            attack = commands[number % len(commands)]
            outcome = attack(base / f"trial{number}")
            outcomes[outcome if outcome == RIGHT else f"{attack.__name__}: {outcome}"] += 1
            if outcome != RIGHT:
                print(f"trial {number}, {attack.__name__}: {outcome}", flush=True)
        print(f"killed while: {dict(sorted(campaign.moments.items()))}")
    finish(outcomes)


class Campaign:
    """An undisturbed run of each command, and the attacks."""

    def __init__(self, base: Path, data: Path, rng: random.Random) -> None:
        self.base, self.data, self.rng = base, data, rng
        self.moments: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.run, self.weights = base / "run", base / "weights.safetensors"
        self._undisturbed("train", self._train_words, "run")
        self.bits = bits_of(self.run)
        self._undisturbed("convert", lambda path: ("to-torch", self.run, path), "weights.safetensors")
        self._undisturbed("convert", self._convert_words, "converted")
        self.converted = bits_of(base / "converted")
        self._undisturbed("predict", self._predict_words, "submission.csv")
        self.submission = (base / "submission.csv").read_bytes()
        self._undisturbed("landscape", self._landscape_words, "page")

    def _undisturbed(self, command: str, words: Callable[[Path], tuple[object, ...]], name: str) -> None:
        """Run a command twice, and remember how long it took with everything compiled."""
        for path in (self.base / name, self.base / f"again_{name}"):
            begun = time.perf_counter()
            status, told = run(command, *words(path), folder=self.base, cache=path.with_suffix(".cache"))
            if status:
                raise SystemExit(f"{command} does not end well undisturbed: {told[-2000:]}")
            self.seconds[command] = time.perf_counter() - begun

    def train(self, place: Path) -> str:
        place.mkdir()
        workdir = place / "run"
        self._kill("train", *self._train_words(workdir), cache=place / "cache")
        if self.rng.random() < 0.3:
            self._kill("train", *self._again(workdir), cache=place / "cache")
        status, told = run("train", *self._again(workdir), folder=self.base, cache=place / "cache")
        if status:
            return f"status {status}: {told[-600:]}"
        return RIGHT if bits_of(workdir) == self.bits else "other bits"

    def overwrite(self, place: Path) -> str:
        place.mkdir()
        workdir = place / "run"
        shutil.copytree(self.base / "converted", workdir)  # the earlier run
        earlier = (workdir / "config.toml").read_bytes()
        words = (*self._train_words(workdir), "--overwrite")
        self._kill("train", *words, cache=place / "cache")
        is_earlier = is_run(workdir) and (workdir / "config.toml").read_bytes() == earlier
        again = words if is_earlier else self._again(workdir)
        status, told = run("train", *again, folder=self.base, cache=place / "cache")
        if status:
            return f"status {status}: {told[-600:]}"
        return RIGHT if bits_of(workdir) == self.bits else "other bits"

    def convert(self, place: Path) -> str:
        place.mkdir()
        words = self._convert_words(place / "run")
        self._kill("convert", *words, cache=place / "cache")
        if not is_run(place / "run"):
            status, told = run("convert", *words, folder=self.base, cache=place / "cache")
            if status:
                return f"status {status}: {told[-600:]}"
        return RIGHT if bits_of(place / "run") == self.converted else "other bits"

    def predict(self, place: Path) -> str:
        place.mkdir()
        out = place / "submission.csv"
        out.write_text("earlier")
        self._kill("predict", *self._predict_words(out), cache=place / "cache")
        if out.read_bytes() not in (b"earlier", self.submission):
            return "half a submission"
        status, told = run("predict", *self._predict_words(out), folder=self.base, cache=place / "cache")
        if status:
            return f"status {status}: {told[-600:]}"
        return RIGHT if out.read_bytes() == self.submission else "another submission"

    def landscape(self, place: Path) -> str:
        place.mkdir()
        self._kill("landscape", *self._landscape_words(place / "page"), cache=place / "cache")
        status, told = run("landscape", *self._landscape_words(place / "page"), folder=self.base, cache=place / "cache")
        if status:
            return f"status {status}: {told[-600:]}"
        same = (place / "page/landscape.json").read_bytes() == (self.base / "page/landscape.json").read_bytes()
        return RIGHT if same and bits_of(self.run) == self.bits else "another page or run"

    def _kill(self, command: str, *words: object, cache: Path) -> None:
        process = start(command, *words, folder=self.base, cache=cache)
        after = self.rng.uniform(0.05, self.seconds[command])
        time.sleep(after)
        process.kill()
        process.communicate()
        self.moments[f"{command} {int(4 * after / self.seconds[command]) + 1}/4"] += 1

    def _again(self, workdir: Path) -> tuple[object, ...]:
        return ("--workdir", workdir, "--resume") if is_run(workdir) else self._train_words(workdir)

    def _train_words(self, workdir: Path) -> tuple[object, ...]:
        return (*TRAIN, "--data.root", self.data, "--workdir", workdir)

    def _convert_words(self, workdir: Path) -> tuple[object, ...]:
        return ("from-torch", self.weights, workdir)

    def _predict_words(self, out: Path) -> tuple[object, ...]:
        return (self.run, "--images", self.data / "test", "--out", out)

    def _landscape_words(self, out: Path) -> tuple[object, ...]:
        return (self.run, "--images", self.data / "valid", "--out", out, "--samples", "9")


if __name__ == "__main__":
    main()
