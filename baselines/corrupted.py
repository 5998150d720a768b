"""Control: held-out real clips with a known amount of damage, to calibrate what a distance means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vfbench import video
from vfbench.baselines._control import Control
from vfbench.errors import UserError, unknown
from vfbench.interfaces import BuildContext, Clips, Dataset, Request, derive_seed

# Damage kinds, with the strengths of `sensitivity`; the functions below define the unit of strength.
STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "noise": (0.02, 0.05, 0.1, 0.2),
    "blur": (0.5, 1.0, 2.0, 4.0),
    "shuffle": (0.25, 0.5, 1.0),
    "freeze": (0.25, 0.5, 1.0),
    "fewer_frames": (2.0, 4.0, 8.0),
}


class Corrupted(Control):
    """Real clips with one kind of damage, drawn from each request's seed."""

    def __init__(self, dataset: Dataset, kind: str, strength: float) -> None:
        super().__init__(dataset)
        self.damage, self.strength = _DAMAGES[kind], strength

    def sample(self, requests: Sequence[Request]) -> Clips:
        """The damaged clips, uint8 (B, T, 3, H, W)."""
        clips = self.real(requests)
        seeds = [derive_seed(request.seed, request.index, "damage") for request in requests]
        return torch.stack(
            [
                self.damage(clip, self.strength, torch.Generator().manual_seed(seed))
                for clip, seed in zip(clips, seeds, strict=True)
            ]
        )


def _noise(clip: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Add independent normal noise; `strength` is its standard deviation as a fraction of the range 0..255."""
    noise = torch.randn(clip.shape, generator=generator)
    return video.to_uint8(clip / 255 + strength * noise)


def _blur(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Blur every frame by a Gaussian; `strength` is its standard deviation in pixels."""
    six_sigma = 2 * round(3 * strength) + 1
    side = min(six_sigma, 2 * (min(clip.shape[-2:]) // 2) - 1)  # reflection at the border limits the kernel size
    return video.to_uint8(gaussian_blur(clip / 255, [side, side], [strength, strength]))


def _shuffle(clip: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Permute a random fraction `strength` of the frames, which keeps the images and destroys the motion."""
    count = max(2, round(strength * len(clip)))
    indices = torch.randperm(len(clip), generator=generator)[:count]
    return clip.index_copy(0, indices, clip[indices.roll(1)])  # a cycle, so that each of these frames moves


def _freeze(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Freeze the last fraction `strength` of the clip; 1 repeats the first frame, as the control `frozen`."""
    moving = max(1, len(clip) - round(strength * len(clip)))
    return clip[torch.arange(len(clip)).clamp(max=moving - 1)]


def _fewer_frames(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Repeat every `strength`-th frame `strength` times, as if the frame rate were that many times lower."""
    step = round(strength)
    return clip[torch.arange(len(clip)) // step * step]


_DAMAGES: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "shuffle": _shuffle,
    "freeze": _freeze,
    "fewer_frames": _fewer_frames,
}
_FRACTIONAL = ("shuffle", "freeze")  # kinds whose strength is a fraction of the frames


def build(
    context: BuildContext,
    *,
    kind: Annotated[str, STRENGTHS, "Kind of damage."] = "noise",
    strength: Annotated[float, "Strength of the damage, above 0, in the unit of its kind."] = 0.1,
) -> Corrupted:
    """Real clips of the context's dataset with damage of a `kind` (see `STRENGTHS`) and `strength` above 0.

    Raises `UserError` for an unknown kind and a strength out of range.
    """
    if kind not in _DAMAGES:
        raise unknown("kind of damage", kind, _DAMAGES)
    least = 1.0 if kind == "fewer_frames" else 0.0  # it repeats each frame that many times
    if not (math.isfinite(strength) and strength > 0 and strength >= least) or (kind in _FRACTIONAL and strength > 1):
        limit = " and at most 1, a fraction of the frames" if kind in _FRACTIONAL else ""
        raise UserError(
            f"strength = {strength} of {kind}: give a finite number {f'from {least:g}' if least else 'above 0'}{limit}"
        )
    return Corrupted(context.dataset, kind, strength)
