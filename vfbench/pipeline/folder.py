"""The run folder: the files of a run, while it works and afterwards.

    run.json       options and machine; its `id` hashes everything that determines the numbers
    chunks/        one safetensors file per chunk of requests: features, and the clips when asked for
    timings/       seconds and peak memory of each chunk
    workers/       one file per process that works on the run, see `vfbench.pipeline.workers`; empty when it is done
    events/        one file per process: a line of JSON for each chunk made, each fault, each beginning and end
    profile/       with `--profile`, a trace of one batch of each process
    samples/       a few generated clips to look at, and in real/ a few real ones
    data.md        the real clips: copy of the dataset, counts, hashes
    manifest.csv   the real clips, one a line
    results.json   the scores
    tables/        the table of this run

Every file is written under a temporary name and renamed. A chunk records its run, its requests and a hash of its
content, so that a run killed at any moment resumes from the finished chunks. Any number of processes work on a run at
once; the one that begins it fixes its chunks, their batches and their threads, so that a chunk is the same bytes
whoever makes it.

A run folder at a URL holds the same files in an object store, see `vfbench.utils.store`: a process works in the copy in
its cache folder, and publishes each file when it is whole.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vfbench.errors import BadEnvironment, UserError
from vfbench.pipeline.chunk_layout import ChunkLayout
from vfbench.utils import checkpoint, files
from vfbench.utils.environment import Environment
from vfbench.utils.files import as_json, json_digest, read_json, write_error, write_first
from vfbench.utils.process_id import has_ended
from vfbench.utils.store import Store, local_path

_UNFINISHED = re.compile(r"\..+\.([0-9a-f]{8}\.\d+)\.tmp")  # see `vfbench.utils.files.temporary_path`
_UNFINISHED_SECONDS = 86_400.0  # age of an unfinished file of another machine that is taken for left behind
_RUN_FILES = ("results.json", "manifest.csv", "data.md")
_TRAINING_FILES = ("training.pt", checkpoint.TENSORS)
LISTED_SECONDS = 1.0  # between two looks at the chunks in an object store
RUNS = Path("runs")  # default parent folder of runs


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Content of `run.json`: everything that the numbers follow from, the options with their origins, the machine."""

    determines: Mapping[str, object]
    options: Mapping[str, Mapping[str, str]]
    environment: Environment
    layout: ChunkLayout | None = None  # None for a score, which has no chunks

    @cached_property
    def id(self) -> str:
        """SHA-256 of `determines`: the id of the run."""
        return json_digest(self.determines)

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values."""
        layout = {} if self.layout is None else {"layout": asdict(self.layout)}
        rest = {"options": self.options, "environment": self.environment.model_dump()}
        return {"id": self.id, "determines": self.determines, **layout, **rest}


class RunFolder:
    """The folder of one run, which any number of processes share; `store` where its files are in an object store."""

    def __init__(self, path: Path, run_id: str, store: Store | None = None) -> None:
        self.path, self.run_id, self.store = path, run_id, store
        self._listed, self._stored = -LISTED_SECONDS, frozenset[str]()
        self.chunks, self.timings, self.workers = path / "chunks", path / "timings", path / "workers"
        self.samples, self.tables = path / "samples", path / "tables"
        self.results, self.manifest, self.card = path / "results.json", path / "manifest.csv", path / "data.md"

    @classmethod
    def join(cls, path: Path, specification: Specification) -> RunFolder:
        """Make the folder of a run, a path or a URL, or join those that work in it.

        Raises `BadEnvironment` where it cannot be written, and `UserError` where it holds another run, a checkpoint, or
        files that the run would overwrite. Other files are left alone.
        """
        folder = cls(local_path(path), specification.id, Store.of(path))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadEnvironment(f"cannot write to {path} ({error.strerror}): choose another --output") from error
        if folder.store:
            folder._sync_run_file(folder.store, as_json(specification.to_json()))
        folder._claim(specification)
        folder._tidy()
        return folder

    def _claim(self, specification: Specification) -> None:
        file = self.path / "run.json"
        if not file.exists():
            self._require_unused({path.name for path in self.path.iterdir()})
            write_first(file, as_json(specification.to_json()))
        present = read_json(file)
        if present.get("id") != specification.id:
            changed = _difference(present.get("determines", {}), specification.determines)
            raise UserError(f"{self.name} holds another run ({changed}): choose another --output, or remove the folder")

    def _sync_run_file(self, store: Store, text: str) -> None:
        """Download `run.json` from the store, or upload `text` if it has none; clear a local copy of another run."""
        file = self.path / "run.json"
        with files.one_at_a_time(self.path):
            before = file.read_bytes() if file.exists() else b""
            if not store.fetch("run.json"):
                self._require_unused(store.entries())
                files.write_text(file, text)
                store.publish(file, first=True)
            if before != file.read_bytes():
                for path in self.path.iterdir():
                    if path.name not in ("run.json", ".lock"):
                        _remove(path)

    def _require_unused(self, names: Collection[str]) -> None:
        """Raise `UserError` where a folder without `run.json` has files with these names that are not to be lost."""
        if other := next((name for name in _TRAINING_FILES if name in names), None):
            raise UserError(f"{self.name} holds a {other}, so it is a checkpoint: choose another --output")
        if other := next((name for name in _RUN_FILES if name in names), None):
            raise UserError(f"{self.name} holds a {other}, which is not overwritten: choose another --output")

    @property
    def name(self) -> str:
        """URL or path of the folder."""
        return self.store.url if self.store else str(self.path)

    def stored_chunks(self) -> Collection[str]:
        """Names of the chunks in the object store, as they were within the last second."""
        if self.store and time.monotonic() - self._listed >= LISTED_SECONDS:
            self._listed, self._stored = time.monotonic(), frozenset(self.store.entries(self.chunks.name))
        return self._stored

    def publish(self, *paths: Path, first: bool = False) -> None:
        """Put files into the object store, where there is one; with `first`, a file that is there stays."""
        if self.store:
            self.store.publish(*paths, first=first)

    def fetch(self, *paths: Path) -> None:
        """Fetch files from the object store, where there is one."""
        if self.store:
            self.store.fetch(*(path.relative_to(self.path).as_posix() for path in paths))

    def _tidy(self) -> None:
        """Make the subfolders, and remove unfinished files of killed processes."""
        parts = (self.chunks, self.timings, self.workers, self.samples, self.samples / "real", self.tables)
        for part in (self.path, *parts):
            try:
                part.mkdir(exist_ok=True)
                for file in part.glob(".*"):
                    if (unfinished := _UNFINISHED.fullmatch(file.name)) and _left_behind(file, unfinished[1]):
                        _remove(file)
            except OSError as error:
                raise write_error(part, error) from error

    @cached_property
    def layout(self) -> ChunkLayout:
        """Chunks, batches and threads, as the process that began the run has fixed them."""
        return ChunkLayout.read(self.path / "run.json")


def _remove(path: Path) -> None:
    """Remove a file or a folder, which another process may remove at the same time."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _left_behind(file: Path, process: str) -> bool:
    """True for an unfinished file whose process has ended, or of another machine and a day old."""
    with contextlib.suppress(FileNotFoundError):  # finished just now
        return has_ended(process) or time.time() - file.stat().st_mtime > _UNFINISHED_SECONDS
    return False


def _difference(present: object, asked: object) -> str:
    """The first difference of two specifications, the user's choices before the version of the code."""
    if not isinstance(present, Mapping) or not isinstance(asked, Mapping):
        return f"{_short(present)} there, {_short(asked)} asked for"
    for key in sorted((present.keys() | asked.keys()) - {"id"}, key=lambda key: (key == "code", key)):
        if present.get(key) != asked.get(key):
            return f"{key}: {_difference(present.get(key), asked.get(key))}"
    return "an older version of this run"


def _short(value: object) -> str:
    """A value for a message, a hash by its first digits."""
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text
