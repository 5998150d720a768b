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

        Raises `UserError` for clips of fewer than three frames, and for a base frame that they do not have.
        """
        frames = clips.shape[1]
        self.require_frames(frames, outputs)
        base = self._base(frames)
        pixels = video.require_byte_range(clips).cpu().short()
        changes = pixels.diff(dim=1).abs().float().mean(dim=(2, 3, 4)) / 255  # (B, T - 1)
        at_base = torch.zeros(frames - 1, dtype=torch.bool)
        at_base[max(base - 1, 0) : base + 1] = True
        computed: dict[str, Tensor] = {
            "base_change": torch.stack([changes[:, at_base].mean(1), changes[:, ~at_base].mean(1)], dim=1),
            "smoothness": 1 - changes.mean(1, keepdim=True),
        }
        return {output: computed[output] for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for clips without the base frame or with fewer than three frames."""
        if frames < 3 or not 0 <= self._base(frames) < frames:
            raise UserError(
                f"frame_change: clips of {text.count(frames, 'frame')} have no base frame {self._base(frames)} among "
                "three or more"
            )

    def _base(self, frames: int) -> int:
        """Base frame of a clip, by default the one before the middle."""
        return max(frames // 2 - 1, 0) if self.base is None else self.base
