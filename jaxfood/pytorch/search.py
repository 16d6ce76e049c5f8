"""Where in a file the weights of a network that we know are, however its maker wrapped them.

Trainers put a state dict into dictionaries, and wrappers (Lightning, DataParallel, AveragedModel) put prefixes before
its names. With keys joined by dots both are prefixes, so one search finds both: the prefix under which the names are
those of a network's table or, where other layers shifted the numbers of the notes' Classifier, the modules are the
table's in order and shape.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jaxfood.errors import UserError
from jaxfood.pytorch.layouts import Shape
from jaxfood.pytorch.names import fitted_table, known_networks, listed, nearest_table, plain_name, shown
from jaxfood.pytorch.tables import classifier_table, smallest_tables

_DEPTH, _LENGTH = 24, 500  # levels and letters of a name that are looked at: real ones have fewer
# What averages of the weights are called, which are not those in training.
_AVERAGES = re.compile(r"(^|[._])(ema|swa)([._]|$)|averag|shadow|teacher")
_NUMBERED = {entry.torch.name: entry.torch.shape for entry in classifier_table({}).entries}
_NAMES = [frozenset(entry.torch.name for entry in table.entries) for table in smallest_tables()]  # of each network
_ANY_NAME = frozenset().union(*_NAMES)


class Found(NamedTuple):
    """The weights of a file.

    Attributes:
        tensors: what lies under each of the table's names, of the shape it must have; types are not looked at.
        names: what each is called in the file: its keys, joined by dots.
        notes: what was chosen, guessed or passed over, a line each.
    """

    tensors: dict[str, Any]
    names: dict[str, str]
    notes: Sequence[str]


class _Leaf(NamedTuple):
    value: Any
    shape: Shape | None  # None: it is no tensor
    home: str  # the dictionary that it lies in

    @property
    def is_weight(self) -> bool:
        """Whether a network could need it; one whole number is a counter."""
        return self.shape is not None and (self.shape != () or "float" in str(self.value.dtype))


class _Match(NamedTuple):
    prefix: str
    names: Mapping[str, str]  # the file's by the table's
    renamed: Mapping[str, str]  # modules that only their order tells: ours by the file's name


def find(content: Any, part: str = "", unread: Sequence[str] = ()) -> Found:
    """The weights in what a file holds.

    Where several parts fit, weights in training go before averages of them, and then the first in the file.

    Args:
        content: dictionaries of dictionaries, tensors and anything else.
        part: what the names begin with, keys joined by dots: the rest is not looked at.
        unread: classes of which the file holds objects that are not read, for the message.

    Raises:
        UserError: nothing fits; it says what the file holds instead.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"holds a {type(content).__name__}, not a dictionary of tensors: save model.state_dict()")
    leaves = _leaves(content)
    below: dict[str, list[str]] = defaultdict(list)
    for name in leaves:
        if name.startswith(f"{part}." if part else ""):
            for dot in islice(re.finditer(r"^|\.", name), _DEPTH):
                below[name[: dot.start()]].append(name)
    if part and not below:
        raise UserError(f"has no part {shown(part)}: {_keys(content)}")
    matches = [match for prefix, names in below.items() if (match := _match(prefix, names, leaves))]
    if not matches:
        raise UserError(_why_nothing_fits(content, leaves, below, unread))
    different = {frozenset(match.names.values()): match for match in matches}  # of equal ones the longest prefix
    chosen, *others = sorted(different.values(), key=lambda match: bool(_AVERAGES.search(match.prefix.lower())))
    for own in chosen.names.values():
        if leaves[own].shape is None:
            kind = type(leaves[own].value).__name__
            raise UserError(f"{shown(own)} is of type {kind}, not a plain tensor: save model.state_dict()")
    fitted_table({name: leaves[own].shape or () for name, own in chosen.names.items()}, "torch")
    tensors = {name: leaves[own].value for name, own in chosen.names.items()}
    return Found(tensors, dict(chosen.names), _notes(chosen, others, leaves))


def _leaves(content: Mapping[Any, Any]) -> dict[str, _Leaf]:
    """All that is no dictionary, by its keys joined by dots; a dictionary that comes twice, where it came first."""
    leaves: dict[str, _Leaf] = {}
    seen: set[int] = set()

    def look(tree: Mapping[Any, Any], home: str, depth: int) -> None:
        seen.add(id(tree))
        for key, value in tree.items():
            text = str(key) if isinstance(key, str | int) else type(key).__name__
            name = (f"{home}.{text}" if home else text)[:_LENGTH]
            if not isinstance(value, Mapping):
                name += " (again)" * (name in leaves)  # as of {"a": {"b": 1}, "a.b": 2}
                leaves[name] = _Leaf(value, _shape(value), home)
            elif id(value) not in seen and depth < _DEPTH:
                look(value, name, depth + 1)

    look(content, "", 0)
    return leaves


def _shape(value: Any) -> Shape | None:
    try:
        is_tensor = hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic)
        return tuple(int(size) for size in value.shape) if is_tensor else None
    except (RuntimeError, TypeError, ValueError):  # PyTorch's nested tensors have none
        return None


def _plain(prefix: str, names: Sequence[str], leaves: Mapping[str, _Leaf]) -> dict[str, list[str]]:
    """What may be weights below a prefix, by their names there without the wrappers'."""
    plain: dict[str, list[str]] = defaultdict(list)
    for full in names:
        name = plain_name(full.removeprefix(prefix).removeprefix("."))
        if name in _ANY_NAME or (leaves[full].is_weight and not name.endswith("num_batches_tracked")):
            plain[name].append(full)
    return plain


