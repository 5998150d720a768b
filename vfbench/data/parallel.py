"""Parallel map over files: threads for work that waits for a disk, processes for decoding."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from vfbench.errors import BadEnvironment
from vfbench.utils.device import available_cores

Input = TypeVar("Input")
Result = TypeVar("Result")

CHUNK = 4  # inputs sent to a process at a time
MIN_FOR_PROCESSES = 512  # videos of UCF101 that threads decode in the time that processes take to start


def map_ordered(
    work: Callable[[Input], Result], inputs: Sequence[Input], *, processes: bool = False, workers: int | None = None
) -> Iterator[Result]:
    """`work(input)` for each input, in order, on all cores or `workers`. `work` must be picklable and must not raise.

    `processes` decode in parallel despite the interpreter lock; benchmarks/verify_speed.py measures the gain. Raises
    `BadEnvironment` where a process was killed.
    """
    count = workers or available_cores()
    use_threads = not processes or count == 1 or len(inputs) < MIN_FOR_PROCESSES
    pool = ThreadPoolExecutor(count) if use_threads else _process_pool(count)
    done = 0
    try:
        for result in pool.map(work, inputs, chunksize=CHUNK):
            yield result
            done += 1
    except BrokenProcessPool as error:
        raise BadEnvironment(
            f"a process was killed after {done:,} of {len(inputs):,} videos, perhaps for lack of memory: free some and "
            "repeat the command, or leave out --full to skip decoding"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _process_pool(count: int) -> Executor:
    # A fork of this process could inherit a lock held by one of its threads. The fork server is a clean process with
    # the imports done. Workers ignore Ctrl-C, which a terminal sends to every process: this process handles it.
    method = "spawn" if sys.platform == "win32" else "forkserver"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["vfbench.data.inspect_video"])
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
