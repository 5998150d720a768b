"""Requests of a run: labels and captions drawn by its seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from vfbench.errors import UserError
from vfbench.interfaces import Dataset, Request, Split, derive_seeds

AT_ONCE = 1024  # requests made together while they are read in order


@dataclass(frozen=True)
class Requests(Sequence[Request]):
    """Requests with labels and captions of real clips of `split`, drawn by the run's seed.

    `numbers` are the indices of the requests. Each request is made when it is read: planning a million clips takes
    seconds, and a worker holds only the requests of its own chunks.
    """

    dataset: Dataset
    split: Split
    numbers: range
    seed: int

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> Requests: ...

    def __getitem__(self, index: int | slice) -> Request | Requests:
        if isinstance(index, slice):
            return Requests(self.dataset, self.split, self.numbers[index], self.seed)
        return self._make([self.numbers[index]])[0]

    def __iter__(self) -> Iterator[Request]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._make(self.numbers[start : start + AT_ONCE])

    def _make(self, numbers: Sequence[int]) -> list[Request]:
        size = self.dataset.size(self.split)
        sources = [seed % size for seed in derive_seeds(self.seed, numbers, "prompt")]
        labels, captions = self.dataset.labels(self.split, sources), self.dataset.captions(self.split, sources)
        seeds = derive_seeds(self.seed, numbers)
        rows = zip(numbers, seeds, labels, captions, sources, strict=True)
        return [Request(*row, self.split) for row in rows]


def make_requests(dataset: Dataset, split: Split, count: int, seed: int) -> Requests:
    """The first `count` requests of a run with this seed.

    Raises `UserError` for a split without clips.
    """
    if dataset.size(split) == 0:
        raise UserError(
            f"{dataset.name} has no {split} clips to take labels and captions from: give it some (a folder has splits "
            "in its children train and test), or choose a protocol with other prompts (python -m vfbench ls protocols)"
        )
    return Requests(dataset, split, range(count), seed)
