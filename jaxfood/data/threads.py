"""Work on all cores for functions that release the GIL, as Pillow's and those that read files do."""

import ctypes
import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

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


class Budget:
    """What threads may hold of something (bytes of memory, say) at one time; who wants more than is left waits.

    A weighted semaphore. Small amounts go free: they neither wait nor count.
    """

    def __init__(self, total: int, *, free: int = 0) -> None:
        """Nothing is held yet.

        Args:
            total: how much all threads may hold together; who wants more than that holds it alone.
            free: amounts up to this one go free.
        """
        self._total, self.free = total, free
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Waits until there is so much left, and holds it in the body. Nested, both could wait for ever."""
        if amount <= self.free:
            yield
            return
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._held + amount <= self._total)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()


def return_freed_memory() -> None:
    """Hands memory that is free back to the system, where the C library would keep it for the thread that freed it.

    glibc has a heap for each thread and cannot shrink it below what is still in use at its end. Eight threads that
    decoded a picture of 0.7 GB each, one after the other, kept 4.9 GB.
    """
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (OSError, AttributeError):  # not glibc
        return None


def available_cpus() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
