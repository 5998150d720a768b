"""What each step learns from: a function of the seed and the step alone, whoever draws it, and when.

Clips, times and noise of a step come from one generator, drawn for the whole batch. A process takes its part of them,
so that the number of processes and parts changes no draw, and the weights by the rounding of sums alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vfbench.interfaces import Clips, Conditioning, Dataset, derive_seed
from vfbench.training.options import RandomCropDataset, TrainOptions


class Batch(NamedTuple):
    """Clips with what is said of them, and what was drawn for them (`DiffusionModel.draw`)."""

    clips: Clips
    labels: list[int]
    captions: list[str]
    modes: list[Conditioning]
    drawn: dict[str, Tensor]

    def parts(self, count: int) -> list[Batch]:
        """The same in `count` equal parts; raises ValueError where it does not split."""
        if len(self.clips) % count:
            raise ValueError(f"{len(self.clips)} clips are not {count} equal parts")
        size = len(self.clips) // count
        return [self._at(slice(start, start + size)) for start in range(0, len(self.clips), size)]

    def _at(self, rows: slice) -> Batch:
        drawn = {name: value[rows] for name, value in self.drawn.items()}
        return Batch(self.clips[rows], self.labels[rows], self.captions[rows], self.modes[rows], drawn)


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training, by step; `share` is the part of each that this process learns from.

    `drawn` and `conditions` say how clips are drawn, and what they are shown with (`vfbench.training.options`); `draw`
    is that of the model. What is drawn goes to `device`.
    """

    dataset: Dataset
    options: TrainOptions
    drawn: Mapping[str, Any]
    conditions: Mapping[Conditioning, float]
    draw: Callable[[int, torch.Generator], dict[str, Tensor]]
    share: slice
    device: torch.device

    def __call__(self, step: int) -> Batch:
        """This process's share of a step."""
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, step))
        count, size, own = self.options.batch_size, self.dataset.size("train"), self.share
        indices = torch.randint(size, (count,), generator=generator).tolist()
        weights = torch.tensor(list(self.conditions.values()))
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        modes = [list(self.conditions)[i] for i in chosen]
        labels, captions = self.dataset.labels("train", indices[own]), self.dataset.captions("train", indices[own])
        clips = self._clips(step, indices)
        drawn = self.draw(count, generator)
        for name, value in drawn.items():
            if value.shape[:1] != (count,):
                raise ValueError(f"draw({count}, ...) gave {tuple(value.shape)} as '{name}': a row a clip is needed")
        drawn = {name: value[own].to(self.device) for name, value in drawn.items()}
        return Batch(clips, labels, captions, modes[own], drawn)

    def _clips(self, step: int, indices: list[int]) -> Clips:
        own = indices[self.share]
        if not isinstance(self.dataset, RandomCropDataset):
            return self.dataset.clips("train", own, self.device)
        first = step * len(indices) + self.share.start
        seeds = [derive_seed(self.options.seed, first + i, "clip") for i in range(len(own))]
        return self.dataset.draw("train", own, seeds, **self.drawn)
