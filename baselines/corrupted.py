"""Control: held-out real clips damaged by a known amount, the rungs that show what a distance means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vfbench import video
from vfbench.baselines._control import Control
from vfbench.errors import UserError, unknown
from vfbench.interfaces import BuildContext, Clips, Dataset, Request, derive_seed

# Every kind at the strengths that `calibrate` climbs; what a strength is stands with the function below.
LADDER: Mapping[str, tuple[float, ...]] = {
    "noise": (0.02, 0.05, 0.1, 0.2),
    "blur": (0.5, 1.0, 2.0, 4.0),
    "shuffle": (0.25, 0.5, 1.0),
    "freeze": (0.25, 0.5, 1.0),
    "fewer_frames": (2.0, 4.0, 8.0),
}


class Corrupted(Control):
    """Real clips with one kind of damage, drawn from each clip's own seed."""

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
    """Normal noise, independent for every value; `strength` is its deviation as a part of the range 0..255."""
    noise = torch.randn(clip.shape, generator=generator)
    return video.to_uint8(clip / 255 + strength * noise)


def _blur(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """A Gaussian blur of every frame; `strength` is its deviation in pixels."""
    reach = 2 * round(3 * strength) + 1
    side = min(reach, 2 * (min(clip.shape[-2:]) // 2) - 1)  # reflection at the border needs a kernel that fits
    return video.to_uint8(gaussian_blur(clip / 255, [side, side], [strength, strength]))


def _shuffle(clip: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """`strength` of the frames, at random places, in random order: the pictures stay, the motion goes."""
    count = max(2, round(strength * len(clip)))
    places = torch.randperm(len(clip), generator=generator)[:count]
    return clip.index_copy(0, places, clip[places.roll(1)])  # a cycle: each of them moves


def _freeze(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """The last `strength` of the clip stands still; 1 repeats the first frame throughout, as the control `frozen`."""
    moving = max(1, len(clip) - round(strength * len(clip)))
    return clip[torch.arange(len(clip)).clamp(max=moving - 1)]


def _fewer_frames(clip: Tensor, strength: float, _: torch.Generator) -> Tensor:
    """Every frame is shown `strength` times, as in a clip of that many times fewer frames a second."""
    step = round(strength)
    return clip[torch.arange(len(clip)) // step * step]


_DAMAGES: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "shuffle": _shuffle,
    "freeze": _freeze,
    "fewer_frames": _fewer_frames,
}
_PARTS = ("shuffle", "freeze")


def build(setting: BuildContext, *, kind: str = "noise", strength: float = 0.1) -> Corrupted:
    """Real clips of the setting's dataset with damage of a `kind` (see LADDER), the more the larger `strength`."""
    if kind not in _DAMAGES:
        raise unknown("kind of damage", kind, _DAMAGES)
    if not strength > 0 or (kind in _PARTS and strength > 1):
        most = " and at most 1, a part of the clip" if kind in _PARTS else ""
        raise UserError(f"strength = {strength} of {kind}: give a number above 0{most}")
    return Corrupted(setting.dataset, kind, strength)