def _match(prefix: str, names: Sequence[str], leaves: Mapping[str, _Leaf]) -> _Match | None:
    if len(names) < min(map(len, _NAMES)):
        return None
    plain = _plain(prefix, names, leaves)
    if all(len(plain) != len(known) for known in _NAMES) or any(len(fulls) > 1 for fulls in plain.values()):
        return None
    own = {name: full for name, (full,) in plain.items()}
    if own.keys() in _NAMES:
        return _Match(prefix, own, {})
    renamed = _by_order({name: leaves[full].shape or () for name, full in own.items()})
    ours = {_renamed(name, renamed): full for name, full in own.items()}
    try:
        fitted_table({name: leaves[full].shape or () for name, full in ours.items()}, "torch")
    except UserError:
        return None
    return _Match(prefix, ours, {theirs: name for theirs, name in renamed.items() if theirs != name})


def _by_order(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The notes' modules by other names, where these differ in numbers alone, which tell the order; else nothing."""
    ours, theirs = _kinds(_NUMBERED), _kinds(shapes)
    counts = [{kind: len(modules) for kind, modules in kinds.items()} for kinds in (ours, theirs)]
    if counts[0] != counts[1] or any(len({re.sub(r"\d+", "", name) for name in kind}) > 1 for kind in theirs.values()):
        return {}
    return {name: our for kind, names in theirs.items() for name, our in zip(names, ours[kind], strict=True)}


def _kinds(shapes: Mapping[str, Shape]) -> dict[Any, list[str]]:
    """Modules in the order of their numbers, by what tells convolutions, BatchNorm and linear layers apart."""
    modules: dict[str, dict[str, int]] = defaultdict(dict)
    for name, shape in shapes.items():
        module, _, tensor = name.rpartition(".")
        modules[module][tensor] = len(shape)
    kinds: dict[Any, list[str]] = defaultdict(list)
    for module in sorted(modules, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]):
        kinds[frozenset(modules[module].items())].append(module)
    return kinds


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, dot, tensor = name.rpartition(".")
    return modules.get(module, module) + dot + tensor


def _notes(chosen: _Match, others: Sequence[_Match], leaves: Mapping[str, _Leaf]) -> list[str]:
    notes = []
    if others:
        prefixes = listed("", (shown(match.prefix) for match in others))[0]
        notes.append(
            f"the weights are those of {shown(chosen.prefix)}; the part {prefixes} would fit too: --part takes it"
        )
    if chosen.renamed:
        pairs = listed("", (f"{shown(theirs)} as {ours}" for theirs, ours in chosen.renamed.items()))[0]
        notes.append(f"by order and shape the weights are {pairs}: check that the network is the notes' Classifier")
    taken = {full for match in (chosen, *others) for full in match.names.values()}
    homes = {leaves[full].home for full in chosen.names.values()}
    rest = [
        f"{shown(name)} {list(leaf.shape or ())}"
        for name, leaf in leaves.items()
        if leaf.home in homes and leaf.is_weight and name not in taken and not name.endswith("num_batches_tracked")
    ]
    return [*notes, *listed("passed over beside the weights: ", rest)]


def _why_nothing_fits(
    content: Mapping[Any, Any], leaves: Mapping[str, _Leaf], below: Mapping[str, Sequence[str]], unread: Sequence[str]
) -> str:
    plains = {prefix: _plain(prefix, names, leaves) for prefix, names in below.items()}
    shared = {prefix: max(len(known & plain.keys()) for known in _NAMES) for prefix, plain in plains.items()}
    best = max(plains, key=lambda prefix: (shared[prefix], len(prefix)), default="")
    plain = plains.get(best, {})
    table = nearest_table(plain.keys(), "torch")
    ours = [entry.torch.name for entry in table.entries]
    has = sum(name in plain for name in ours)
    if 3 * has > len(ours):
        where = f"in {shown(best)} " if best else ""
        problems = [f"{shown(name)} comes twice, once as {shown(full[-1])}" for name, full in plain.items() if full[1:]]
        problems = problems[:1] or [
            *listed("missing ", (name for name in ours if name not in plain)),
            *listed("unexpected ", sorted(shown(name) for name in plain if name not in ours)),
        ]
        return f"{where}{'; '.join(problems)}: give the weights of {table.network}"
    tensors = [f"{shown(name)} {list(leaf.shape)}" for name, leaf in leaves.items() if leaf.shape is not None]
    few = tensors if len(tensors) < 5 else [*tensors[:3], "...", tensors[-1]]
    text = (
        f"holds {len(tensors)} tensor{'s' * (len(tensors) > 1)} ({', '.join(few)})" if tensors else "holds no tensors"
    )
    if tensors:
        known = f"the {len(ours)} of {table.network}" if has else f"those of {known_networks()}"
        text += f", {has or 'none'} of them named as {known}"
    text += f"; {_keys(content)}"
    if unread:
        classes = listed("", map(shown, unread), limit=3)[0]
        text += f"; pickled modules or other objects ({classes}) are refused because reading them can run code"
    return f"{text}: save model.state_dict() instead"


def _keys(content: Mapping[Any, Any]) -> str:
    keys = (shown(str(key) if isinstance(key, str | int) else type(key).__name__) for key in content)
    return (listed("its keys are ", keys) or ["it is empty"])[0]
