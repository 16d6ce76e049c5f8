"""Settings as people mistype them: mutated TOML files and flag lists, each a configuration or one plain line.

    python scripts/campaigns/mutated_settings.py --count 5000 --seed 0

Half of the cases are TOML files: a recipe or a run's config.toml with one to four mutations (bytes, lines, values,
keys, encodings, brackets). The others are command lines of jaxfood.train. Each is read in this process, as the commands
do. Right is a configuration that its own TOML gives again, or a UserError of one line of at most 4,000 characters;
wrong is another exception, an endless line, or more than --seconds of thinking.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import os
import platform
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from jaxfood import cli
from jaxfood.config import Config, load_config, to_toml
from jaxfood.config.loading import VARIANTS, all_settings, find_config, merge, read_toml, recipes, variants_of
from jaxfood.config.sections import SECTIONS
from jaxfood.errors import MESSAGE_LIMIT, UserError, printable

VALUES = (
    *("True", "FALSE", "yes", "on", "None", "null", "nan", "-nan", "inf", "-inf", "1e999", "-1e-999", "1e-3", "64.0"),
    *("0", "-0", "-1", "1", "2147483647", "2147483648", "3000000000", "1e12", "9" * 400, "9" * 5000, "0x" + "f" * 9000),
    *("1_000", "0o17", "07", "0,5", "1.", ".5", "+3", "'8'", '"8"', '""', "''", '"\\u0000"', '"\\ud800"'),
    *('"C:\\Users"', "'C:\\Users'", "C:\\food", "~/food", '"~no_such_user_here/food"', '"./~x"', '"s3://a"', '"gs:/"'),
    *('"https://food.org/a.zip"', "[]", "[1]", "[1, 2.5]", "[" * 400, "[" * 400 + "]" * 400, "{}", "{a = 1}", "[[1]]"),
    *(
        "2021-01-01",
        "2021-13-45",
        "12:00:00",
        "1979-05-27T07:32:00Z",
        '"""x',
        "'''",
        '"',
        "'",
        "#",
        "= 3",
        "食べ物",
        "",
    ),
    *("'" + "a" * 5000 + "'", "'a\x1b[31mb'", "'\u202eabc'", '"a\\nb"', "adam", '"adam"', '"step"', '"tfds:"', "--"),
)
NEAR = ("0", "1", "2", "8", "64", "1024", "0.5", "1e-3", "true", "false", '""', "'x'", "[1, 2]", "inf")
KEYS = (
    *("lr", "learning-rate", "epoch", "Epochs", "batch", "bs", "wd", "seed", "data", "root", "gpu", "name", "x", ""),
    *("a.b", '"a b"', '"\\u001b"', "'a\nb'", "食", "-", ".", "__class__", "a" * 3000, ".".join("a" * 300), "betas"),
)
WORDS = (
    *("--lr", "--epochs", "--epochs=3", "--batch-size", "--data", "--resume", "--overwrite", "--workdir", "--config"),
    *("hw3", "demo", "RUN", "x.toml", "--", "-", "-e", "---", "--=", "--.", "--.=", "--a.b.c=1", "--train", "--train."),
    *("--train.=1", "--.epochs=1", "--config=", "--workdir=~no_such_user_here", "\udce4\udcf6", "a\x00b", "\x1b[31m"),
    *("--train.epochs", "--optimizer.name", "@file", "a" * 3000, "1.jpg", "食べ物", "--images", "--workdir=--"),
)


def main() -> None:
    """Parse, try, print a table; exit status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="cases in all (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="longest time for one case (default: 5)")
    parser.add_argument("--show", type=int, default=0, help="also print so many of the refusals")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, seed {arguments.seed}")
    outcomes, refusals = campaign(arguments.count, arguments.seed, arguments.seconds)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    for line in random.Random(arguments.seed).sample(refusals, min(arguments.show, len(refusals))):
        print(line)
    sys.exit(any("wrong" in outcome for outcome in outcomes))


def campaign(count: int, seed: int, seconds: float = 5.0) -> tuple[collections.Counter[str], list[str]]:
    """How so many cases came out, and what was said of those that were refused."""
    outcomes: collections.Counter[str] = collections.Counter()
    refusals = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mine.toml")
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            start = time.monotonic()
            if number % 2:
                case: object = mutated_flags(rng)
                outcome, told = judge(lambda words=case: read_flags(words))
            else:
                case = mutated_toml(rng)
                file.write_bytes(case)
                outcome, told = judge(lambda: load_config(file))
            if time.monotonic() - start > seconds:
                outcome = "wrong: too slow"
            outcomes[f"{'flags' if number % 2 else 'TOML'}: {outcome}"] += 1
            if outcome.startswith("wrong"):
                print(
                    f"case {number}: {outcome}\n{printable(repr(case)[:2000])}\n{printable(told, lines=True)[-3000:]}"
                )
            elif told:
                refusals.append(printable(told.replace(f"{folder}/", "")))
    return outcomes, refusals


def judge(read: object) -> tuple[str, str]:
    """What came of one case, and what was told."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            config = read()  # type: ignore[operator]
    except UserError as error:
        told = str(error)
        right = told.strip() and "\n" not in told and len(told) <= MESSAGE_LIMIT
        return ("refused in one line" if right else "wrong: no line, or an endless one"), told
    except SystemExit as left:
        return ("help" if not left.code else "wrong: SystemExit"), ""
    except BaseException as error:  # noqa: BLE001 - every kind is what this looks for
        return f"wrong: {type(error).__name__}", traceback.format_exc()
    return ("a configuration" if round_trips(config) else "wrong: its own TOML gives another"), ""


