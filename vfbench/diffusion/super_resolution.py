"""Small clips as a condition of a model that enlarges them: their source, and how clips are reduced and enlarged.

The clip that a model is given is enlarged by interpolation, and noise of a level from 0 (none) to 1 (nothing else) is
added. The noise hides the mistakes of the model that made the small clip (Ho et al., arXiv 2106.15282).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vfbench.diffusion.priors import Normal, normal_per_clip
from vfbench.diffusion.solvers import ConditionalDenoiser
from vfbench.errors import UserError
from vfbench.interfaces import Clips, ClipShape, Dataset, Request, Split, derive_seed

LEVEL = 0.1  # of noise when sampling: the lowest that Imagen Video (arXiv 2210.02303) tries


@runtime_checkable
class EnlargesClips(Protocol):
    """Optional interface of a `DiffusionModel` that makes a large clip from a small one."""

    factor: int  # of height and width

    def enlarge(self, small: Tensor, level: float, normal: Normal) -> ConditionalDenoiser:
        """The denoiser given small clips (B, T, 3, h, w) in [-1, 1], to which noise of a level from 0 to 1 is added."""
        ...


@dataclass(frozen=True)
class SmallClips:
    """Source of the clips that a model enlarges, each a function of its request; `level` is that of the noise in them.

    `real` is true for real clips made small. Raises `UserError` for a level outside [0, 1].
    """

    sample: Callable[[Sequence[Request]], Clips]
    level: float = LEVEL
    real: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise UserError(f"level {self.level}: choose 0, no noise in the small clips, to 1, nothing but noise")

    def denoiser(self, model: EnlargesClips, requests: Sequence[Request], device: torch.device) -> ConditionalDenoiser:
        """The denoiser of a model, given the small clips of requests."""
        with torch.autocast(device.type, enabled=False):  # the source has a precision of its own
            small = self.sample(requests).to(device).float() / 127.5 - 1
        normal = normal_per_clip([derive_seed(request.seed, 0, "small clip") for request in requests], device)
        return model.enlarge(small, self.level, normal)


def real_small_clips(model: object, dataset: Dataset) -> SmallClips | None:
    """The real clip of each request, made small, for a model that enlarges clips; None for any other model."""
    if not isinstance(model, EnlargesClips):
        return None
    reduced = ReducedDataset(dataset, model.factor)

    def sample(requests: Sequence[Request]) -> Clips:
        return torch.cat([reduced.clips(request.split, [request.source]) for request in requests])

    return SmallClips(sample, real=True)


class ReducedDataset:
    """View of a dataset with clips of a smaller height and width, each pixel the mean of `factor` x `factor`."""

    def __init__(self, dataset: Dataset, factor: int) -> None:
        self.full, self.factor = dataset, factor
        self.name, self.classes, self.words = dataset.name, dataset.classes, dataset.words
        self.shape = reduced_shape(dataset.shape, factor)

    @property
    def fingerprint(self) -> str:
        """Hash of the clips: that of the dataset, with the factor."""
        return f"{self.full.fingerprint}/{self.factor}"

    def size(self, split: Split) -> int:
        """Number of clips in a split."""
        return self.full.size(split)

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """Reduced clips, uint8 (B, T, 3, h, w); raises what the dataset does."""
        return reduce(self.full.clips(split, indices, device).float(), self.factor).round().to(torch.uint8)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Class of each clip."""
        return self.full.labels(split, indices)

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """Caption of each clip."""
        return self.full.captions(split, indices)


def reduced_shape(shape: ClipShape, factor: int) -> ClipShape:
    """The clip shape with height and width divided by a factor; raises `UserError` where it does not divide them."""
    if factor < 1 or shape.height % factor or shape.width % factor:
        raise UserError(f"factor {factor}: clips of {shape} need one of at least 1 that divides height and width")
    return replace(shape, height=shape.height // factor, width=shape.width // factor)


def reduce(clips: Tensor, factor: int) -> Tensor:
    """Clips (B, T, 3, H, W) of which each pixel is the mean of `factor` x `factor`, (B, T, 3, H / factor, ...)."""
    smaller = F.avg_pool2d(clips.flatten(0, 1), factor)
    return smaller.view(*clips.shape[:2], *smaller.shape[1:])


def interpolate(clips: Tensor, factor: int) -> Tensor:
    """Clips (B, T, 3, h, w) enlarged by bilinear interpolation."""
    larger = F.interpolate(clips.flatten(0, 1), scale_factor=float(factor), mode="bilinear", align_corners=False)
    return larger.view(*clips.shape[:2], *larger.shape[1:])
