"""Work on all cores for functions that release the GIL, as Pillow's do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 0
) -> Generator[Result, None, None]:
    """Yields `function(item)` for each item, in order, with the threads only a little ahead of whoever takes them.

    `Executor.map` would start on all items at once: results of which nobody has taken any yet would fill the memory,
    and an interrupt would wait for every one of them. Close the generator to stop early.
    """
    threads = available_cpus()
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 8 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def available_cpus() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
