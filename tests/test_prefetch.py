"""What is made ahead comes in order, within bounds, with its errors in place, and leaves no thread behind."""

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

PATIENCE = 30.0  # seconds until a test that hangs fails


def threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _none_left() -> None:
    assert threads() == 0


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_all_come_in_their_order(workers: int, depth: int) -> None:
    assert list(prefetch(str, range(20), workers=workers, depth=depth)) == [str(i) for i in range(20)]
    assert list(prefetch(str, [], workers=workers, depth=depth)) == []
    assert threads() == 0


def test_a_slow_one_is_waited_for() -> None:
    others = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert others.wait(PATIENCE)  # until a later one is done
        if step == 2:
            others.set()
        return step

    assert list(prefetch(make, range(4), workers=2, depth=3)) == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_are_begun_ahead(depth: int) -> None:
    begun = count()
    last = [-1]

    def make(step: int) -> int:
        last[0] = max(last[0], next(begun))
        return step

    with closing(prefetch(make, range(50), workers=4, depth=depth)) as made:
        assert last == [-1]  # nothing before it is asked for
        for step in made:
            assert last[0] <= step + depth


def test_the_next_are_made_while_one_is_looked_at() -> None:
    together = threading.Barrier(3)

    def make(step: int) -> int:
        if 1 <= step <= 3:
            together.wait(PATIENCE)  # passes only when all three are under way
        return step

    with closing(prefetch(make, range(4), workers=3, depth=3)) as made:
        assert next(made) == 0
        for wanted in (1, 2, 3):
            assert next(made) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_place(workers: int) -> None:
    def make(step: int) -> int:
        if step >= 3:
            raise ValueError(f"step {step}")
        return step

    made = prefetch(make, range(9), workers=workers, depth=4)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^step 3$"):
        next(made)
    assert threads() == 0


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt])
def test_a_consumer_that_stops_leaves_no_thread_and_begins_no_more(error: type[BaseException]) -> None:
    begun: list[int] = []

    def make(step: int) -> int:
        begun.append(step)
        return step

    def consume() -> None:
        with closing(prefetch(make, count(), workers=2, depth=4)) as made:
            assert next(made) == 0
            assert threads() > 0
            raise error

    with pytest.raises(error):
        consume()
    assert threads() == 0
    assert len(begun) <= 5


@pytest.mark.parametrize(("workers", "depth"), [(-1, 1), (1, 0)])
def test_bounds_that_make_no_sense_are_refused(workers: int, depth: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers}, depth={depth}"):
        prefetch(str, range(2), workers=workers, depth=depth)


# Parts of one iterator.


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_parts_are_taken_in_turn(workers: int, size: int) -> None:
    parts = SharedIterator(iter(range(20)))
    taken = prefetch(lambda i: parts.take(i * size, size), range(-(-20 // size)), workers=workers, depth=9)
    assert list(taken) == [list(range(20))[i : i + size] for i in range(0, 20, size)]


def test_a_later_part_waits_for_those_before_it() -> None:
    parts, later = SharedIterator(iter("abcdef")), threading.Event()

    def last() -> list[str]:
        later.set()
        return parts.take(4, 2)

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(last)
        assert later.wait(PATIENCE)
        assert pool.submit(parts.take, 0, 4).result(PATIENCE) == list("abcd")
        assert waiting.result(PATIENCE) == list("ef")


def test_what_an_iterator_raises_all_later_parts_raise() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broken")

    parts = SharedIterator(items())
    assert parts.take(0, 2) == [0, 1]
    for first in (2, 4, 8):  # not only the next
        with pytest.raises(ValueError, match="broken"):
            parts.take(first, 2)


# How many workers there may be.


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 7, 9} if process == 0 else set(), raising=False)
    assert device.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert device.available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.available_cores() == 1
