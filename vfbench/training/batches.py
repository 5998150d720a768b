"""Training batches that depend only on the seed and the step.

One generator draws the clips, times and noise of the whole batch. Each process then takes its slice, so the number of
processes or of accumulation parts changes no draw; weights differ by the rounding of sums alone. A training on GPUs has
a generator of noise for each clip instead (`noise` `philox`), so that each process draws its own share on its GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vfbench.diffusion.priors import NoiseGenerator, normal_per_clip
from vfbench.interfaces import Clips, Conditioning, Dataset, derive_seed
from vfbench.training.clip_sampling import CropOptions, RandomCropDataset
from vfbench.training.options import TrainOptions
from vfbench.utils.device import to_device


class Batch(NamedTuple):
    """Clips, their labels, captions and conditioning, and the random tensors of `DiffusionModel.draw`."""

    clips: Clips
    labels: list[int]
    captions: list[str]
    conditioning: list[Conditioning]
    draws: dict[str, Tensor]

    def parts(self, count: int) -> list[Batch]:
        """Split into `count` equal parts; raises ValueError where the batch size is not a multiple of `count`."""
        if len(self.clips) % count:
            raise ValueError(f"cannot split {len(self.clips)} clips into {count} equal parts")
        size = len(self.clips) // count
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.clips), size)]

    def _rows(self, rows: slice) -> Batch:
        draws = {name: value[rows] for name, value in self.draws.items()}
        return Batch(self.clips[rows], self.labels[rows], self.captions[rows], self.conditioning[rows], draws)


@dataclass(frozen=True)
class TrainingBatches:
    """Training batches by step; `share` is the slice of each batch that this process learns from.

    `crop_options` are passed to `RandomCropDataset.draw`; `conditioning_probs` are the probabilities of each kind of
    conditioning. `draw` is `DiffusionModel.draw`, whose tensors are moved to `device`; `noise` is the generator of its
    noise.
    """

    dataset: Dataset
    options: TrainOptions
    crop_options: CropOptions | None
    conditioning_probs: Mapping[Conditioning, float]
    draw: Callable[..., dict[str, Tensor]]
    share: slice
    device: torch.device
    noise: NoiseGenerator = "mt19937"

    def __call__(self, step: int) -> Batch:
        """Batch of a step, this process's share; raises ValueError where a drawn tensor lacks a row per clip."""
        seed = derive_seed(self.options.seed, step)
        generator = torch.Generator().manual_seed(seed)
        count, size, share = self.options.batch_size, self.dataset.size("train"), self.share
        indices = torch.randint(size, (count,), generator=generator).tolist()
        probs = torch.tensor(list(self.conditioning_probs.values()))
        kinds = torch.multinomial(probs, count, replacement=True, generator=generator).tolist()
        conditioning = [list(self.conditioning_probs)[i] for i in kinds]
        labels, captions = self.dataset.labels("train", indices[share]), self.dataset.captions("train", indices[share])
        clips = self._clips(step, indices)
        return Batch(clips, labels, captions, conditioning[share], self._draws(seed, generator))

    def _draws(self, seed: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The rows of this process, on its device."""
        count, share, own = self.options.batch_size, self.share, dict[str, Tensor]()
        if self.noise == "mt19937":
            draws = self.draw(count, generator)
        else:
            seeds = [derive_seed(seed, clip, "noise") for clip in range(count)[share]]
            draws = self.draw(count, generator, normal_per_clip(seeds, self.device, self.noise))
            own = {name: draws.pop(name) for name in list(draws) if name.endswith("noise")}
        for name, value in draws.items():
            if value.shape[:1] != (count,):
                raise ValueError(f"draw({count}, ...) gave shape {tuple(value.shape)} for '{name}': needs {count} rows")
        return {**own, **{name: to_device(value[share], self.device) for name, value in draws.items()}}

    def _clips(self, step: int, indices: list[int]) -> Clips:
        share = indices[self.share]
        if self.crop_options is None or not isinstance(self.dataset, RandomCropDataset):
            return self.dataset.clips("train", share, self.device)
        first = step * len(indices) + self.share.start
        seeds = [derive_seed(self.options.seed, first + i, "clip") for i in range(len(share))]
        return to_device(self.dataset.draw("train", share, seeds, **self.crop_options._asdict()), self.device)
