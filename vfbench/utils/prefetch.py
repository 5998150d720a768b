"""Work done ahead by threads: what will be asked for next is made while its consumer is busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Made = TypeVar("Made")


def ahead(
    make: Callable[[int], Made], steps: Iterable[int], *, workers: int, depth: int
) -> Generator[Made, None, None]:
    """`make(step)` for each step in order, made by `workers` threads; while one is looked at, up to `depth` are made.

    What `make` raises is raised where its result would have come. To stop early, close the iterator
    (`contextlib.closing`): what was begun is waited for, the rest is never begun, and no thread is left. With no
    workers each is made by the caller, when it is asked for. Raises ValueError for negative workers or no depth.
    """
    if workers < 0 or depth < 1:
        raise ValueError(f"workers={workers}, depth={depth}: workers count from 0, depth from 1")
    return _made_ahead(make, iter(steps), workers, depth) if workers else (make(step) for step in steps)


def _made_ahead(
    make: Callable[[int], Made], steps: Iterator[int], workers: int, depth: int
) -> Generator[Made, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class InTurn(Generic[Made]):
    """What an iterator makes, in parts that several threads take: each waits until the parts before its own are taken.

    Parts must be begun in their order, as by `ahead`: one that nobody begins would be waited for.
    """

    def __init__(self, items: Iterator[Made]) -> None:
        self._items, self._taken, self._turn = items, 0, threading.Condition()
        self._fault: Exception | None = None

    def take(self, first: int, count: int) -> list[Made]:
        """Items `first` to `first + count`, fewer at the end. What the iterator raises, later parts raise, too."""
        with self._turn:
            self._turn.wait_for(lambda: self._fault or self._taken == first)
            if self._fault:
                raise self._fault
            try:
                return list(islice(self._items, count))
            except Exception as error:
                self._fault = error
                raise
            finally:
                self._taken = first + count
                self._turn.notify_all()
