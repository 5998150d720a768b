"""Processes that share the work of a run folder, and the file by which each tells the others what it makes.

A worker begins at its own place in the list of chunks, skips chunks that are there and those that another worker makes,
and goes on until all are there. Workers know of each other by one file in `workers/`:

    000003.3f2a90c1.4711.json     process 4711 of machine 3f2a90c1 makes chunk 3; written anew as the work moves on

A worker counts as lost when its file is unchanged for `patience` seconds or its process has ended. Another worker then
makes its chunk. These files only avoid duplicate work: two workers that make one chunk write the same bytes. In an
object store, a worker sees only the names and modification times of the files of other machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vfbench.errors import BadEnvironment, UserError
from vfbench.utils import console, process_id
from vfbench.utils.files import atomic_path
from vfbench.utils.store import Store, url_of

BEAT_SECONDS = 5.0  # between two writings of a worker's file
STORE_BEAT_SECONDS = 15.0  # the same in an object store, where each is paid for
EVENTS_SECONDS = 60.0  # between two writings of the events to an object store
POLL_SECONDS = 1.0  # between two looks at what others make
PATIENCE = 60.0  # seconds without a sign of life, at least, before another makes a worker's chunk
IDLE, FAILED = "idle", "failed"  # in place of a chunk
SLURM_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
FILE = re.compile(r"(?P<item>[\w-]+)\.(?P<process>[0-9a-f]{8}\.\d+)\.json")


@dataclass(frozen=True)
class Rank:
    """Number of this process among those started together, from 0, and how many they are: its place in the list."""

    number: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None) -> Rank:
        """Rank by `RANK` and `WORLD_SIZE`, as torchrun sets them, and by the variables of a Slurm array.

        With both, each task of the array stands for `WORLD_SIZE` processes. Raises `UserError` for values that do not
        fit together.
        """
        found = os.environ if variables is None else variables
        number, count = 0, 1
        for name, of, first, step in (
            SLURM_ARRAY,
            ("RANK", "WORLD_SIZE", "", ""),
        ):
            if name not in found and of not in found:
                continue
            size, start, stride = _number(found, of, 1, of=name), 0, 1
            if first in found:
                start, stride = _number(found, first, 0), _number(found, step, 1) if step in found else 1
            own = (_number(found, name, start, of=of) - start) // stride
            if own >= size and not first:
                raise UserError(f"{name}={own} and {of}={size}: ranks count from 0, so the last is {size - 1}")
            number, count = number * size + own % size, count * size
        return cls(number, count)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that give this rank to a process."""
        return {"RANK": str(self.number), "WORLD_SIZE": str(self.count)}

    def block(self, length: int) -> range:
        """Indices of this process's part of a list."""
        return range(self.number * length // self.count, (self.number + 1) * length // self.count)


def _number(variables: Mapping[str, str], name: str, least: int, of: str = "") -> int:
    """Value of an environment variable; raises `UserError` where it is missing or no whole number from `least` on."""
    text = variables.get(name)
    if text is None:
        raise UserError(f"{of} is set and {name} is not: set both, as torchrun and Slurm do, or unset {of}")
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
        raise UserError(f"environment variable {name}={text}: must be a whole number from {least} on")
    return int(text)


class Worker:
    """This process as one of those that share the work of a run folder; `folder` is the copy of that in a `store`."""

    def __init__(self, folder: Path, rank: Rank, patience: float = PATIENCE, store: Store | None = None) -> None:
        self.folder, self.rank, self.patience, self.store = folder / "workers", rank, patience, store
        self._looked, self._told = -POLL_SECONDS, -EVENTS_SECONDS  # when the store was polled, and sent events
        self._item, self._clips, self._seconds = IDLE, 0.0, 0.0  # clips made, and the seconds that they took
        self._clips_before = 0.0  # clips made here before the current item
        self._written = -BEAT_SECONDS
        self._seen: dict[tuple[str, int], float] = {}  # when each state of another's file was first seen

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Context manager: tell the others that this process works; an error stays in its file, to be reported."""
        self._write()
        self.record("begin")
        try:
            yield
        except Exception as error:
            self._rename(FAILED)
            line = str(error).splitlines()[0][:500] if str(error) else type(error).__name__
            self._write(error=line)
            self.record("failed", error=line)
            raise
        except BaseException:  # Ctrl-C
            self.record("stopped")
            self._remove(self._path(self._item))
            raise
        self.record("end")
        self._remove(self._path(self._item))

    def record(self, event: str, **fields: object) -> None:
        """Append an event to this process's file in `events/`, one JSON object a line; dropped on a full disk."""
        folder = self.folder.with_name("events")
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment, "event": event, "rank": self.rank.number, "of": self.rank.count, **fields}
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            with (folder / f"{process_id.process_id()}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**entry, "host": platform.node()}) + "\n")
        if self.store and (event != "made" or time.monotonic() - self._told >= EVENTS_SECONDS):
            self._told = time.monotonic()
            self._publish(folder / f"{process_id.process_id()}.jsonl")

    def share(self, items: Sequence[str], is_done: Callable[[str], bool]) -> Iterator[str]:
        """Iterate over the items to make here: neither done nor being made by another; ends when all are done.

        `items` are names of letters, digits, `_` and `-`. Waits for those that others make, and takes over those of a
        worker that ended or shows no sign of life.
        """
        first = self.rank.block(len(items)).start
        missing = [*items[first:], *items[:first]]
        self._look()
        for file, _, process in entries(self.folder):
            self._lives(file, process)  # from now on its silence counts
        while missing:
            left: list[str] = []
            for item in missing:
                if is_done(item):
                    continue
                if self._is_taken(item):
                    left.append(item)
                    continue
                self._rename(item)
                start = time.monotonic()
                yield item
                self.record("made", item=item, seconds=round(time.monotonic() - start, 3))
                self._rename(IDLE)
            missing = left
            if missing:
                self.beat()
                time.sleep(POLL_SECONDS)

    def beat(self, clips: float = 0.0, seconds: float = 0.0) -> None:
        """Show a sign of life, with the clips made here so far and the seconds that they took; 0 keeps the last."""
        self._clips, self._seconds = clips or self._clips, seconds or self._seconds
        if time.monotonic() - self._written >= (STORE_BEAT_SECONDS if self.store else BEAT_SECONDS):
            self._write()

    def clear(self) -> None:
        """Remove the files of workers that failed, ended or show no sign of life: the run is done without them."""
        for file, item, process in entries(self.folder):
            if process != process_id.process_id() and (item == FAILED or not self._lives(file, process)):
                self._remove(file)

    def _is_taken(self, item: str) -> bool:
        """True where another worker makes the item and shows signs of life."""
        self._look()
        for file, _, process in entries(self.folder, item):
            if process == process_id.process_id():
                continue
            if self._lives(file, process):
                return True
            self._take_over(file, item, process)
        return False

    def _take_over(self, file: Path, item: str, process: str) -> None:
        """Take over the item of a lost worker: warn, and replace its file by a record of the failure."""
        ended = process_id.has_ended(process)
        error = "ended without a word" if ended else f"showed no sign of life for {self.patience:.0f} s"
        if self.store:
            with contextlib.suppress(BadEnvironment):
                self.store.fetch(f"{self.folder.name}/{file.name}")
        rank = read_entry(file).get("rank", "?")
        console.warn(f"worker {rank} ({process}) {error}: making its {item} here")
        self.record("takes over", item=item, from_process=process, error=error)
        release(file, f"{error}, at {item}", self.store)

    def _look(self) -> None:
        """Take over names and times of the files of workers elsewhere from the store, at most once in a while."""
        if self.store and time.monotonic() - self._looked >= POLL_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(BadEnvironment, OSError):
                self.store.mirror_names(self.folder.name, is_own)

    def _publish(self, file: Path) -> None:
        """Put a file into the store; what others only look at may be missing there."""
        if self.store:
            with contextlib.suppress(BadEnvironment, OSError):
                self.store.publish(file)

    def _remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        if self.store:
            with contextlib.suppress(BadEnvironment):
                self.store.remove(f"{self.folder.name}/{file.name}")

    def _lives(self, file: Path, process: str) -> bool:
        """True where the process is not known to have ended, and its file has changed within this one's patience.

        Time is measured here, from when this process first saw a state of the file: clocks of machines differ.
        """
        if process_id.has_ended(process):
            return False
        try:
            state = (file.name, file.stat().st_mtime_ns)
        except OSError:  # renamed: it makes something else by now
            return False
        now = time.monotonic()
        return now - self._seen.setdefault(state, now) < self.patience

    def _path(self, item: str) -> Path:
        return self.folder / f"{item}.{process_id.process_id()}.json"

    def _rename(self, item: str) -> None:
        before = self._path(self._item)
        with contextlib.suppress(OSError):  # others may make the item as well
            before.replace(self._path(item))
        self._item, self._clips_before = item, self._clips
        self._write()
        if self.store and before != self._path(item):
            self._remove(before)

    def _write(self, **more: str) -> None:
        """Write this worker's file; work goes on where it cannot be written, as on a full disk."""
        self._written = time.monotonic()
        content = {
            **{"rank": self.rank.number, "of": self.rank.count, "host": platform.node(), "process": os.getpid()},
            **{"clips": round(self._clips, 2), "under_way": round(self._clips - self._clips_before, 2)},
            **{"seconds": round(self._seconds, 2), "patience": self.patience, **more},
        }
        with contextlib.suppress(BadEnvironment), atomic_path(self._path(self._item)) as file:
            file.write_text(json.dumps(content), encoding="utf-8")
        self._publish(self._path(self._item))


def is_own(name: str) -> bool:
    """True for the file of a process that runs on this machine."""
    parts = FILE.fullmatch(name)
    if not parts or parts["process"].partition(".")[0] != process_id.machine_id():
        return False
    return not process_id.has_ended(parts["process"])


def entries(folder: Path, item: str = "") -> Iterable[tuple[Path, str, str]]:
    """Path, item and process of each worker's file, or of those that make one item."""
    start = f"{item}." if item else ""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # names alone
    except OSError:
        return
    for name in names:
        if name.startswith(start) and (parts := FILE.fullmatch(name)):
            yield folder / name, parts["item"], parts["process"]


def release(file: Path, error: str, store: Store | None = None) -> None:
    """Release the item of a lost worker to the others: replace its file by a record with this error."""
    process = file.name.split(".", 1)[1]
    record = file.with_name(f"{FAILED}.{process}")
    with contextlib.suppress(BadEnvironment, OSError):
        with atomic_path(record) as failed:
            failed.write_text(json.dumps({**read_entry(file), "error": error}), encoding="utf-8")
        file.unlink(missing_ok=True)
        if store:
            store.publish(record)
            store.remove(f"{file.parent.name}/{file.name}")


def release_process(folder: Path, process: str) -> None:
    """Release the items of a lost process to other workers; `folder` is the run folder or its URL."""
    url = url_of(folder)
    with contextlib.suppress(BadEnvironment), Store.aside(url) if url else contextlib.nullcontext() as store:
        if store:
            store.fetch_folder("workers")
        for file, item, name in entries((store.copy if store else folder) / "workers"):
            if name == process and item != FAILED:
                release(file, f"was lost with its process or its node, at {item}", store)


def read_entry(file: Path) -> dict[str, Any]:
    """Content of a worker's file; empty where it is gone or damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
