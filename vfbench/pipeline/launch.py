"""Several processes on this machine that share the work of one run: what `--workers N` starts.

Each is an ordinary process of the run with a rank, as torchrun or Slurm would start it. This one only waits: it shows
the progress of all as one line, passes on their warnings, and says which has died.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from vfbench.pipeline import watch, worker_job
from vfbench.pipeline.workers import SLURM_ARRAY, Rank
from vfbench.utils import console

START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])  # so that the worker imports this vfbench, and the user's plug-ins
from vfbench.pipeline.launch import main
main()
"""


def launch(function: str, options: Mapping[str, Any], count: int) -> Path:
    """Call a function, named as `module:name`, with these keyword arguments in `count` processes; wait for the end.

    The function must call `worker_job.announce`. Returns the folder that it announces, where all of its work is done.
    A worker that dies is named, and the others do its part. Raises the `UserError` of a worker that could not begin,
    and `BadEnvironment` where none is left to finish.
    """
    base, threads = (
        Rank.from_environment(),
        os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // count)),
    )
    job = json.dumps({"function": function, "options": dict(options)}, default=str)
    workers = []
    try:
        for number in range(count):
            workers.append(_Process(number, _environment(base, number, count, threads), job))
        return watch.wait(workers)
    finally:
        _stop(workers)


def available_cores() -> int:
    """Number of CPU cores that this process may use; like `vfbench.utils.device`, but without torch."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(base: Rank, number: int, count: int, threads: str) -> dict[str, str]:
    """Environment of a worker: its rank among all, and its number on this machine, which chooses its GPU."""
    local = os.environ.get("LOCAL_RANK", "0")
    first_local = int(local) * count if local.isdecimal() else 0
    inherited = {name: value for name, value in os.environ.items() if name not in SLURM_ARRAY}
    rank = Rank(base.number * count + number, base.count * count).variables
    return {**inherited, **rank, "LOCAL_RANK": str(first_local + number), "OMP_NUM_THREADS": threads}


class _Process(watch.WatchedWorker):
    """A worker: its process, what it announced, and the last lines that it printed."""

    def __init__(self, number: int, environment: Mapping[str, str], job: str) -> None:
        self.number, self.announced, self.lines = number, dict[str, Any](), deque[str](maxlen=50)
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
                reader.join(watch.GRACE_SECONDS)
        return code

    @property
    def end(self) -> str:
        """Text on the end of the process, such as `worker 1 was killed by signal 9`."""
        code = self.code or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {self.number} {how}"


def _stop(workers: Sequence[_Process]) -> None:
    """Stop the workers that run, and wait for them."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    for process in running:
        process.terminate()
    limit = time.monotonic() + watch.GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Read a job from stdin in a worker, and do it; ends when the process that gave it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to every process: the first one handles it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    raise SystemExit(worker_job.carry_out(job["function"], job["options"], _print_announcement))


def _print_announcement(announcement: Mapping[str, str]) -> None:
    print(json.dumps(announcement), file=sys.__stdout__, flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
