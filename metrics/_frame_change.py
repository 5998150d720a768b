"""Extractor of how much a clip changes from frame to frame, from its pixels; it needs no network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from vfbench import video
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Features, Request, WeightStatus
from vfbench.utils import text

VERSION = 1  # part of the fingerprint; increase it whenever an output changes


def build(
    device: torch.device,
    *,
    base: Annotated[int | None, "Base frame, from 0; by default VideoFusion's, the middle one."] = None,
) -> FrameChange:
    """Extractor of mean absolute differences of neighbouring frames, in 0..1 of the range of bytes."""
    del device  # a subtraction is not worth a copy to the GPU
    return FrameChange(base)


class FrameChange:
    """Changes between neighbouring frames as an `Extractor`.

    `base_change` has two columns: the mean change into and out of the base frame, and the mean of all other changes.
    `smoothness` is 1 minus the mean change.
    """

    name = "frame_change"
    weight_status: WeightStatus = "verified"
    outputs: Mapping[str, int] = {"base_change": 2, "smoothness": 1}

    def __init__(self, base: int | None) -> None:
        self.base = base
        self.fingerprint = hashlib.sha256(f"frame_change/{VERSION}/{base}".encode()).hexdigest()

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Requested outputs, float32 (B, D) on the CPU.

        Raises `UserError` for clips that are too short, and for a base frame that they do not have.
        """
        frames = clips.shape[1]
        self.require_frames(frames, outputs)
        pixels = video.require_byte_range(clips).cpu().short()
        changes = pixels.diff(dim=1).abs().float().mean(dim=(2, 3, 4)) / 255  # (B, T - 1)
        at_base = _changes_at(self._base(frames), frames)
        computed: dict[str, Tensor] = {
            "base_change": torch.stack([changes[:, at_base].mean(1), changes[:, ~at_base].mean(1)], dim=1),
            "smoothness": 1 - changes.mean(1, keepdim=True),
        }
        return {output: computed[output] for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for one frame, and for `base_change` without changes at the base frame and elsewhere."""
        if frames < 2:
            raise UserError("frame_change: clips of 1 frame do not change: make longer clips")
        at_base = _changes_at(self._base(frames), frames)
        if "base_change" in outputs and not (at_base.any() and (~at_base).any()):
            raise UserError(
                f"frame_change: clips of {text.count(frames, 'frame')} do not change both at base frame "
                f"{self._base(frames)} and elsewhere: make longer clips, or choose another base"
            )

    def _base(self, frames: int) -> int:
        """Base frame of a clip, by default the middle one; of an even number, the first of the two."""
        return max(frames // 2 - 1, 0) if self.base is None else self.base


def _changes_at(base: int, frames: int) -> Tensor:
    """Mask (frames - 1,) of the changes into and out of the base frame; none where the clip does not have it."""
    numbers = torch.arange(frames - 1)
    return ((numbers == base - 1) | (numbers == base)) & (0 <= base < frames)
