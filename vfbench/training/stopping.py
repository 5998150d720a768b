"""Stopping between two steps, and the command that goes on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C and SIGTERM, as schedulers send it, set a flag instead of breaking a step in two."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resuming(processes: int) -> str:
    """The command that takes up what this process does, with as many processes on this machine."""
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    here = os.environ.get("LOCAL_WORLD_SIZE", str(processes))
    start = ["torchrun", "--nproc-per-node", here] if processes > 1 else ["python"]
    return shlex.join([*start, "-m", "vfbench", *arguments, "--resume"])
