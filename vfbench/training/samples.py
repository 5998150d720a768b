"""What a model makes while it is being trained, as pictures."""

from __future__ import annotations

from pathlib import Path

from vfbench import video
from vfbench.interfaces import Dataset, Request, Sampler, derive_seed

COUNT = 6


def write(path: Path, sampler: Sampler, dataset: Dataset) -> None:
    """Clips for what the first held-out ones show, always from the same noise, as `path`.png and moving as `path`.webp.

    Nothing for a dataset that holds none out.
    """
    indices = range(min(COUNT, dataset.size("test")))
    labels, captions = dataset.labels("test", indices), dataset.captions("test", indices)
    rows = zip(indices, labels, captions, strict=True)
    requests = [Request(i, derive_seed(0, i), label, caption) for i, label, caption in rows]
    if not requests:
        return
    clips = sampler.sample(requests)
    video.write_sheet(path.with_suffix(".png"), clips, captions=captions, scale=2)
    video.write_webp(path.with_suffix(".webp"), clips, scale=4)
