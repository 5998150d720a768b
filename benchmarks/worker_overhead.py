"""Seconds that sharing costs a worker per chunk, beside 0 to 999 others: python benchmarks/worker_overhead.py

One worker takes its chunks from a run folder in which the others show signs of life; making a chunk is left out. Prints
the seconds and the file operations of a chunk, and those of looking at a chunk that is already there, which each worker
does once for every chunk of the run. On a shared file system, multiply the operations by its latency.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _measure import make_parser

from vfbench.pipeline.workers import Rank, Worker

OPERATIONS = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir")
OTHER_MACHINE = "00000000"


def main() -> None:
    parser = make_parser(__doc__, chunks=300)
    chunks = parser.parse_args().chunks
    counted: Counter[str] = Counter()
    sys.addaudithook(lambda event, _: counted.update([event] * (event in OPERATIONS)))
    rows = []
    for workers in (1, 10, 100, 1000):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent)
            _others(folder / "workers", workers - 1)
            counted.clear()
            made, seconds = _work(folder, [f"{number:06d}" for number in range(chunks)])
            operations = sum(counted.values()) / made
            _, again = _work(folder, [f"{number:06d}" for number in range(chunks)])
        rows.append(
            {
                "workers": workers,
                "ms per chunk made": round(1e3 * seconds / made, 2),
                "file operations": round(operations, 1),
                "ms per chunk there": round(1e3 * again / chunks, 4),
            }
        )
    for row in rows:
        print(row)


def _others(folder: Path, count: int) -> None:
    """Files of other workers, each at a chunk of its own."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{10**6 + number}.{OTHER_MACHINE}.{number}.json").write_text("{}")


def _work(folder: Path, names: list[str]) -> tuple[int, float]:
    """Number of chunks made, and the seconds of the whole loop."""
    worker, made = Worker(folder, Rank()), 0
    (folder / "chunks").mkdir(exist_ok=True)
    begun = time.perf_counter()
    with worker.working():
        for name in worker.share(names, lambda name: (folder / "chunks" / name).exists()):
            (folder / "chunks" / name).touch()
            worker.beat(made)
            made += 1
    return made, time.perf_counter() - begun


if __name__ == "__main__":
    main()
