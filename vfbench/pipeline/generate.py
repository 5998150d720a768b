"""Sampler + requests -> clips -> features, chunk by chunk, resumable and timed.

A clip needs no disk: its features are taken in the pass that makes it. Clips are kept when asked for, lossless. Where
memory is full, fewer clips are made or scored at once. That changes none of them but for rounding: at another
batch size a network adds up its numbers in another order, so that rare values are another by one level of 255, and more
of them in bfloat16.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from vfbench import video
from vfbench.interfaces import Clips, Request, Sampler
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.sample import clip_range, sample
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors

NUM_PREVIEW = 8  # clips in samples/


def generate(
    folder: RunFolder, sampler: Sampler, asked: Sequence[Request], wanted: FeatureCollector, batch_size: int
) -> float:
    """Make every chunk that is not whole on disk; returns the seconds that all chunks took, earlier ones included."""
    chunks = _chunks(folder, asked)
    seconds = {i: _finished(folder, i, part, wanted) for i, part in chunks.items()}
    missing = [i for i, spent in seconds.items() if spent is None]
    done = sum(len(chunks[i]) for i in chunks if i not in missing)
    if done:
        print(f"resumed: {done} of {len(asked)} clips are already there", file=sys.stderr)
    progress, batches = Progress("generate", len(asked), "clips", done=done), AdaptiveBatches(batch_size)
    for i in missing:
        seconds[i] = _make(folder, i, sampler, chunks[i], wanted, batches, progress)
    return sum(spent or 0.0 for spent in seconds.values())


def _chunks(folder: RunFolder, asked: Sequence[Request]) -> dict[int, Sequence[Request]]:
    size = folder.chunk_size
    return {i: asked[start : start + size] for i, start in enumerate(range(0, len(asked), size))}


def _finished(folder: RunFolder, index: int, part: Sequence[Request], wanted: FeatureCollector) -> float | None:
    """The seconds a finished chunk took, or None when it must be made; says so when one is there that is not right."""
    path = folder.chunk_path(index)
    if not path.exists():
        return None
    try:
        _, metadata = _read(folder, index, part, wanted)
    except ValueError as error:
        print(f"{path} cannot be used: {error}; making it again", file=sys.stderr)
        return None
    return float(metadata["seconds"])


def _read(
    folder: RunFolder, index: int, part: Sequence[Request], wanted: FeatureCollector
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A chunk's tensors and metadata; raises ValueError saying why it is not the whole chunk of these requests."""
    tensors, metadata = read_tensors(folder.chunk_path(index), **_identity(folder, part))
    if lacking := sorted(wanted.names - tensors.keys()):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if any(len(tensor) != len(part) for tensor in tensors.values()):
        raise ValueError(f"it does not hold {len(part)} clips")
    return tensors, metadata


def _identity(folder: RunFolder, part: Sequence[Request]) -> dict[str, str]:
    """What tells a chunk from every other chunk of every run."""
    return {"run": folder.run_id, "requests": f"{part[0].index}-{part[-1].index}"}


def _make(
    folder: RunFolder,
    index: int,
    sampler: Sampler,
    part: Sequence[Request],
    wanted: FeatureCollector,
    batches: AdaptiveBatches,
    progress: Progress,
) -> float:
    rows: list[dict[str, Tensor]] = []
    seconds = 0.0

    def timed(batch: Sequence[Request]) -> tuple[Clips, float]:
        began = time.monotonic()
        clips = sample(sampler, batch)
        return clips, time.monotonic() - began

    for batch, (clips, spent) in batches.each(part, timed, clip_range):
        seconds += spent
        rows.append({**wanted.features(clips[:, wanted.frames], batch), "clips": clips})
        progress.advance(len(batch))
    tensors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if index == 0:  # before the chunk itself: a chunk on disk means that its samples are there
        captions = [request.prompt for request in part[:NUM_PREVIEW]]
        video.write_preview(folder.samples, tensors["clips"][:NUM_PREVIEW], captions)
    kept = {name: tensor for name, tensor in tensors.items() if name in wanted.names}
    write_tensors(folder.chunk_path(index), kept, **_identity(folder, part), seconds=f"{seconds:.3f}")
    return seconds


def load(folder: RunFolder, asked: Sequence[Request], wanted: FeatureCollector) -> dict[str, Tensor]:
    """All features of a finished run, in the order of its requests."""
    parts = [_read(folder, i, part, wanted)[0] for i, part in _chunks(folder, asked).items()]
    return {name: torch.cat([part[name] for part in parts]) for name in wanted.names - {"clips"}}
