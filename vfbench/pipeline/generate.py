"""Sampler + requests -> clips -> features, chunk by chunk, resumable and timed.

Clips are scored in memory and written to disk, lossless, only where asked for. Where memory is short, fewer clips are
made or scored at once. That changes a clip by rounding alone: at another batch size a network adds its numbers in
another order, so rare values differ by one level of 255, and more of them in bfloat16.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vfbench import video
from vfbench.interfaces import Clips, Request, Sampler
from vfbench.pipeline.cost import on_network_call
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.sample import clip_numbers, sample
from vfbench.utils import console
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors

NUM_PREVIEW = 8  # clips in samples/


def generate(
    folder: RunFolder,
    sampler: Sampler,
    requests: Sequence[Request],
    collector: FeatureCollector,
    batch_size: int,
    calls_per_clip: int,
) -> float:
    """Make every chunk that is not complete on disk; returns the seconds that all chunks took, also earlier ones.

    `calls_per_clip` counts the network calls of a clip: the progress moves with each.
    """
    chunks = _chunks(folder, requests)
    seconds = {i: _finished(folder, i, part, collector) for i, part in chunks.items()}
    missing = [i for i, spent in seconds.items() if spent is None]
    done = sum(len(chunks[i]) for i in chunks if i not in missing)
    if done:
        console.info(f"resumed: {done} of {len(requests)} clips are already there")
    batches = AdaptiveBatches(batch_size)
    with Progress("generate", len(requests), "clips", done=done) as progress:
        timed = partial(sample_timed, sampler, progress, calls_per_clip)
        for i in missing:
            seconds[i] = _make(folder, i, timed, chunks[i], collector, batches, progress)
    return sum(spent or 0.0 for spent in seconds.values())


def _chunks(folder: RunFolder, requests: Sequence[Request]) -> dict[int, Sequence[Request]]:
    size = folder.chunk_size
    return {i: requests[start : start + size] for i, start in enumerate(range(0, len(requests), size))}


def _finished(folder: RunFolder, index: int, part: Sequence[Request], collector: FeatureCollector) -> float | None:
    """Seconds that a finished chunk took, None where it must be made; prints a warning for a damaged one."""
    path = folder.chunk_path(index)
    if not path.exists():
        return None
    try:
        _, metadata = _read(folder, index, part, collector)
    except ValueError as error:
        console.warn(f"{path} cannot be used: {error}; making it again")
        return None
    return float(metadata["seconds"])


def _read(
    folder: RunFolder, index: int, part: Sequence[Request], collector: FeatureCollector
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a chunk; raises ValueError where it is not the complete chunk of these requests."""
    tensors, metadata = read_tensors(folder.chunk_path(index), **_identity(folder, part))
    if missing := sorted(collector.names - tensors.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if any(len(tensor) != len(part) for tensor in tensors.values()):
        raise ValueError(f"it does not hold {len(part)} clips")
    return tensors, metadata


def _identity(folder: RunFolder, part: Sequence[Request]) -> dict[str, str]:
    """Metadata that identify a chunk among all chunks of all runs."""
    return {"run": folder.run_id, "requests": f"{part[0].index}-{part[-1].index}"}


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


def _make(
    folder: RunFolder,
    index: int,
    timed: Callable[[Sequence[Request]], tuple[Clips, float]],
    part: Sequence[Request],
    collector: FeatureCollector,
    batches: AdaptiveBatches,
    progress: Progress,
) -> float:
    rows: list[dict[str, Tensor]] = []
    seconds = 0.0

    for batch, (clips, spent) in batches.each(part, timed, clip_numbers):
        seconds += spent
        rows.append({**collector.features(clips[:, collector.frames], batch), "clips": clips})
        progress.advance(len(batch))
    tensors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if index == 0:  # before the chunk itself: a chunk on disk means that its samples are there
        captions = [request.prompt for request in part[:NUM_PREVIEW]]
        video.write_preview(folder.samples, tensors["clips"][:NUM_PREVIEW], captions)
    kept = {name: tensor for name, tensor in tensors.items() if name in collector.names}
    write_tensors(folder.chunk_path(index), kept, **_identity(folder, part), seconds=f"{seconds:.3f}")
    return seconds


def load(folder: RunFolder, requests: Sequence[Request], collector: FeatureCollector) -> dict[str, Tensor]:
    """All features of a finished run, in the order of its requests."""
    parts = [_read(folder, i, part, collector)[0] for i, part in _chunks(folder, requests).items()]
    return {name: torch.cat([part[name] for part in parts]) for name in collector.names - {"clips"}}
