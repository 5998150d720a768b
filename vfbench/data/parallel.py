"""The same work on many files at once: threads where it waits for a disk, processes where it computes."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vfbench.errors import BadEnvironment
from vfbench.utils.device import cores

Thing = TypeVar("Thing")
Result = TypeVar("Result")

CHUNK = 4  # files that a process takes at a time
FEW = 512  # files of UCF101 that threads have decoded before processes have started


def each(
    work: Callable[[Thing], Result], things: Sequence[Thing], *, processes: bool = False, workers: int | None = None
) -> Iterator[Result]:
    """`work` of each thing, in their order, on all cores; `work` is a function of a module, and raises nothing.

    With `processes`, decoding does not wait for one interpreter; measured by benchmarks/verify_speed.py. Raises
    `BadEnvironment` where a process was killed.
    """
    count = workers or cores()
    alone = not processes or count == 1 or len(things) < FEW
    pool = ThreadPoolExecutor(count) if alone else _processes(count)
    done = 0
    try:
        for result in pool.map(work, things, chunksize=CHUNK):
            yield result
            done += 1
    except BrokenProcessPool as error:
        raise BadEnvironment(
            f"a process was killed after {done:,} of {len(things):,} videos, perhaps for memory: make room and repeat "
            "the command, or look without decoding (leave out --full)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(count: int) -> Executor:
    # A fork of this process could inherit a lock of one of its threads, so a clean one is forked, which has imported
    # what they all need. Ctrl-C reaches every process of a terminal: this one alone answers it.
    method = "spawn" if sys.platform == "win32" else "forkserver"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["vfbench.data.inspect_video"])
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
