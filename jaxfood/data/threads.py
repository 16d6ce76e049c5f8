"""Work on all cores for functions that release the GIL, as Pillow's and those that read files do."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 0, ahead: int = 0
) -> Generator[Result, None, None]:
    """Yields `function(item)` for each item, in order, with the threads only a little ahead of whoever takes them.

    `Executor.map` would start on all items at once: results of which nobody has taken any yet would fill the memory,
    and an interrupt would wait for every one of them. Close the generator to stop early: only what is begun then ends.

    Args:
        function: called by several threads at once.
        items: taken one by one.
        threads: how many; 0: one a core.
        ahead: results that may wait to be taken; 0: eight a thread.
    """
    threads = threads or available_cpus()
    ahead = ahead or 8 * threads
    begun: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(threads, ahead))
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def available_cpus() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
