"""Prefetching with threads: the next results are computed while the consumer is busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Output = TypeVar("Output")


def prefetch(
    make: Callable[[int], Output], steps: Iterable[int], *, workers: int, depth: int
) -> Generator[Output, None, None]:
    """Iterate over `make(step)` in the order of `steps`; `workers` threads compute up to `depth` results in advance.

    An error of `make` is raised in place of its result. To stop early, close the iterator (`contextlib.closing`): it
    waits for running calls, cancels the others and ends the threads. Without workers, the caller computes each result
    on demand. Raises ValueError for negative `workers` or a `depth` below 1.
    """
    if workers < 0 or depth < 1:
        raise ValueError(f"workers={workers}, depth={depth}: workers count from 0, depth from 1")
    return _prefetch(make, iter(steps), workers, depth) if workers else (make(step) for step in steps)


def _prefetch(
    make: Callable[[int], Output], steps: Iterator[int], workers: int, depth: int
) -> Generator[Output, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    waiting: deque[Future[Output]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class SharedIterator(Generic[Output]):
    """Iterator that several threads read in parts: each thread waits until all earlier parts are taken.

    Threads must start the parts in order, as `prefetch` does; a part that no thread starts blocks all later ones.
    """

    def __init__(self, items: Iterator[Output]) -> None:
        self._items, self._taken, self._condition = items, 0, threading.Condition()
        self._error: Exception | None = None

    def take(self, first: int, count: int) -> list[Output]:
        """Up to `count` items from index `first`. An error of the iterator is raised again by every later call."""
        with self._condition:
            self._condition.wait_for(lambda: self._error or self._taken == first)
            if self._error:
                raise self._error
            try:
                return list(islice(self._items, count))
            except Exception as error:
                self._error = error
                raise
            finally:
                self._taken = first + count
                self._condition.notify_all()
