"""Files of PyTorch weights and training checkpoints, damaged or made wrong at random, are refused in one line or right.

    python scripts/campaigns/mutated_weights.py --count 1000 --seed 0

Each file comes from one that is whole (weights or a training checkpoint with Adam's moments, as zip archive, in the
format of before PyTorch 1.6, or as .safetensors) by one mutation, and is read by `convert from-torch`'s reader. What is
still read must be what PyTorch's own reader, or safetensors', finds under the same names, bit for bit. Reading happens
in another process, so a crash or a hang (`--timeout` seconds) is one lost file. The classifier is a narrow one: of a
small file more mutations meet its structure.
"""

import argparse
import faulthandler
import io
import json
import math
import pathlib
import pickle
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.torch
import torch

from jaxfood.config.loading import Source, merge
from jaxfood.errors import UserError
from jaxfood.model import classifier
from jaxfood.pytorch import files, search, tables, training_checkpoint
from jaxfood.pytorch.weights import to_state_dict

OUTCOMES = ("refused", "right", "wrong", "traceback", "lost")  # the last two end the process that reads
KINDS = (".pt", ".ckpt", ".pth", ".safetensors")  # weights, checkpoint, weights of before 1.6, weights
Bytes = Callable[[bytes, random.Random], bytes]


def make_narrow() -> None:
    """Few features, as the tests have them."""
    for module in (classifier, tables):
        module.FEATURES, module.HIDDEN = (8, 8, 8, 8, 8), (16, 8)  # type: ignore[attr-defined]


def make_content() -> dict[str, Any]:
    """A training checkpoint as trainers write it, with other things beside."""
    generator = torch.Generator().manual_seed(0)
    table = tables.classifier_table({"params/dense1/kernel": (8 * 4, 16), "params/head/kernel": (8, 5)})
    tensors = {}
    for entry in table.entries:
        tensors[entry.torch.name] = torch.rand(entry.torch.shape, generator=generator)
        if entry.torch.name in table.counters:
            tensors[table.counters[entry.torch.name]] = torch.tensor(7)
    parameters = {name: torch.nn.Parameter(tensors[name]) for name in table.parameter_names}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=np.float64(1e-3))
    for parameter in parameters.values():
        parameter.grad = torch.rand(parameter.shape, generator=generator)
    optimizer.step()
    model = {f"module.{name}": tensor.detach().clone() for name, tensor in tensors.items()}
    arguments = argparse.Namespace(lr=1e-3, out=Path("runs"))
    return {"epoch": 3, "model": model, "optimizer": optimizer.state_dict(), "best": np.float64(0.5), "args": arguments}


def encode(content: Any, kind: str) -> bytes:
    """The file of a kind."""
    if kind == ".safetensors":
        return safetensors.torch.save(content["model"])
    buffer = io.BytesIO()
    tree = content if kind == ".ckpt" else content["model"]
    torch.save(tree, buffer, _use_new_zipfile_serialization=kind != ".pth")
    return buffer.getvalue()


# Mutations of bytes.


def flip(content: bytes, rng: random.Random) -> bytes:
    """Some bits, anywhere."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_at_an_end(content: bytes, rng: random.Random) -> bytes:
    """Some bytes of the first or the last 3,000, where names, headers and directories are."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 3])):
        at = rng.randrange(min(3000, len(changed)))
        changed[at if rng.random() < 0.5 else -1 - at] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end, the beginning or a part between is missing."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return rng.choice([content[:a], content[b:], content[:a] + content[b:]])


def splice(content: bytes, rng: random.Random) -> bytes:
    """A part comes again, in place of another or between."""
    a, length, to = rng.randrange(len(content)), rng.randrange(1, 500), rng.randrange(len(content))
    part = content[a : a + length]
    return content[:to] + part + content[to + rng.choice([0, len(part)]) :]


