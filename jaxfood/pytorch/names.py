"""Which network arrays are of, told by their names, and what a line says of names that are none of its."""

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal

import optax

from jaxfood.errors import UserError
from jaxfood.optim.freeze import frozen_mask
from jaxfood.pytorch.layouts import Entry, Shape, flat_leaves, moved
from jaxfood.pytorch.tables import MAKERS, Table, smallest_tables

# What DataParallel, torch.compile, FSDP and activation checkpointing put before the names inside them.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def table_of_variables(variables: Mapping[str, Any]) -> Table:
    """`fitted_table` of `{"params": ..., "batch_stats": ...}`."""
    return fitted_table({name: leaf.shape for name, leaf in flat_leaves(variables).items()}, "flax")


def plain_name(name: str) -> str:
    """A tensor's name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def nearest_table(names: Collection[str], side: Literal["torch", "flax"]) -> Table:
    """The table, of the smallest network, whose names are the likest to those given: the shared among all of both."""
    name_of = attrgetter(f"{side}.name")

    def likeness(table: Table) -> float:
        shared = sum(name_of(entry) in names for entry in table.entries)
        return shared / (len(names) + len(table.entries) - shared)

    return max(smallest_tables(), key=likeness)


def fitted_table(shapes: Mapping[str, Shape], side: Literal["torch", "flax"]) -> Table:
    """The table of the network and the sizes that arrays have, given their shapes under the names of one side.

    Raises:
        UserError: an array is missing, unexpected or of the wrong shape.
    """
    array_of = attrgetter(side)
    table = nearest_table(shapes.keys(), side)
    ours = {array_of(entry).name: entry for entry in table.entries}
    if not ours.keys() & shapes.keys():
        raise UserError(f"has none of the names of {known_networks()}: give the weights of one of these")
    problems = listed("missing ", (name for name in ours if name not in shapes))
    problems += listed("unexpected ", (shown(name) for name in sorted(set(shapes) - set(ours))))
    if not problems:
        by_leaf = {ours[name].flax.name: moved(shape) if side == "torch" else shape for name, shape in shapes.items()}
        table = MAKERS[table.model["name"]](by_leaf)
        pairs = ((name, shapes[name], right) for name, right in map(array_of, table.entries))
        wrong = (f"{name} has shape {list(has)}, expected {list(right)}" for name, has, right in pairs if has != right)
        problems = listed("", wrong)
    if problems:
        raise UserError(f"{'; '.join(problems)}: give the weights of {table.network}")
    return table


def trained(table: Table, tree: Any) -> list[Entry]:
    """The parameters for which a tree of the optimizer's, nested as they are, has an array: all but frozen ones."""
    leaves = flat_leaves({"params": tree})
    return [entry for entry in table.parameters if not isinstance(leaves.get(entry.flax.name), optax.MaskedNode)]


def frozen_names(table: Table, params: Any, freeze: str) -> set[str]:
    """PyTorch's names of the parameters that `train.freeze` keeps as they are."""
    mask = flat_leaves({"params": frozen_mask(params, freeze)})
    return {entry.torch.name for entry in table.parameters if mask[entry.flax.name]}


def known_networks() -> str:
    """The networks that PyTorch has too, in words."""
    *others, last = (table.network for table in smallest_tables())
    return f"{', '.join(others)} or {last}"


def listed(what: str, names: Iterable[str], limit: int = 6) -> list[str]:
    """One line of the first few names and how many more there are; none for none."""
    items = list(names)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return [what + ", ".join(items[:limit]) + more] if items else []


def shown(text: str, limit: int = 80) -> str:
    """What a stranger's file calls something, fit for a line: nothing unprintable, and not long."""
    text = text if text.isprintable() and text else repr(text)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} letters)"
