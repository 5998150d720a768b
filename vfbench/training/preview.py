"""Sample sheets of a model during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vfbench import video
from vfbench.interfaces import Clips, Dataset, Request, Sampler, derive_seed
from vfbench.utils import console
from vfbench.utils.memory import AdaptiveBatches, NoMemory

NUM_CLIPS = 6


def write(path: Path, sampler: Sampler, dataset: Dataset, batches: AdaptiveBatches) -> None:
    """Sample the labels and captions of the first test clips, and write `path`.png and the animated `path`.webp.

    The noise is the same at every call. `batches` sets the number of clips per network call. Writes nothing for a
    dataset without test clips, and only prints a warning where one clip does not fit into memory or the clips have NaN.
    """
    indices = range(min(NUM_CLIPS, dataset.size("test")))
    labels, captions = dataset.labels("test", indices), dataset.captions("test", indices)
    rows = zip(indices, labels, captions, strict=True)
    requests = [Request(i, derive_seed(0, i), label, caption, source=i) for i, label, caption in rows]
    if not requests:
        return
    try:
        clips = _sample(requests, sampler, batches)
    except NoMemory:
        console.warn(f"no samples of {path.name}: out of memory for a single clip; training continues")
        return
    except ValueError as error:  # NaN in the clips: training diverges, though the weights are still finite
        console.warn(f"no samples of {path.name}: {error}; use a lower --lr")
        return
    video.write_sheet(path.with_suffix(".png"), clips, captions=captions, scale=2)
    video.write_webp(path.with_suffix(".webp"), clips, scale=4)


def _sample(requests: Sequence[Request], sampler: Sampler, batches: AdaptiveBatches) -> Clips:
    return torch.cat([clips for _, clips in batches.each(requests, sampler.sample, _batch_name)])


def _batch_name(requests: Sequence[Request]) -> str:
    return f"{len(requests)} sample{'s' * (len(requests) > 1)}"
