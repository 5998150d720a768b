"""Commands as subprocesses that a test waits for, interrupts or kills."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import file_contents, python, results, without_timings

# `python -m vfbench` that reacts to SIGINT: children of a background shell ignore it by default.
START = """
import signal
from vfbench.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(python("-m", "vfbench", *arguments), capture_output=True, text=True, check=False)


@contextmanager
def start_command(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Context manager: start the command as a subprocess, kill it at the end."""
    process = subprocess.Popen(
        python("-c", START, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, "the command ended before the interruption"
        time.sleep(0.01)


def run_of_three_chunks(checkpoints: Path, folder: Path) -> list[str]:
    """Arguments of a run of 96 clips in 3 chunks."""
    model = ("--model", "videofusion", "--checkpoint", checkpoints / "videofusion", "--device", "cpu", "--smoke")
    return [*map(str, ("run", *model, "-n", 96, "--steps", 2, "--batch-size", 8, "--output", folder))]


def require_same(folder: Path, alone: Path, *, killed_at_the_end: bool = False) -> None:
    """Fail unless scores are equal to the last digit, and all chunks and samples to the last byte.

    A worker that the run did not wait for is killed at its end, and may leave the file that says what it did.
    """
    assert without_timings(results(folder)) == without_timings(results(alone))
    for part in ("chunks", "samples"):
        assert file_contents(folder / part) == file_contents(alone / part)
    assert killed_at_the_end or not list((folder / "workers").iterdir())
    assert {path.name for path in folder.rglob(".*")} <= {".lock"}  # no half-written files


def tasks(count: int) -> list[dict[str, str]]:
    """Variables of the tasks of a Slurm array."""
    found = [{"SLURM_ARRAY_TASK_ID": str(number)} for number in range(1, count + 1)]
    rest = {"SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "1"}
    return [{**each, **rest} for each in found]
