"""Work in threads: in order, only a little ahead, as many threads as asked for, and none left behind."""

import threading
import time
from contextlib import closing

import pytest

from jaxfood.data.threads import Budget, map_in_threads


def test_as_many_threads_work_as_were_asked_for() -> None:
    """None goes on before all have come."""
    together = threading.Barrier(32)
    assert sorted(map_in_threads(lambda _: together.wait(timeout=10), range(32), threads=32)) == list(range(32))


def test_results_come_in_order() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number

    assert list(map_in_threads(work, range(20), threads=4)) == list(range(20))


def test_only_so_many_results_wait_to_be_taken() -> None:
    done: list[int] = []
    with closing(map_in_threads(done.append, range(100), threads=2, ahead=5)) as results:
        for _ in range(3):
            next(results)
        time.sleep(0.05)
        assert 3 <= len(done) <= 3 + 5


def test_closing_ends_the_threads_without_what_is_not_begun() -> None:
    before = set(threading.enumerate())
    first, go_on, begun = threading.Event(), threading.Event(), []

    def work(number: int) -> int:
        begun.append(number)
        if number:
            first.set()
            go_on.wait(timeout=10)
        return number

    results = map_in_threads(work, range(100), threads=1, ahead=50)
    next(results)
    first.wait(timeout=10)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert begun == [0, 1]
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_is_raised_in_its_place(failure: type[BaseException]) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise failure
        return number

    results = map_in_threads(work, range(5), threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(failure):
        next(results)


def test_a_budget_lets_in_what_fits() -> None:
    budget, inside, most, lock = Budget(10, free=1), 0, 0, threading.Lock()

    def work(amount: int) -> None:
        nonlocal inside, most
        with budget.holding(amount):
            with lock:
                inside += amount
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= amount

    list(map_in_threads(work, [4, 3, 6, 2, 5, 10] * 2, threads=12))
    assert 4 <= most <= 10
    with budget.holding(1000), budget.holding(1):  # more than all: alone; small: at any time
        pass
    with pytest.raises(KeyError), budget.holding(10):
        raise KeyError
    with budget.holding(10):  # given back
        pass