def round_trips(config: Config) -> bool:
    """Whether the configuration's TOML is the configuration."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.toml")
        file.write_text(to_toml(config), encoding="utf-8")
        return load_config(file) == config and hash(load_config(file)) == hash(config)


def read_flags(words: list[str]) -> Config:
    """As `jaxfood.train` reads its command line."""
    parser = cli.Parser("train", "")
    parser.add_argument("--config")
    parser.add_argument("--workdir", type=cli.path)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true")
    how.add_argument("--overwrite", action="store_true")
    arguments, flags = parser.parse_with_settings(words)
    given = [] if arguments.config is None else [read_toml(find_config(arguments.config))]
    return merge(*given, flags)


def base_toml(rng: random.Random) -> str:
    """A recipe, or what a run stores."""
    if rng.random() < 0.3:
        return rng.choice(list(recipes().values())).read_text(encoding="utf-8")
    return to_toml(load_config(None, [f"{section}.name={rng.choice(list(VARIANTS[section]))}" for section in VARIANTS]))


def mutated_toml(rng: random.Random) -> bytes:
    """The bytes of a TOML file with one to four mutations."""
    lines = base_toml(rng).splitlines()
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(lines)) if lines else 0
        line = lines[place] if lines else ""
        key = line.partition("=")[0].strip()
        kind = rng.randrange(9)
        if kind < 3:
            lines[place : place + 1] = [f"{key} = {rng.choice(rng.choice((VALUES, NEAR)))}"]
        elif kind == 3:
            lines[place : place + 1] = [f"{rng.choice(KEYS)} = {line.partition('=')[2]}"]
        elif kind == 4:
            lines.insert(
                place, rng.choice((line, f"[{rng.choice(SECTIONS)}]", "[[train]]", "[", "]", "train:", "{", "="))
            )
        elif kind == 5:
            lines.insert(place, f"{rng.choice(KEYS)} = {rng.choice(VALUES)}")
        elif kind == 6:
            lines.insert(place, f"[{rng.choice((*SECTIONS, *KEYS))}{rng.choice(('', '.x', '.epochs'))}]")
        elif kind == 7:
            del lines[place : place + rng.randint(1, 3)]
        else:
            cut = rng.randrange(len(line) + 1)
            lines[place : place + 1] = [line[:cut] + rng.choice(("", *VALUES)) + line[cut + rng.randrange(3) :]]
    text = rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines)
    encodings = ("utf-8",) * 60 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gbk")
    encoded = bytearray(text.encode(rng.choice(encodings), "replace"))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        if encoded:
            encoded[rng.randrange(len(encoded))] = rng.randrange(256)
    return bytes(encoded[: rng.randrange(len(encoded) + 1)] if rng.random() < 0.05 else encoded)


def mutated_flags(rng: random.Random) -> list[str]:
    """The words of a command line: settings with values, right and wrong, and stray words."""
    names = [f"{section}.{name}" for section in SECTIONS for name in _names_of(section)]
    words: list[str] = []
    for _ in range(rng.randint(1, 5)):
        kind = rng.randrange(5)
        name = rng.choice(names)
        if kind == 4:
            words.append(rng.choice(WORDS))
            continue
        if kind == 3:
            cut = rng.randrange(len(name))
            name = name[:cut] + rng.choice(("", "-", ".", "x", "_", name[cut] * 2)) + name[cut + 1 :]
        known = dict(all_settings(Config()))
        value = str(known.get(name, "")).lower() if rng.random() < 0.4 else rng.choice(rng.choice((VALUES, NEAR)))
        words += rng.choice(([f"--{name}={value}"], [f"--{name}", value]))
    return words


def _names_of(section: str) -> list[str]:
    return sorted({field.name for variant in variants_of(section) for field in dataclasses.fields(variant)})


if __name__ == "__main__":
    main()
