"""What a model makes while it is being trained, as pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from vfbench import video
from vfbench.interfaces import Clips, Dataset, Request, Sampler, derive_seed
from vfbench.utils.memory import AdaptiveBatches, NoMemory

COUNT = 6


def write(path: Path, sampler: Sampler, dataset: Dataset, batches: AdaptiveBatches) -> None:
    """Clips for what the first held-out ones show, always from the same noise, as `path`.png and moving as `path`.webp.

    Nothing for a dataset that holds none out. `batches` says how many clips are made at once; where there is too
    little memory for a single one, or the model makes NaN, nothing is written, and told so.
    """
    indices = range(min(COUNT, dataset.size("test")))
    labels, captions = dataset.labels("test", indices), dataset.captions("test", indices)
    rows = zip(indices, labels, captions, strict=True)
    requests = [Request(i, derive_seed(0, i), label, caption) for i, label, caption in rows]
    if not requests:
        return
    try:
        clips = _made(requests, sampler, batches)
    except NoMemory:
        print(f"no samples of {path.name}: no memory is left for a single clip; training goes on", file=sys.stderr)
        return
    except ValueError as error:  # NaN: a training that diverges, whose weights are numbers still
        print(f"no samples of {path.name}: {error}; take a lower --lr", file=sys.stderr)
        return
    video.write_sheet(path.with_suffix(".png"), clips, captions=captions, scale=2)
    video.write_webp(path.with_suffix(".webp"), clips, scale=4)


def _made(requests: Sequence[Request], sampler: Sampler, batches: AdaptiveBatches) -> Clips:
    return torch.cat([clips for _, clips in batches.each(requests, sampler.sample, _named)])


def _named(requests: Sequence[Request]) -> str:
    return f"{len(requests)} sample{'s' * (len(requests) > 1)}"
