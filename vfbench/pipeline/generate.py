"""Sampler + requests -> clips, chunk by chunk, resumable, timed, and shared by any number of workers.

A chunk holds the features of its clips (`feature_chunks`) or the clips as files (`clip_chunks`). Where memory is short,
fewer clips are made or scored at once. That changes a clip by rounding alone: at another batch size a network adds its
numbers in another order, so rare values differ by one level of 255, and more of them in bfloat16.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from vfbench.errors import MissingData
from vfbench.interfaces import ChoosesPrecision, Clips, Request, Sampler
from vfbench.pipeline.cost import on_network_call, peak_memory
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.profiling import traced
from vfbench.pipeline.sample import NotFinite, clip_numbers, sample
from vfbench.pipeline.workers import Worker
from vfbench.utils import console, files
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.process_id import process_id
from vfbench.utils.progress import Progress

NUM_PREVIEW = 8  # clips to look at


@dataclass(frozen=True)
class ChunkMaker(ABC):
    """All that makes the chunks of a run: its folder and requests, the sampler, and this process.

    `calls_per_clip` counts the network calls of a clip: the progress moves with each. None where it is not known.
    """

    folder: RunFolder
    sampler: Sampler
    requests: Sequence[Request]
    device: torch.device
    calls_per_clip: int | None
    worker: Worker
    profiled_batch: int | None = None  # number of the batch of this process, from 0, of which a trace is written
    _damaged: dict[str, int] = field(default_factory=dict, init=False)  # when each damaged chunk was written
    _batch_numbers: Iterator[int] = field(default_factory=itertools.count, init=False)
    failed: dict[int, str] = field(default_factory=dict, init=False)  # clips of the chunk being made, with the reason

    @cached_property
    def chunks(self) -> dict[str, Sequence[Request]]:
        """Requests of each chunk by its name."""
        size = self.folder.layout.chunk_size
        starts = range(0, len(self.requests), size)
        return {f"{number:06d}": self.requests[start : start + size] for number, start in enumerate(starts)}

    @cached_property
    def own(self) -> set[str]:
        """Names of the chunks in this process's part of the list."""
        names = list(self.chunks)
        return {names[number] for number in self.worker.rank.block(len(names))}

    @cached_property
    def batches(self) -> AdaptiveBatches:
        """Batches of the run; smaller ones where memory is short."""
        return AdaptiveBatches(self.folder.layout.batch_size)

    @abstractmethod
    def path(self, name: str) -> Path:
        """Path of a chunk."""

    @abstractmethod
    def check(self, name: str, *, content: bool) -> None:
        """Raise ValueError if a chunk is incomplete or of other requests; with `content`, also verify its hash."""

    @abstractmethod
    def make(self, name: str, progress: Progress) -> None:
        """Make a chunk and write it, unless another worker was faster: its chunk is the same."""

    def is_stored(self, name: str) -> bool:
        """True where the chunk is in the object store of the run."""
        return self.path(name).name in self.folder.stored_chunks()

    def fetch(self, names: Collection[str]) -> None:
        """Fetch chunks and their records from the object store of the run, where there is one."""
        if store := self.folder.store:
            for part in (self.folder.timings, self.folder.chunks):
                store.fetch_folder(part.name, lambda file: file.partition(".")[0] in names)

    def is_complete(self, name: str) -> bool:
        """True where the chunk exists; verifies its hash in this process's part of the list, else checks it briefly.

        Prints a warning for a damaged chunk, which is then made again.
        """
        path = self.path(name)
        if not path.exists() and self.is_stored(name):
            if name not in self.own:
                return True  # its content is checked when it is read
            self.fetch([name])
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            return False
        if self._damaged.get(name) == written:
            return False
        try:
            self.check(name, content=name in self.own)
        except ValueError as error:
            self._damaged[name] = written
            console.warn(f"{path} cannot be used: {error}; making it again")
            self.worker.record("damaged", item=name, error=str(error))
            return False
        return True

    def mend(self, name: str) -> None:
        """Make a chunk again whose content has changed since it was checked."""
        self.own.add(name)  # so that its content is hashed
        if not self.is_complete(name):
            with Progress("generate", len(self.chunks[name]), "clips") as progress:
                self.make(name, progress)

    def sampled(self, name: str, progress: Progress) -> Iterator[tuple[Sequence[Request], Clips, float]]:
        """Batches of a chunk: requests, clips, and the seconds that they took.

        The clips that are NaN in float32 as well are black, and named in `failed`.
        """
        self.failed.clear()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        timed = partial(self._sample_timed, progress)
        for batch, (clips, seconds) in self.batches.each(list(self.chunks[name]), timed, clip_numbers):
            yield batch, clips, seconds
            progress.advance(len(batch))

    def _sample_timed(self, progress: Progress, batch: Sequence[Request]) -> tuple[Clips, float]:
        """Clips of a batch and the seconds they took; writes a trace where this batch is to be profiled."""
        path = self.folder.path / "profile" / f"{process_id()}.json.gz"
        is_profiled = next(self._batch_numbers) == self.profiled_batch
        try:
            with traced(path, self.device) if is_profiled else nullcontext():
                return sample_timed(self.sampler, progress, self.calls_per_clip, batch)
        except NotFinite as error:
            console.warn(f"{error}; making each of them again in float32")
            self.worker.record("not finite", error=str(error))
            return self._sample_again(batch)

    def _sample_again(self, batch: Sequence[Request]) -> tuple[Clips, float]:
        """Clips of a batch, each made alone in float32, and the seconds they took; fills `failed`."""
        sampler = self.sampler.in_float32() if isinstance(self.sampler, ChoosesPrecision) else self.sampler
        shape, clips, began = self.sampler.shape, list[Clips](), time.monotonic()
        for request in batch:
            try:
                clips.append(sample(sampler, [request]))
            except NotFinite as error:
                console.warn(f"{error}, in float32 as well: it counts as failed")
                self.worker.record("clip failed", clip=request.index, error=str(error))
                self.failed[request.index] = str(error)
                clips.append(torch.zeros(1, shape.frames, 3, shape.height, shape.width, dtype=torch.uint8))
        return torch.cat(clips), time.monotonic() - began

    def identity(self, name: str) -> dict[str, str]:
        """Metadata that identify a chunk among all chunks of all runs."""
        part = self.chunks[name]
        return {"run": self.folder.run_id, "requests": f"{part[0].index}-{part[-1].index}"}

    def write_record(self, path: Path, name: str, seconds: float, more: Mapping[str, Any]) -> None:
        """Write the record of a chunk: its seconds, the most memory that its process held by then, and `more`."""
        timing = {"seconds": round(seconds, 3), "peak_memory_bytes": peak_memory(self.device), "worker": process_id()}
        record = {**self.identity(name), **timing, **more}
        files.write_json(path, {**record, "sha256": files.json_digest(record)})

    def read_record(self, path: Path, name: str) -> dict[str, Any]:
        """The record of a chunk; raises ValueError where it is missing, damaged or of another chunk."""
        try:
            record = files.read_json(path)
        except MissingData as error:
            raise ValueError(f"its record is lost ({error})") from error
        if record.pop("sha256", None) != files.json_digest(record):
            raise ValueError(f"{path} does not match its hash")
        for key, value in self.identity(name).items():
            if record.get(key) != value:
                raise ValueError(f"{path} belongs to {key} {record.get(key)}, not {value}")
        return record


