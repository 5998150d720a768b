"""Noise priors: how the noise of a clip's frames hangs together.

A prior is used in training, for the initial noise and for the fresh noise of stochastic solvers; the marginal of every
frame is N(0, I) in all of them. Noise has the clip's shape (B, T, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vfbench.interfaces import ClipShape

Normal = Callable[[tuple[int, ...]], Tensor]  # shape without batch -> (B, *shape) of independent N(0, 1)


def per_clip(seeds: Sequence[int], device: torch.device) -> Normal:
    """One generator per clip, on the CPU: a clip's noise is bit for bit the same in any batch and on any device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    return normal


def batched(batch: int, generator: torch.Generator) -> Normal:
    """One generator for the whole batch, for training; draws on the generator's device."""
    return lambda shape: torch.randn((batch, *shape), generator=generator, device=generator.device)


class Prior(Protocol):
    """What every noise prior offers."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W) made from independent normals."""
        ...


class Independent:
    """Every frame its own noise: the usual prior (VDM, arXiv 2204.03458)."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W), independent everywhere."""
        return normal((shape.frames, 3, shape.height, shape.width))


class Decomposed:
    """VideoFusion's split (arXiv 2303.08320): eps^i = sqrt(lam_i) b + sqrt(1 - lam_i) r^i, b shared by all frames.

    lam_i = `lam` for every frame but the base frame, whose lam is 1. The paper counts frames from 1 and takes the
    middle one, floor(N/2): index 7 (from 0) of 16.
    """

    def __init__(self, frames: int, lam: float = 0.5) -> None:
        if not 0 <= lam <= 1:
            raise ValueError(f"lambda must lie in [0, 1], got {lam}")
        self.base = max(frames // 2 - 1, 0)
        self.lam = torch.full((frames,), lam, dtype=torch.float64)
        self.lam[self.base] = 1.0

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(lam_i) and sqrt(1 - lam_i), shaped (1, T, 1, 1, 1), in the dtype and device of `like`."""
        lam = self.lam.to(like).view(1, -1, 1, 1, 1)
        return lam.sqrt(), (1 - lam).sqrt()

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        of_base, of_residual = self.weights(residual)
        return of_base * base + of_residual * residual

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W): the base noise is drawn first, so that a seed can fix it alone."""
        base = normal((1, 3, shape.height, shape.width))
        return self.combine(base, normal((shape.frames, 3, shape.height, shape.width)))
