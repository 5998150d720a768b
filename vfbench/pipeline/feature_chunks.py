"""Chunks of a run: the features of the clips of each, and the clips themselves only where asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vfbench import video
from vfbench.errors import Incomplete
from vfbench.interfaces import Clips, Request
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.generate import NUM_PREVIEW, ChunkMaker
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_shapes, read_tensors, write_tensors


@dataclass(frozen=True)
class ChunkTiming:
    """Seconds that sampling a chunk took, and the most bytes that its process held by then."""

    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class FeatureChunks(ChunkMaker):
    """Maker of chunks of features: one safetensors file each, and a record of its timing."""

    collector: FeatureCollector

    def path(self, name: str) -> Path:
        """Path of a chunk."""
        return self.folder.chunks / f"{name}.safetensors"

    def check(self, name: str, *, content: bool) -> None:
        """Raise ValueError if a chunk is incomplete or of other requests; with `content`, also verify its hash."""
        if content:
            self.read(name)
        else:
            self._check_shapes(name, read_shapes(self.path(name), **self.identity(name)))
            self.timing(name)

    def read(self, name: str) -> dict[str, Tensor]:
        """Tensors of a chunk; raises ValueError where it is not the complete chunk of its requests."""
        tensors, _ = read_tensors(self.path(name), **self.identity(name))
        self._check_shapes(name, {key: list(tensor.shape) for key, tensor in tensors.items()})
        self.timing(name)
        return tensors

    def timing(self, name: str) -> ChunkTiming:
        """The timing of a chunk; raises ValueError where its record is missing or damaged."""
        record = self.read_record(self._record_path(name), name)
        return ChunkTiming(record["seconds"], record["peak_memory_bytes"])

    def make(self, name: str, progress: Progress) -> None:
        """Make a chunk and write it, unless another worker was faster: its chunk is the same."""
        part, rows, seconds = self.chunks[name], list[dict[str, Tensor]](), 0.0
        for batch, clips, spent in self.sampled(name, progress):
            seconds += spent
            rows.append({**self._features(batch, clips), "clips": clips})
        tensors = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        if self.is_complete(name):
            return
        if part[0].index == 0:  # before the chunk itself: a chunk on disk means that its samples are there
            captions = [request.prompt for request in part[:NUM_PREVIEW]]
            video.write_preview(self.folder.samples, tensors["clips"][:NUM_PREVIEW], captions)
            self.folder.publish(self.folder.samples)
        failed = {str(index): reason for index, reason in self.failed.items()}
        self.write_record(self._record_path(name), name, seconds, {"failed": failed} if failed else {})
        kept = {key: tensor for key, tensor in tensors.items() if key in self.collector.names}
        write_tensors(self.path(name), kept, **self.identity(name))
        self._publish(name)

    def _publish(self, name: str) -> None:
        """Put a chunk and its record into the object store; where another worker was faster, its record stays."""
        self.folder.publish(self._record_path(name), self.path(name), first=name not in self._damaged)

    def _features(self, batch: Sequence[Request], clips: Clips) -> dict[str, Tensor]:
        """Features of a batch by name; NaN for the clips that failed."""
        good = [row for row, request in enumerate(batch) if request.index not in self.failed]
        if len(good) == len(batch):
            return self.collector.features(clips[:, self.collector.frames], batch)
        values = {name: torch.full((len(batch), width), math.nan) for name, width in self.collector.widths.items()}
        if good:
            made = self.collector.features(clips[good][:, self.collector.frames], [batch[row] for row in good])
            for name, value in made.items():
                values[name][good] = value.to(values[name])
        return values

    def require_no_failure(self) -> None:
        """Raise `Incomplete` naming the clips that failed: a score of the others alone would flatter the model."""
        if self.folder.store:
            self.folder.store.fetch_folder(self.folder.timings.name)
        records = [self.read_record(self._record_path(name), name) for name in self.chunks]
        failed = {int(index): reason for record in records for index, reason in record.get("failed", {}).items()}
        if failed:
            numbers = ", ".join(map(str, sorted(failed)[:20])) + ", ..." * (len(failed) > 20)
            raise Incomplete(
                f"{len(failed)} of {len(self.requests)} clips failed, so that there is no score: {numbers} "
                f"({failed[min(failed)]}); try --dtype float32 or another checkpoint, with another --output"
            )

    def load(self) -> dict[str, Tensor]:
        """All features, in the order of the requests; a chunk that was damaged since is made again."""
        parts: list[dict[str, Tensor]] = []
        self.fetch(self.chunks.keys())
        for name in self.chunks:
            try:
                tensors = self.read(name)
            except ValueError:
                self.mend(name)
                tensors = self.read(name)
            if self.folder.store and not self.is_stored(name):  # its maker was lost before it could
                self._publish(name)
            parts.append({key: tensor for key, tensor in tensors.items() if key != "clips"})
        return {key: torch.cat([part[key] for part in parts]) for key in self.collector.names - {"clips"}}

    def _check_shapes(self, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
        count = len(self.chunks[name])
        if missing := sorted(self.collector.names - shapes.keys()):
            raise ValueError(f"it lacks {', '.join(missing)}")
        if any(list(shape[:1]) != [count] for shape in shapes.values()):
            raise ValueError(f"it does not hold {count} clips")

    def _record_path(self, name: str) -> Path:
        return self.folder.timings / f"{name}.json"