def generate(maker: ChunkMaker) -> None:
    """Make the chunks that are not complete on disk, with the other workers of the run; returns when all are there."""
    chunks, worker, others, started = maker.chunks, maker.worker, 0, time.monotonic()
    maker.fetch(maker.own)
    missing = [name for name in chunks if not maker.is_complete(name)]
    done = len(maker.requests) - sum(len(chunks[name]) for name in missing)
    if done:
        console.info(f"resumed: {done} of {len(maker.requests)} clips are already there")

    def beat() -> None:
        worker.beat(progress.done - done - others + progress.partial, time.monotonic() - started)

    def is_done(name: str) -> bool:
        nonlocal others
        if not maker.is_complete(name):
            return False
        others += len(chunks[name])
        progress.advance(len(chunks[name]))
        return True

    with Progress("generate", len(maker.requests), "clips", done=done, on_move=beat) as progress:
        for name in worker.share(missing, is_done):
            maker.make(name, progress)


def sample_timed(
    sampler: Sampler, progress: Progress, calls_per_clip: int | None, batch: Sequence[Request]
) -> tuple[Clips, float]:
    """Clips of a batch and the seconds they took; the progress moves with each call of a network.

    Where the number of calls per clip is not known, the progress counts the calls of this batch.
    """
    rows = calls = 0

    def show_call(_: str, count: int) -> None:
        nonlocal rows, calls
        rows, calls = rows + count, calls + 1
        if calls_per_clip is None:
            progress.partly(0.0, f"network call {calls}")
        else:
            progress.partly(min(rows / max(calls_per_clip, 1), len(batch)))

    began = time.monotonic()
    with on_network_call(sampler, show_call):
        clips = sample(sampler, batch)
    return clips, time.monotonic() - began
