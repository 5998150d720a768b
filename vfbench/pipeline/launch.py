"""Several processes on this machine that share the work of one run: what `--workers N` starts.

Each is an ordinary process of the run with a rank, as torchrun or Slurm would start it. This one only waits: it shows
the progress of all as one line, passes on their warnings, and says which has died.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, cast

from vfbench.errors import BadEnvironment, Interrupted, MissingData, UserError
from vfbench.pipeline import status
from vfbench.pipeline.workers import Rank
from vfbench.utils import console
from vfbench.utils.progress import Progress

START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])  # so that the worker imports this vfbench, and the user's plug-ins
from vfbench.pipeline.launch import main
main()
"""
LOOK_SECONDS = 0.5  # between two looks at the workers and their folder
GRACE_SECONDS = 5.0  # for a worker to end once all is done, or when it is told to stop
_announcing = False  # True in a process that `launch` has started


def launch(function: str, options: Mapping[str, Any], count: int) -> Path:
    """Call a function, named as `module:name`, with these keyword arguments in `count` processes; wait for the end.

    The function must call `announce`. Returns the folder that it announces, where all of its work is done. A worker
    that dies is named, and the others do its part. Raises the `UserError` of a worker that could not begin, and
    `BadEnvironment` where none is left to finish.
    """
    base, threads = Rank.from_environment(), os.environ.get("OMP_NUM_THREADS") or str(max(1, _cores() // count))
    job = json.dumps({"function": function, "options": dict(options)}, default=str)
    workers = []
    try:
        for number in range(count):
            workers.append(_Process(number, _environment(base, number, count, threads), job))
        return _wait(workers)
    finally:
        _stop(workers)


def _cores() -> int:
    """Number of CPU cores that this process may use; like `vfbench.utils.device`, but without torch."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(base: Rank, number: int, count: int, threads: str) -> dict[str, str]:
    """Environment of a worker: its rank among all, and its number on this machine, which chooses its GPU."""
    local = os.environ.get("LOCAL_RANK", "0")
    first_local = int(local) * count if local.isdecimal() else 0
    hidden = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    rank = {"RANK": str(base.number * count + number), "WORLD_SIZE": str(base.count * count)}
    return {**inherited, **rank, "LOCAL_RANK": str(first_local + number), "OMP_NUM_THREADS": threads}


class _Process:
    """A worker: its process, what it announced, and the last lines that it printed."""

    def __init__(self, number: int, environment: Mapping[str, str], job: str) -> None:
        self.number, self.announced, self.lines = number, dict[str, Any](), deque[str](maxlen=50)
        self.reported = False
        command, pipe = [sys.executable, "-c", START, json.dumps(sys.path)], subprocess.PIPE
        self.process = subprocess.Popen(  # noqa: S603  # this program
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=dict(environment)
        )
        tell, out, err = (
            cast(IO[str], each) for each in (self.process.stdin, self.process.stdout, self.process.stderr)
        )
        with suppress(BrokenPipeError):  # it died at once
            tell.write(f"{job}\n")
            tell.flush()
        readers = ((self._read_out, out), (self._read_err, err))
        self.readers = [threading.Thread(target=read, args=(stream,), daemon=True) for read, stream in readers]
        for reader in self.readers:
            reader.start()

    def _read_out(self, stream: IO[str]) -> None:
        for line in stream:
            with suppress(ValueError):
                self.announced = json.loads(line)

    def _read_err(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line.rstrip())
            if self.announced:  # what stops it before is raised
                console.error(f"worker {self.number}: {line.rstrip()}")

    @property
    def code(self) -> int | None:
        """Exit code, once all that it printed is read; None while it runs."""
        code = self.process.poll()
        if code is not None:
            for reader in self.readers:
                reader.join(GRACE_SECONDS)
        return code

    @property
    def end(self) -> str:
        """Text on the end of the process, such as `worker 1 was killed by signal 9`."""
        code = self.code or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {self.number} {how}"


def _wait(workers: Sequence[_Process]) -> Path:
    """Wait for the workers, and return their folder; raises an error where the work cannot be finished."""
    first = _first_announcement(workers)
    folder = Path(first["folder"])
    if first["text"]:
        console.info(first["text"])
    state = _state(folder)
    clips, done = (state.clips, state.clips_done) if state else (0, 0)
    with Progress(f"generate ({len(workers)} workers)", clips, "clips", done=done) as progress:
        while True:
            codes = [worker.code for worker in workers]
            _report_deaths(workers)
            if 0 in codes:  # it has seen all of the work done
                _let_end(workers)
                return folder
            if None not in codes:
                raise _none_left(workers, folder)
            if state := _state(folder):
                if gained := state.clips_done - progress.done:
                    progress.advance(gained)
                progress.partly(state.clips_under_way)
            time.sleep(LOOK_SECONDS)


def _state(folder: Path) -> status.RunStatus | None:
    """State of the run; None where the folder is gone, because all is done."""
    try:
        return status.read(folder)
    except MissingData:
        return None


def _first_announcement(workers: Sequence[_Process]) -> dict[str, Any]:
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


def _error_of(worker: _Process) -> UserError:
    """The error that ended a worker before its work began, as this process would have raised it."""
    lines = list(worker.lines)
    first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), 0)
    error = UserError("\n".join(lines[first:]).removeprefix("error: ") or worker.end)
    error.exit_code = worker.code or UserError.exit_code
    return error


def _report_deaths(workers: Sequence[_Process]) -> None:
    for worker in workers:
        if worker.code and not worker.reported:
            worker.reported = True
            console.warn(f"{worker.end}; the others do its part")


def _none_left(workers: Sequence[_Process], folder: Path) -> BadEnvironment:
    ends = "; ".join(f"{worker.end}: {worker.lines[-1]}" if worker.lines else worker.end for worker in workers)
    error = BadEnvironment(f"no worker is left ({ends}): {folder} keeps what is done, repeat the command")
    codes = {worker.code for worker in workers}
    if len(codes) == 1 and (code := codes.pop()) and code > 0:
        error.exit_code = code
    return error


def _let_end(workers: Sequence[_Process]) -> None:
    """Wait for workers that are about to end: all is done."""
    limit = time.monotonic() + GRACE_SECONDS
    while any(worker.code is None for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)
    for worker in workers:
        if worker.code is None:
            console.warn(f"worker {worker.number} does not end, though all is done: it is stopped")


def _stop(workers: Sequence[_Process]) -> None:
    """Stop the workers that run, and wait for them."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    limit = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# In a worker.


def is_worker() -> bool:
    """True in a process that `launch` has started."""
    return _announcing


def announce(folder: Path, text: str) -> None:
    """Tell the process that started this one, if any, where the work is and what it is."""
    if _announcing:
        print(json.dumps({"folder": str(folder), "text": text}), file=sys.__stdout__, flush=True)


def main() -> None:
    """Read a job from stdin, and do it; ends when the process that gave it is gone."""
    global _announcing
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to every process: the first one handles it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    _announcing = True
    console.set_verbosity("quiet")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, name = job["function"].split(":")
    try:
        with redirect_stdout(sys.stderr):  # what plug-ins print does not mix with announcements
            getattr(importlib.import_module(module), name)(**job["options"])
    except UserError as error:
        console.error(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(Interrupted.exit_code) from None


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
