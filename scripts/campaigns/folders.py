"""Random folders: is every file a picture of the right class or counted, and how long do many files take?

    python scripts/campaigns/folders.py --count 2000 --files 100000

Trees of class folders, numbers, nested folders, leftovers, other files, links and odd names are drawn, indexed, and
compared with torchvision's rule for ImageFolder written out here: the class is the first folder, in sorted order. A
list of the same pictures must give the same labels. Either the index is right to the last file, or a UserError of one
line says what is wrong; exit status 1 where something was neither.
"""

import random
import resource
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from campaign import REFUSED, RIGHT, Parser, finish, outcome_of, print_setting

from jaxfood.data.index import index_files, index_pictures
from jaxfood.errors import UserError, printable

NAMES = ("Bread", "Dairy product", "10_veg", "2_egg", "0_soup", "豆腐", "crème", "a+b", "x%y", "new\u2028line", "-rf")
PICTURES = ("a.jpg", "B.JPG", "3_1.jpg", "x.jpeg", "y.png", "z.tif", "w.webp", "1_2_3.jfif", "sp ace.jpg", "q'\".gif")
OTHERS = ("notes.txt", "Thumbs.db", "a.jpg.part", "x.heic", "README", ".hidden.jpg", "._a.jpg")
LEFTOVERS = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN")


def main() -> None:
    """Draw, index, compare, print."""
    parser = Parser(__doc__, count=2000)
    parser.add_argument("--files", type=int, default=100_000, help="in each of the large folders (default: 100000)")
    arguments = parser.parse_args()
    print_setting()
    time_many(arguments.files)
    outcomes: Counter[str] = Counter()
    for number in range(arguments.count):
        with tempfile.TemporaryDirectory() as folder:
            outcome = attack(Path(folder) / "train", random.Random(f"{arguments.seed} {number}"))
        outcomes[outcome] += 1
        if outcome not in (RIGHT, REFUSED):
            print(f"seed {arguments.seed}, tree {number}: {outcome}")
    finish(outcomes)


def attack(root: Path, draw: random.Random) -> str:
    """The outcome of one tree."""
    root.mkdir()
    expected = grow(root, draw)
    try:
        index = index_pictures(root)
    except UserError as error:
        return outcome_of(printable(error))
    except Exception as error:  # noqa: BLE001 - what the campaign is looking for
        return f"{type(error).__name__}: {error}"
    found = {path.relative_to(root).as_posix() for path in index.paths}
    total = sum(1 for path in root.rglob("*") if path.is_file() and not inside_leftover(path.relative_to(root)))
    kinds = index.passed_over.items()
    counted = sum(count for kind, count in kinds if "folder" not in kind or kind.startswith("loose"))
    counted -= sum(
        1 for path in root.rglob("*") if path.name in LEFTOVERS and not inside_leftover(path.relative_to(root))
    )
    if len(found) + counted != total:
        return f"{total} files, {len(found)} indexed and {counted} counted: {index.passed_over}"
    if index.classes:
        for path, label in zip(index.paths, index.labels, strict=True):
            if index.classes[label] != expected.get(path.relative_to(root).parts[0]):
                return f"{path} is {index.classes[label]}"
        if list(index.classes) != sorted(expected.values()):
            return f"classes {index.classes}"
    tops = {path.relative_to(root).parts[0] for path in index.paths}  # of one class a list cannot tell the split folder
    if len(tops) > 1 and index_files(index.paths).labels.tolist() != index.labels.tolist():
        return "a list of the same pictures has other labels"
    return RIGHT


def inside_leftover(path: Path) -> bool:
    """Whether a path leads through a folder that a system left."""
    return any(part in LEFTOVERS for part in path.parts[:-1])


def grow(root: Path, draw: random.Random) -> dict[str, str]:
    """Draws a tree and returns its classes by their folders."""
    kind = draw.choice(("flat", "classes", "numbers", "gaps", "mixed"))
    if kind == "flat":
        for number in range(draw.randint(1, 12)):
            (root / f"{draw.randint(0, 4)}_{number}.jpg").touch()
        sprinkle(root, draw, pictures=0)
        return {}
    count = draw.randint(1, 6)
    if kind == "numbers":
        folders = [f"{number:0{draw.choice((1, 2))}}" for number in range(count)]
    elif kind == "gaps":
        folders = [str(number) for number in draw.sample(range(1, 2000), count)]
    else:
        folders = draw.sample(NAMES, count) + (["0", "1"] if kind == "mixed" else [])
    for name in folders:
        (root / name).mkdir()
        sprinkle(root / name, draw, pictures=draw.choice((0, 1, 3, 8, 8, 8)))
        if draw.random() < 0.3:
            (root / name / "phone").mkdir()
            sprinkle(root / name / "phone", draw, pictures=2)
    if draw.random() < 0.2:
        (root / draw.choice(PICTURES)).touch()
    if draw.random() < 0.3:
        leftover = root / draw.choice(LEFTOVERS)
        leftover.mkdir()
        (leftover / "a.jpg").touch()
    return {name: name for name in folders}


def sprinkle(folder: Path, draw: random.Random, pictures: int) -> None:
    """Puts pictures and other files into a folder."""
    for name in draw.sample(PICTURES, min(pictures, len(PICTURES))):
        (folder / name).touch()
    for name in draw.sample(OTHERS, draw.choice((0, 0, 1, 3))):
        (folder / name).touch()


def time_many(files: int) -> None:
    """Index time and memory of one flat folder and of a hundred class folders."""
    print("| folder | files | seconds | MiB more |\n|---|---|---|---|")
    for layout in ("flat", "100 class folders"):
        folder = Path(tempfile.mkdtemp())
        try:
            for number in range(files):
                place = folder if layout == "flat" else folder / f"class{number % 100:02}"
                if number < 100:
                    place.mkdir(exist_ok=True)
                (place / f"{number % 11}_{number}.jpg").touch()
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            index = index_pictures(folder)
            seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"| {layout} | {len(index):,} | {seconds:.2f} | {(after - before) / 1024:.0f} |", flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