def change_members(content: bytes, rng: random.Random) -> bytes:
    """Members of the zip archive exchanged, cut, left out, doubled or changed, checksums made anew."""
    if not content.startswith(b"PK"):
        return splice(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    pick = [rng.randrange(len(members)) for _ in range(2)]
    (name_a, a), (name_b, b) = (members[i] for i in pick)
    choice = rng.randrange(6)
    if choice == 0:
        members[pick[0]], members[pick[1]] = (name_a, b), (name_b, a)
    elif choice == 1:
        members[pick[0]] = (name_a, cut(a, rng) if a else b"")
    elif choice == 2:
        del members[pick[0]]
    elif choice == 3:
        members.append((name_a, b))
    elif choice == 4:
        members[pick[0]] = (name_a, flip(a, rng) if a else b"x")
    else:
        members[pick[0]] = (name_a.replace("archive", "other") if rng.random() < 0.5 else name_a + "x", a)
    return packed(members)


def change_header(content: bytes, rng: random.Random) -> bytes:
    """The pickle, or the header of .safetensors, changed, what surrounds it whole."""
    if content[8:9] == b"{":
        size = int.from_bytes(content[:8], "little")
        header = edited(content[8 : 8 + size], rng)
        size = len(header) if rng.random() < 0.8 else rng.choice([0, size, 2**40, 2**63])
        return size.to_bytes(8, "little") + header + content[8 + int.from_bytes(content[:8], "little") :]
    if not content.startswith(b"PK"):
        at = 8000
        return edited(content[:at], rng) + content[at:]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    return packed([(name, edited(data, rng) if name.endswith("data.pkl") else data) for name, data in members])


def edited(data: bytes, rng: random.Random) -> bytes:
    """A byte, a number, a word or a few bytes of other ones."""
    at = rng.randrange(len(data))
    choice = rng.randrange(5)
    if choice == 0:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if choice == 1:
        words = [
            b"cnn.0",
            b"weight",
            b"FloatStorage",
            b"F32",
            b"cpu",
            b"model",
            b"running_var",
            b"_rebuild_tensor_v2",
            b"lr",
        ]
        others = [
            b"cnn.1",
            b"height",
            b"DoubleStorage"[:12],
            b"F16",
            b"gpu",
            b"mobel",
            b"running_bar",
            b"_rebuild_qtensor",
            b"xx",
        ]
        word, other = rng.choice(list(zip(words, others, strict=True)))
        return data.replace(word, other) if rng.random() < 0.5 else data.replace(word, other, 1)
    if choice == 2:
        digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
        at = rng.choice(digits) if digits else at
        return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]
    if choice == 3:
        return data[:at] + data[at + rng.randrange(1, 40) :]
    length, start = rng.randrange(1, 60), rng.randrange(len(data))
    return data[:at] + data[start : start + length] + data[at:]


