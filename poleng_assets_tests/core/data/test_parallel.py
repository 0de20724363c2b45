"""Several fits at the same time: as if one after the other, on one thread each."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from poleng_assets.core.data.parallel import parallel_map, prefetch


def threads() -> dict[str, int]:
    """Return how many threads each library of linear algebra may use now."""
    return {one["filepath"]: one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_what_is_made_comes_in_the_order_of_the_items():
    def make(item: int) -> int:
        time.sleep(0.05 / (1 + item))  # the later ones are ready first
        return item**2

    assert parallel_map(make, range(12)) == [item**2 for item in range(12)]


def test_nothing_makes_nothing():
    assert parallel_map(lambda item: item, []) == []


def test_an_iterator_is_used_up_once():
    assert parallel_map(str, iter([3, 1, 2])) == ["3", "1", "2"]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core does one thing at a time")
def test_two_are_made_at_the_same_time():
    together = threading.Barrier(2, timeout=20)  # each waits for the other
    assert sorted(parallel_map(lambda item: together.wait(), range(2))) == [0, 1]


def test_what_goes_wrong_is_told():
    def make(item: int) -> int:
        if item == 2:
            raise ValueError(f"item {item} cannot be made")
        return item

    with pytest.raises(ValueError, match="item 2 cannot be made"):
        parallel_map(make, range(4))


def test_linear_algebra_keeps_to_one_thread_and_gets_its_threads_back():
    np.ones((50, 50)) @ np.ones((50, 50))
    with threadpool_limits(2):
        before = threads()
        assert set(before.values()) == {2}
        inside = parallel_map(lambda item: threads(), range(6))
        assert all(set(one.values()) == {1} for one in inside)
        assert threads() == before


def test_the_threads_come_back_when_something_goes_wrong():
    with threadpool_limits(2):
        before = threads()
        with pytest.raises(ZeroDivisionError):
            parallel_map(lambda item: item // 0, range(6))
        assert threads() == before


def test_items_made_ahead_come_in_their_order_and_errors_in_their_turn():
    def make(item: int) -> int:
        return 6 // (3 - item)

    came = []

    def take() -> None:
        for made in prefetch(map(make, range(9))):
            came.append(made)

    with pytest.raises(ZeroDivisionError):
        take()
    assert came == [2, 3, 6]


def test_nobody_works_ahead_any_more_when_the_items_are_left():
    left_off = threading.Event()

    def source() -> Iterator[int]:
        for item in range(100):
            assert not left_off.is_set(), "it went on"
            time.sleep(0.01)
            yield item

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="enough"):
        for item in prefetch(map(str, source())):
            raise ValueError(f"{item} is enough")
    left_off.set()
    assert set(threading.enumerate()) <= before
