"""Sampler + requests -> clips -> features, chunk by chunk, resumable and timed.

A clip needs no disk: its features are taken in the pass that makes it. Clips are kept when asked for, lossless.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vfbench import video
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Dataset, Extractor, Request, Sampler, Split, derive_seed
from vfbench.progress import Progress
from vfbench.store import RunFolder, read_tensors, write_tensors

SHOWN = 8  # clips in samples/


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of each clip: outputs of extractors, and the clip itself."""

    extractors: Mapping[str, Extractor]
    outputs: Mapping[str, Sequence[str]]
    clips: bool = False

    def features(self, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """All asked outputs as `extractor.output`, each from one pass of its network."""
        found = {}
        for name, extractor in self.extractors.items():
            for output, value in extractor(clips, requests, self.outputs[name]).items():
                found[f"{name}.{output}"] = value
        return found

    @property
    def names(self) -> set[str]:
        """The tensors a chunk must hold."""
        features = {f"{name}.{output}" for name, outputs in self.outputs.items() for output in outputs}
        return features | ({"clips"} if self.clips else set())


def choose(size: int, count: int, seed: int) -> list[int]:
    """`count` different indices below `size`, by hash: the same on every machine; all in order if there are no more."""
    if count >= size:
        return list(range(size))
    chosen: dict[int, None] = {}
    for draw in range(100 * count):
        chosen[derive_seed(seed, draw) % size] = None
        if len(chosen) == count:
            return list(chosen)
    return sorted(range(size), key=lambda index: derive_seed(seed, index))[:count]  # count is close to size


def requests(dataset: Dataset, split: Split, count: int, seed: int) -> list[Request]:
    """What the clips of a run shall show: labels and captions of real clips of `split`, drawn by the run's seed."""
    size = dataset.size(split)
    if size == 0:
        raise UserError(f"{dataset.name} has no {split} clips to take labels and captions from")
    indices = [derive_seed(seed + 1, index) % size for index in range(count)]
    rows = zip(dataset.labels(split, indices), dataset.captions(split, indices), indices, strict=True)
    return [Request(i, derive_seed(seed, i), *row) for i, row in enumerate(rows)]


def generate(folder: RunFolder, sampler: Sampler, asked: Sequence[Request], wanted: Wanted, batch_size: int) -> float:
    """Make every chunk that is not whole on disk; returns the seconds that all chunks took, earlier ones included."""
    size = folder.chunk_size
    chunks = {i: asked[start : start + size] for i, start in enumerate(range(0, len(asked), size))}
    seconds = {i: _whole(folder, i, part, wanted) for i, part in chunks.items()}
    missing = [i for i, spent in seconds.items() if spent is None]
    done = sum(len(chunks[i]) for i in chunks if i not in missing)
    if done:
        print(f"resumed: {done} of {len(asked)} clips are already there", file=sys.stderr)
    progress = Progress("generate", len(asked), "clips", done=done)
    for i in missing:
        seconds[i] = _make(folder, i, sampler, chunks[i], wanted, batch_size, progress)
    return sum(spent or 0.0 for spent in seconds.values())


def _whole(folder: RunFolder, index: int, part: Sequence[Request], wanted: Wanted) -> float | None:
    """The seconds a finished chunk took, or None when it must be made; says so when it was damaged."""
    path = folder.chunk_path(index)
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path)
    except ValueError as error:
        print(f"{path} is damaged: {error}; making it again", file=sys.stderr)
        return None
    whole = wanted.names <= tensors.keys() and all(len(tensor) == len(part) for tensor in tensors.values())
    return float(metadata["seconds"]) if whole else None


def _make(
    folder: RunFolder,
    index: int,
    sampler: Sampler,
    part: Sequence[Request],
    wanted: Wanted,
    batch_size: int,
    progress: Progress,
) -> float:
    rows: list[dict[str, Tensor]] = []
    seconds = 0.0
    for start in range(0, len(part), batch_size):
        batch = part[start : start + batch_size]
        began = time.monotonic()
        clips = video.checked(sampler.sample(batch))
        seconds += time.monotonic() - began
        rows.append({**wanted.features(clips, batch), "clips": clips})
        progress.advance(len(batch))
    tensors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if index == 0:  # before the chunk itself: a chunk on disk means that its samples are there
        _show(folder, tensors["clips"][:SHOWN], part)
    kept = {name: tensor for name, tensor in tensors.items() if name in wanted.names}
    write_tensors(folder.chunk_path(index), kept, seconds=f"{seconds:.3f}")
    return seconds


def _show(folder: RunFolder, clips: Clips, part: Sequence[Request]) -> None:
    scale = max(1, 64 // clips.shape[-1])
    captions = [request.prompt for request in part[: len(clips)]]
    video.write_sheet(folder.samples / "sheet.png", clips, captions=captions, scale=scale)
    video.write_webp(folder.samples / "clips.webp", clips, scale=2 * scale)


def load(folder: RunFolder, count: int) -> dict[str, Tensor]:
    """All features of a finished run, in the order of its requests."""
    parts = [read_tensors(folder.chunk_path(i))[0] for i in range(-(-count // folder.chunk_size))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "clips"}
