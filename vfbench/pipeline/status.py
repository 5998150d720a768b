"""State of a run, read from its folder alone: no work is disturbed, and torch is not imported."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vfbench.errors import MissingData
from vfbench.pipeline import workers
from vfbench.pipeline.chunk_layout import ChunkLayout
from vfbench.utils.files import beside, read_json
from vfbench.utils.process_id import has_ended
from vfbench.utils.progress import format_duration, format_rate
from vfbench.utils.store import Store, url_of
from vfbench.utils.text import count

SEEN_SECONDS = 60.0  # a worker whose file is older counts as gone, unless its own patience is longer
LARGEST = 1e15  # of a number in a worker's file; a larger one is damage


@dataclass(frozen=True)
class WorkerState:
    """A worker by its file: where it runs, what it makes, the clips that it made and the seconds that they took.

    `under_way` counts the clips of an unfinished chunk among them.
    """

    rank: int
    of: int
    host: str
    process: int
    making: str
    clips: float
    under_way: float
    seconds: float
    seen_seconds_ago: float
    patience: float = 0.0  # seconds of silence after which the others count it as lost
    error: str = ""

    def describe(self) -> str:
        """One line: rank, place and work."""
        name = f"worker {self.rank} of {self.of} ({self.host}, process {self.process})"
        if self.error:
            return f"{name}: {self.error}"
        ago = max(self.seen_seconds_ago, 0.0)
        return f"{name}: {self.making}, {self.clips:.0f} clips made, seen {format_duration(ago)} ago"


@dataclass(frozen=True)
class RunStatus:
    """State of a run: clips and chunks done, clips a second of all workers, those at work and those that failed."""

    folder: str
    model: str
    state: Literal["finished", "running", "stopped"]
    clips: int
    clips_done: int
    clips_under_way: float
    chunks: int
    chunks_done: int
    clips_per_second: float
    seconds_left: float | None
    workers: tuple[WorkerState, ...]
    failures: tuple[WorkerState, ...]

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """The state as lines to read."""
        left = f", {format_duration(self.seconds_left)} left" if self.seconds_left else ""
        rate = f", {format_rate(self.clips_per_second)} clips/s{left}" if self.clips_per_second else ""
        seen = f"{count(len(self.workers), 'worker')} at work"
        lines = [
            ("run", f"{self.folder} ({self.state})"),
            ("model", self.model),
            (
                "done",
                f"{self.clips_done:,} of {self.clips:,} clips, {self.chunks_done:,} of {self.chunks:,} chunks{rate}",
            ),
            ("workers", seen if self.state != "finished" or self.workers else "none: the result is there"),
            *(("", each.describe()) for each in self.workers),
            *(("failed", each.describe()) for each in self.failures),
        ]
        return "\n".join(f"{name:<9} {line}" for name, line in lines)


def read(folder: Path) -> RunStatus:
    """State of the run in a folder or at a URL; raises `MissingData` where there is none."""
    if url := url_of(folder):
        with Store.aside(url) as store:
            if not store.fetch("run.json"):
                raise MissingData(f"{url} holds no run: give the folder that `run` named")
            store.fetch_folder("workers")
            return _read(store.copy, url, store.entries("chunks"), has_result="results.json" in store.entries())
    partial = beside(folder, "partial")  # of `generate`, until all clips are there
    folder = partial if not (folder / "run.json").exists() and partial.exists() else folder
    file = folder / "run.json"
    if not file.exists():
        if (folder / "generate.json").exists():
            return _generated(folder)
        raise MissingData(f"{folder} holds no run: give the folder that `run` or `generate` named")
    return _read(folder, str(folder), _names(folder / "chunks"), has_result=(folder / "results.json").exists())


def _read(folder: Path, name: str, chunks: Iterable[str], *, has_result: bool) -> RunStatus:
    """State of a run by the names of its chunks; `name` is that of the folder for the reader."""
    file = folder / "run.json"
    layout, determines = ChunkLayout.read(file), read_json(file).get("determines", {})
    sizes = layout.sizes
    done = [number for number in _chunk_numbers(chunks) if number < len(sizes)]
    living, failures = _workers(folder)
    clips_done = sum(sizes[number] for number in done)
    rate = sum((each.clips / each.seconds for each in living if each.seconds > 0), 0.0)
    left = layout.requests - clips_done
    finished = not left and has_result
    return RunStatus(
        folder=name,
        model=str(determines.get("model", "?")),
        state="finished" if finished else "running" if living else "stopped",
        clips=layout.requests,
        clips_done=clips_done,
        clips_under_way=sum((each.under_way for each in living), 0.0),
        chunks=len(sizes),
        chunks_done=len(done),
        clips_per_second=round(rate, 6),
        seconds_left=round(left / rate, 1) if rate else None,
        workers=tuple(living),
        failures=tuple(failures),
    )


def _generated(folder: Path) -> RunStatus:
    """State of clips that `generate` has written, all of them."""
    content = read_json(folder / "generate.json")
    count = len(content.get("clips", []))
    model = str(content.get("model", "?"))
    return RunStatus(str(folder), model, "finished", count, count, 0.0, 0, 0, 0.0, None, (), ())


def _names(folder: Path) -> list[str]:
    """Names in a folder; none where it does not exist."""
    try:
        return os.listdir(folder)  # noqa: PTH208  # names alone
    except OSError:
        return []


def _chunk_numbers(names: Iterable[str]) -> Iterator[int]:
    """Numbers of the chunks of these names."""
    for name in names:
        stem = name.partition(".")[0]
        if len(stem) >= 6 and stem.isdecimal():
            yield int(stem)


def _workers(folder: Path) -> tuple[list[WorkerState], list[WorkerState]]:
    """Workers that were seen of late, and those that failed or ended in the middle of their work."""
    living, failures = list[WorkerState](), list[WorkerState]()
    for file, item, process in workers.entries(folder / "workers"):
        try:
            age = time.time() - file.stat().st_mtime
        except OSError:  # it has just ended, or makes another chunk
            continue
        state = _worker(workers.read_entry(file), item, age)
        if item == workers.FAILED:
            failures.append(state)
        elif has_ended(process):
            failures.append(replace(state, error=f"ended without a word, at {item}"))
        elif age > max(SEEN_SECONDS, state.patience):
            failures.append(replace(state, error=f"no sign of life for {format_duration(age)}, at {item}"))
        else:
            living.append(state)
    return living, failures


def _worker(content: Mapping[str, Any], item: str, age: float) -> WorkerState:
    """State of a worker by its file, which may be damaged."""

    def number(name: str) -> float:
        value = content.get(name)
        return float(value) if isinstance(value, int | float) and abs(value) < LARGEST else 0.0

    return WorkerState(
        rank=int(number("rank")),
        of=int(number("of")),
        host=str(content.get("host", "?")),
        process=int(number("process")),
        making=item,
        clips=number("clips"),
        under_way=number("under_way"),
        seconds=number("seconds"),
        seen_seconds_ago=round(age, 1),
        patience=number("patience"),
        error=str(content.get("error", "")),
    )
