"""Control: random bytes, as from a model that learnt nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vfbench.baselines._control import Control
from vfbench.interfaces import BuildContext, Clips, Request


class Noise(Control):
    """Clips of bytes uniform in 0..255, drawn from each request's seed."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        """Random clips, uint8 (B, T, 3, H, W)."""
        shape = (self.shape.frames, 3, self.shape.height, self.shape.width)
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        return torch.stack([torch.randint(256, shape, generator=g, dtype=torch.uint8) for g in generators])


def build(context: BuildContext) -> Noise:
    """Noise in the clip shape of the context's dataset."""
    return Noise(context.dataset)
