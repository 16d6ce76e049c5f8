"""What can be read off a program compiled for a TPU: its collectives, and what goes to and from the large memory."""

import math
import re
from collections import Counter

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "bf16": 2} | {f"{kind}{bits}": bits // 8 for kind in "fsu" for bits in (8, 16, 32, 64)}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(.*)$")
# They move nothing: other names of what is there, and pieces that lie next to each other already.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "while", "after-all"}


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """How many there are of each kind in a compiled program, and the bytes of their results for one chip."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for shape, kind, is_start in re.findall(rf" = (.*?) ({'|'.join(_COLLECTIVES)})(-start)?\(", hlo):
        bytes_ = _bytes(shape)
        count[kind] += 1
        # What begins all but an all-reduce is a pair of its operand and its result.
        size[kind] += bytes_ // 2 if is_start and kind != "all-reduce" else bytes_
    return {kind: {"count": count[kind], "bytes": size[kind]} for kind in _COLLECTIVES if count[kind]}


def large_memory_bytes(hlo: str) -> int:
    """The bytes that a program for a TPU reads from its large memory (HBM) and writes there.

    XLA's own count has the arrays that stay in the chip's fast memory too (`S(1)` in their layout), and each array
    that is fetched into it ahead of time several times over. An operand counts whole, also where only a part of it is
    read; the body of a loop counts once.
    """
    computations = re.split(r"\n(?=ENTRY|%)", hlo)
    named = {found[1]: text for text in computations if (found := re.match(r"(?:ENTRY )?(%[\w.\-]+) ", text))}
    todo = [text for text in computations if text.startswith("ENTRY")]
    total = 0
    while todo:
        instructions = list(filter(None, map(_INSTRUCTION.match, todo.pop().splitlines()[1:])))
        shapes = {found[1]: found[2] for found in instructions}
        for _, shape, kind, operands, rest in (found.groups() for found in instructions):
            if kind == "while":
                todo += [named[body] for body in re.findall(r"body=(%[\w.\-]+)", rest)]
            total += _moved(kind, shape, [shapes.get(name, "") for name in re.findall(r"%[\w.\-]+", operands)], rest)
    return total


def _moved(kind: str, shape: str, operands: list[str], rest: str) -> int:
    """Of one instruction."""
    if kind in _FREE or kind.endswith("-done") or (kind == "custom-call" and "ConcatBitcast" in rest):
        return 0
    if kind == "copy-start":  # (result, operand, semaphore)
        return _bytes(shape, only_large=True)
    if kind == "slice-start":  # ((operand), result, semaphore): as much is read as arrives
        return _bytes(shape.split("), ", 1)[1].rsplit(", ", 1)[0])
    if kind.endswith("-start"):
        return _bytes(shape, only_large=True)
    return _bytes(shape, only_large=True) + sum(_bytes(operand, only_large=True) for operand in operands)


def _bytes(shape: str, *, only_large: bool = False) -> int:
    """Of a shape's arrays; of those that are not in one of the chip's smaller memories."""
    return sum(
        _BYTES.get(dtype, 0) * math.prod(map(int, filter(None, sizes.split(","))))
        for dtype, sizes, layout in _ARRAY.findall(shape)
        if not (only_large and re.search(r"S\(\d\)", layout))
    )
