"""Wait for the workers of a run, processes or Ray actors: one line of progress for all, a warning for each that died.

This process does none of the work. It reads how far the run is from the run folder alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfbench.errors import BadEnvironment, Incomplete, MissingData, UserError
from vfbench.pipeline import status
from vfbench.utils import console
from vfbench.utils.progress import Progress
from vfbench.utils.store import name, url_of

LOOK_SECONDS = 0.5  # between two looks at the workers and their folder
STORE_LOOK_SECONDS = 5.0  # between two looks at a folder in an object store
GRACE_SECONDS = 5.0  # for a worker to end once all is done, or when it is told to stop


class WatchedWorker(ABC):
    """A worker as the process that started it sees it: its number, what it announced, and the last lines it printed."""

    number: int
    announced: dict[str, Any]  # `folder` of the work and `text` to show; empty before the work begins
    lines: deque[str]
    reported = False  # True once its death has been told

    @property
    @abstractmethod
    def code(self) -> int | None:
        """Exit code, once all that it printed is read, below 0 for a violent end; None while it runs."""

    @property
    @abstractmethod
    def end(self) -> str:
        """Text on the end of the worker, such as `worker 1 was killed by signal 9`."""


def wait(workers: Sequence[WatchedWorker]) -> Path:
    """Wait for the workers, and return their folder, where all of the work is done.

    Raises the `UserError` of a worker that could not begin, and `BadEnvironment` where none is left to finish.
    """
    first = _first_announcement(workers)
    folder = Path(first["folder"])
    if first["text"]:
        console.info(first["text"])
    state = _state(folder)
    clips, done = (state.clips, state.clips_done) if state else (0, 0)
    next_look, pause = 0.0, STORE_LOOK_SECONDS if url_of(folder) else 0.0
    with Progress(f"generate ({len(workers)} workers)", clips, "clips", done=done) as progress:
        while True:
            codes = [worker.code for worker in workers]
            _report_deaths(workers)
            if 0 in codes:  # it has seen all of the work done
                _let_end(workers)
                return folder
            if None not in codes:
                raise _none_left(workers, folder)
            if time.monotonic() >= next_look and (state := _state(folder)):
                next_look = time.monotonic() + pause
                if gained := state.clips_done - progress.done:
                    progress.advance(gained)
                progress.partly(state.clips_under_way)
            time.sleep(LOOK_SECONDS)


def _state(folder: Path) -> status.RunStatus | None:
    """State of the run; None where the folder is gone, because all is done, or its store cannot be reached."""
    try:
        return status.read(folder)
    except (MissingData, BadEnvironment):
        return None


def _first_announcement(workers: Sequence[WatchedWorker]) -> dict[str, Any]:
    """Announcement of the worker that was first; raises the error of one that ended before."""
    while True:
        for worker in workers:
            if worker.announced:
                return worker.announced
        for worker in workers:
            if (code := worker.code) and code > 0 and not worker.announced:
                raise _error_of(worker)
        if all(worker.code is not None for worker in workers) and not any(worker.announced for worker in workers):
            raise BadEnvironment("; ".join(worker.end for worker in workers))
        time.sleep(0.05)


def _error_of(worker: WatchedWorker) -> UserError:
    """The error that ended a worker before its work began, as this process would have raised it."""
    lines = list(worker.lines)
    first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), 0)
    error = UserError("\n".join(lines[first:]).removeprefix("error: ") or worker.end)
    error.exit_code = worker.code or UserError.exit_code
    return error


def _report_deaths(workers: Sequence[WatchedWorker]) -> None:
    for worker in workers:
        if worker.code and not worker.reported:
            worker.reported = True
            console.warn(f"{worker.end}; the others do its part")


def _none_left(workers: Sequence[WatchedWorker], folder: Path) -> UserError:
    if {worker.code for worker in workers} == {Incomplete.exit_code} and "error: " in "".join(workers[0].lines):
        return _error_of(workers[0])  # all of the work is done, and all have seen what is missing
    ends = "; ".join(f"{worker.end}: {worker.lines[-1]}" if worker.lines else worker.end for worker in workers)
    error = BadEnvironment(f"no worker is left ({ends}): {name(folder)} keeps what is done, repeat the command")
    codes = {worker.code for worker in workers}
    if len(codes) == 1 and (code := codes.pop()) and code > 0:
        error.exit_code = code
    return error


def _let_end(workers: Sequence[WatchedWorker]) -> None:
    """Wait for workers that are about to end: all is done."""
    limit = time.monotonic() + GRACE_SECONDS
    while any(worker.code is None for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)
    for worker in workers:
        if worker.code is None:
            console.warn(f"worker {worker.number} does not end, though all is done: it is stopped")