def packed(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    seen = set()
    for name, data in members:
        short = name.partition("/")[2]
        if short in seen or short in ("version", ".data/serialization_id"):
            continue
        seen.add(short)
        writer.write_record(short, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


BYTES: Mapping[str, Bytes] = {
    function.__name__: function for function in (flip, flip_at_an_end, cut, splice, change_members, change_header)
}


# Mutations of what is saved.


def change_structure(content: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One to three changes of a checkpoint's dictionaries, lists and leaves."""
    for _ in range(rng.randrange(1, 4)):
        places = list(walk(content))
        parent, key = rng.choice(places)
        change_one(parent, key, rng, content)
    return content


def walk(tree: Any) -> Any:
    """Every place in dictionaries and lists: the container and the key."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list):
            yield from walk(value)


def change_one(parent: Any, key: Any, rng: random.Random, root: dict[str, Any]) -> None:
    value = parent[key]
    leaves: list[Any] = [
        None,
        "text",
        "x" * 100_000,
        3,
        -1,
        2**70,
        math.nan,
        math.inf,
        True,
        [],
        {},
        [[1], [2, 3]],
        b"bytes",
    ]
    leaves += [1 + 2j, (1, 2), {1, 2}, torch.ones(3), torch.tensor(3), torch.zeros(0), torch.zeros((), device="meta")]
    leaves += [np.float64(3), np.ones(3), np.array(["text"]), Path("x"), argparse.Namespace(a=1), torch.float32]
    if isinstance(value, torch.Tensor):
        leaves += [value.double() / 3, value.half(), value.bfloat16(), value.int(), value.bool(), value.to("meta")]
        leaves += [
            value.flatten(),
            value.unsqueeze(0),
            value.t() if value.ndim == 2 else value,
            value.numpy(),
            value.tolist(),
        ]
        leaves += [value * math.nan, value / 0, value.to(torch.complex64), value.float().to(torch.float8_e4m3fn)]
        leaves += [
            value.to_sparse(),
            torch.ones(()).expand(value.shape),
            torch.ones(1).expand(10**9),
            value[..., :0] if value.ndim else value,
        ]
        leaves += [torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8), torch.nn.Parameter(value.float())]
    choice = rng.randrange(6)
    if choice < 3:
        parent[key] = rng.choice(leaves)
    elif choice == 3 and isinstance(parent, dict):
        renamed = rng.choice(
            ["x", 3, None, (1, 2), b"bytes", "x" * 5000, "a\nb", f"{key}.0", f"net.{key}", "", "\ud800"]
        )
        parent[renamed] = parent.pop(key)
    elif choice == 4:
        del parent[key]
    elif isinstance(value, dict) or value is root:
        parent[key] = rng.choice(
            [{"net": value}, [value], {**value, "self": value}, {f"a.{k}": v for k, v in value.items()}]
        )
    else:
        parent[key] = [value, value]


# One trial, and all of them.


def make_file(trial: int, seed: int, folder: Path) -> tuple[Path, str, str]:
    """The mutated file, its kind and its mutation."""
    rng = random.Random(f"{seed} {trial}")
    kind, mutation = rng.choice(KINDS), rng.choice([*BYTES, "change_structure", "change_structure"])
    content = make_content()
    path = folder / f"mutated{kind}"
    if mutation in BYTES:
        path.write_bytes(BYTES[mutation](encode(content, kind), rng))
    else:
        kind = ".ckpt"
        for attempt in range(100):
            try:
                path = folder / "mutated.ckpt"
                path.write_bytes(encode(change_structure(make_content(), rng), kind))
                break
            except Exception:  # PyTorch cannot save everything
                if attempt == 99:
                    raise
    return path, kind, mutation


def read_one(path: Path) -> tuple[str, str]:
    """How reading a file ended, and what was said: weights that were read are compared, whatever the optimizer is."""
    try:
        variables = training_checkpoint.read(path, weights_only=True).variables
        content = files.read(path)
        found = search.find(content.tree, "", content.unread)
    except UserError as error:
        return refusal(error)
    try:
        tree = reference(path)
    except pickle.UnpicklingError:  # PyTorch refuses what is not read here either, classes of other names
        tree = make_content()  # of which the file may have other names: these cannot be compared
    theirs = dict(flat(tree))
    for name, array in to_state_dict(variables).items():
        if found.names.get(name) in theirs and not same(array, theirs[found.names[name]]):
            return "wrong", f"{name} is not PyTorch's {found.names[name]}"
    try:
        optimizer = training_checkpoint.read(path).optimizer
        if optimizer is not None:
            section = {"name": optimizer.names[0], **optimizer.settings}
            state = optimizer.opt_state(merge(Source(path.name, {"optimizer": section})), variables["params"])
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
                return "wrong", "the optimizer's state is not finite"
    except UserError as error:
        return refusal(error)
    return "right", ""


def refusal(error: UserError) -> tuple[str, str]:
    """A line that is not one, or is endless, is wrong."""
    text = str(error)
    return ("refused" if text.isprintable() and len(text) < 1500 else "wrong"), text


def reference(path: Path) -> Any:
    """PyTorch's or safetensors' own reading; this file is ours, so classes may be made."""
    if path.suffix == ".safetensors":
        return safetensors.torch.load(path.read_bytes())
    harmless = [argparse.Namespace, pathlib.PosixPath, np.ndarray, np.dtype, *map(type, map(np.dtype, "fd?iU"))]
    functions = [np.zeros(1).__reduce__()[0], np.float64().__reduce__()[0]]
    with torch.serialization.safe_globals([*harmless, *functions]):
        return torch.load(path, weights_only=True, map_location="cpu")


def flat(tree: Any, home: str = "", depth: int = 0) -> Any:
    if depth < 30:
        for key, value in tree.items():
            name = f"{home}.{key}" if home else str(key)
            if isinstance(value, Mapping):
                yield from flat(value, name, depth + 1)
            else:
                yield name, value


def same(ours: np.ndarray, theirs: Any) -> bool:
    theirs = theirs.detach().float().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs, np.float32)
    return ours.astype(np.float32).tobytes() == np.ascontiguousarray(theirs).tobytes()


def work(start: int, count: int, seed: int, timeout: float) -> None:
    """Trials in this process: a line of JSON for each."""
    make_narrow()
    with tempfile.TemporaryDirectory() as folder:
        for trial in range(start, start + count):
            path, kind, mutation = make_file(trial, seed, Path(folder))
            print(json.dumps([trial, kind, mutation]), flush=True)
            faulthandler.dump_traceback_later(timeout, exit=True)
            outcome, said = read_one(path)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([trial, kind, mutation, outcome, said]), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the first trial, to repeat one")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds after which a file counts as hung")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--messages", action="store_true", help="print what was said of each file")
    arguments = parser.parse_args(argv)
    if arguments.worker:
        work(arguments.start, arguments.count, arguments.seed, arguments.timeout)
        return 0
    table: Counter[tuple[str, str]] = Counter()
    trial, end = arguments.start, arguments.start + arguments.count
    while trial < end:
        command = [sys.executable, __file__, "--worker", "--start", str(trial), "--count", str(end - trial)]
        command += ["--seed", str(arguments.seed), "--timeout", str(arguments.timeout)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("[")]
        results = {line[0]: line for line in lines}  # of a trial that did not end the line of its beginning
        if not results:
            print(finished.stderr[-3000:])
            return 1
        for number, kind, mutation, *ended in results.values():
            outcome, said = ended or (
                "traceback" if "Traceback (" in finished.stderr else "lost",
                finished.stderr[-2000:],
            )
            table[mutation, outcome] += 1
            if arguments.messages or outcome not in ("refused", "right"):
                print(f"{number} {kind} {mutation}: {outcome}: {said}")
        trial = max(results) + 1
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    print(f"{'mutation':18} {'tried':>6} " + " ".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for mutation in [*BYTES, "change_structure"]:
        counts = [table[mutation, outcome] for outcome in OUTCOMES]
        print(f"{mutation:18} {sum(counts):>6} " + " ".join(f"{count:>9}" for count in counts))
    return int(any(count for (_, outcome), count in table.items() if outcome not in ("refused", "right")))


if __name__ == "__main__":
    sys.exit(main())
