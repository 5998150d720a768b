"""Tests of `vfbench.utils.prefetch` and `available_cores`: order, bounds, errors, no threads left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import pytest

from vfbench.utils import device
from vfbench.utils.prefetch import SharedIterator, prefetch

TIMEOUT = 30.0  # seconds until a hanging test fails


def threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_threads() -> None:
    assert threads() == 0


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_results_come_in_order(workers: int, depth: int) -> None:
    assert list(prefetch(str, range(20), workers=workers, depth=depth)) == [str(i) for i in range(20)]
    assert list(prefetch(str, [], workers=workers, depth=depth)) == []
    assert threads() == 0


def test_a_slow_result_is_waited_for() -> None:
    later = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert later.wait(TIMEOUT)  # until step 2 has run
        if step == 2:
            later.set()
        return step

    assert list(prefetch(make, range(4), workers=2, depth=3)) == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 3])
def test_at_most_depth_calls_run_ahead(depth: int) -> None:
    calls = count()
    last = [-1]

    def make(step: int) -> int:
        last[0] = max(last[0], next(calls))
        return step

    with closing(prefetch(make, range(50), workers=4, depth=depth)) as results:
        assert last == [-1]  # lazy until the first `next`
        for step in results:
            assert last[0] <= step + depth


def test_later_calls_run_while_a_result_is_used() -> None:
    barrier = threading.Barrier(3)

    def make(step: int) -> int:
        if 1 <= step <= 3:
            barrier.wait(TIMEOUT)  # passes only once all three run
        return step

    with closing(prefetch(make, range(4), workers=3, depth=3)) as results:
        assert next(results) == 0
        for expected in (1, 2, 3):
            assert next(results) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_turn(workers: int) -> None:
    def make(step: int) -> int:
        if step >= 3:
            raise ValueError(f"step {step}")
        return step

    results = prefetch(make, range(9), workers=workers, depth=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^step 3$"):
        next(results)
    assert threads() == 0


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt])
def test_a_stopped_consumer_leaves_no_thread_and_starts_no_call(error: type[BaseException]) -> None:
    calls: list[int] = []

    def make(step: int) -> int:
        calls.append(step)
        return step

    def consume() -> None:
        with closing(prefetch(make, count(), workers=2, depth=4)) as results:
            assert next(results) == 0
            assert threads() > 0
            raise error

    with pytest.raises(error):
        consume()
    assert threads() == 0
    assert len(calls) <= 5


@pytest.mark.parametrize(("workers", "depth"), [(-1, 1), (1, 0)])
def test_invalid_bounds_are_refused(workers: int, depth: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers}, depth={depth}"):
        prefetch(str, range(2), workers=workers, depth=depth)


# SharedIterator.


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_shared_parts_are_taken_in_order(workers: int, size: int) -> None:
    parts = SharedIterator(iter(range(20)))
    results = prefetch(lambda i: parts.take(i * size, size), range(-(-20 // size)), workers=workers, depth=9)
    assert list(results) == [list(range(20))[i : i + size] for i in range(0, 20, size)]


def test_a_later_part_waits_for_earlier_ones() -> None:
    parts, started = SharedIterator(iter("abcdef")), threading.Event()

    def last() -> list[str]:
        started.set()
        return parts.take(4, 2)

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(last)
        assert started.wait(TIMEOUT)
        assert pool.submit(parts.take, 0, 4).result(TIMEOUT) == list("abcd")
        assert waiting.result(TIMEOUT) == list("ef")


def test_later_parts_repeat_the_error_of_the_iterator() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broken")

    parts = SharedIterator(items())
    assert parts.take(0, 2) == [0, 1]
    for first in (2, 4, 8):  # every later part
        with pytest.raises(ValueError, match="broken"):
            parts.take(first, 2)


# Cores.


def test_available_cores_follow_the_affinity_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 7, 9} if process == 0 else set(), raising=False)
    assert device.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert device.available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.available_cores() == 1
