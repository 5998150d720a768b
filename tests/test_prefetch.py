"""What is made ahead comes in order, within bounds, with its errors in place, and leaves no thread behind."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import count

import pytest

from vfbench.prefetch import ahead

PATIENCE = 30.0  # seconds until a test that hangs fails


def threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _none_left() -> None:
    assert threads() == 0


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_all_come_in_their_order(workers: int, depth: int) -> None:
    assert list(ahead(str, range(20), workers=workers, depth=depth)) == [str(i) for i in range(20)]
    assert list(ahead(str, [], workers=workers, depth=depth)) == []
    assert threads() == 0


def test_a_slow_one_is_waited_for() -> None:
    others = threading.Event()

    def make(step: int) -> int:
        if step == 0:
            assert others.wait(PATIENCE)  # until a later one is done
        if step == 2:
            others.set()
        return step

    assert list(ahead(make, range(4), workers=2, depth=3)) == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_are_begun_ahead(depth: int) -> None:
    begun = count()
    last = [-1]

    def make(step: int) -> int:
        last[0] = max(last[0], next(begun))
        return step

    with closing(ahead(make, range(50), workers=4, depth=depth)) as made:
        assert last == [-1]  # nothing before it is asked for
        for step in made:
            assert last[0] <= step + depth


def test_the_next_are_made_while_one_is_looked_at() -> None:
    together = threading.Barrier(3)

    def make(step: int) -> int:
        if 1 <= step <= 3:
            together.wait(PATIENCE)  # passes only when all three are under way
        return step

    with closing(ahead(make, range(4), workers=3, depth=3)) as made:
        assert next(made) == 0
        for wanted in (1, 2, 3):
            assert next(made) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_place(workers: int) -> None:
    def make(step: int) -> int:
        if step >= 3:
            raise ValueError(f"step {step}")
        return step

    made = ahead(make, range(9), workers=workers, depth=4)
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
        with closing(ahead(make, count(), workers=2, depth=4)) as made:
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
        ahead(str, range(2), workers=workers, depth=depth)
