"""Requests of a run: labels and captions drawn by its seed."""

from __future__ import annotations

from vfbench.errors import UserError
from vfbench.interfaces import Dataset, Request, Split, derive_seed


def make_requests(dataset: Dataset, split: Split, count: int, seed: int) -> list[Request]:
    """`count` requests with labels and captions of real clips of `split`, drawn by the run's seed.

    Raises `UserError` for a split without clips.
    """
    size = dataset.size(split)
    if size == 0:
        raise UserError(
            f"{dataset.name} has no {split} clips to take labels and captions from: give it some (a folder has splits "
            "in its children train and test), or choose a protocol with other prompts (python -m vfbench ls protocols)"
        )
    indices = [derive_seed(seed, index, "prompt") % size for index in range(count)]
    rows = zip(dataset.labels(split, indices), dataset.captions(split, indices), indices, strict=True)
    return [Request(i, derive_seed(seed, i), *row, split) for i, row in enumerate(rows)]
