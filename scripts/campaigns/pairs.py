"""Two at once, started in the same moment: does exactly one get what only one can have, and is nothing lost?

    python scripts/campaigns/pairs.py --count 50

In turns: two trainings without --workdir (each must get a runs/NAME-N of its own), two with --resume of one run, and
two new ones in one --workdir (one of the two trains, the other is refused in one line or finds the run finished). What
comes out must have the bits of an undisturbed run.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from campaign import RIGHT, SETTINGS, Parser, bits_of, draw_pictures, finish, print_setting, run, start
from narrow import narrow

PATIENCE = 120  # seconds until a process counts as hanging


def main() -> None:
    """Make one undisturbed run, then pairs."""
    arguments = Parser(__doc__, count=50).parse_args()
    print_setting("filelock")
    narrow()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        words = (*SETTINGS, "--data.root", draw_pictures(base / "food"), "--train.epochs")
        for epochs, workdir in ((2, base / "whole"), (1, base / "begun")):
            status, told = run("train", *words, epochs, "--workdir", workdir, folder=base, cache=base / "cache")
            if status:
                raise SystemExit(told)
        expected = bits_of(base / "whole")
        for number in range(arguments.count):
            folder = base / f"pair{number}"
            folder.mkdir()
            kind = ("apart", "resumed", "new")[number % 3]
            outcome = pair(kind, folder, base, words, expected)
            outcomes[outcome if outcome == RIGHT else f"{kind}: {outcome}"] += 1
            if outcome != RIGHT:
                print(f"pair {number}, {kind}: {outcome}", flush=True)
    finish(outcomes)


def pair(kind: str, folder: Path, base: Path, words: tuple[object, ...], expected: dict[str, object]) -> str:
    """Two processes of one kind, and what came of them."""
    if kind == "resumed":
        shutil.copytree(base / "begun", folder / "run")
        arguments: tuple[object, ...] = ("--workdir", folder / "run", "--resume", "--train.epochs", 2)
    else:
        arguments = (*words, 2, *(("--workdir", folder / "run") if kind == "new" else ()))
    (folder / "compiled").symlink_to(base / "compiled")
    processes = [start("train", *arguments, folder=folder, cache=base / "cache") for _ in range(2)]
    ends = []
    for process in processes:
        try:
            told = process.communicate(timeout=PATIENCE)[1]
        except Exception:  # noqa: BLE001 - a process that hangs
            process.kill()
            return "a process hangs"
        ends.append((process.returncode, told))
    if bad := [told for status, told in ends if status not in (0, 2) or (status == 2 and len(told.splitlines()) != 1)]:
        return f"an end that is none: {bad[0][-500:]}"
    done = sum(status == 0 for status, _ in ends)
    if kind == "apart":
        runs = sorted((folder / "runs").iterdir())
        if done != 2 or [path.name for path in runs] != ["run-1", "run-2"]:
            return f"{done} ended well, and there are {[path.name for path in runs]}"
        return RIGHT if all(bits_of(path) == expected for path in runs) else "other bits"
    if not done:
        return f"both refused: {ends[0][1]}"
    return RIGHT if bits_of(folder / "run") == expected else "other bits"


if __name__ == "__main__":
    main()
