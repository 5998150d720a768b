"""The prior network: from class, caption or nothing to the embedding of a frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vfbench.nets.embedding import sinusoidal


class EmbeddingPrior(nn.Module):
    """A denoiser of vectors that predicts the clean one, as the diffusion prior of DALL-E 2 (arXiv 2204.06125) does.

    That one is a transformer over the words of a caption; here a caption is one vector already (`Condition`), so that
    a residual perceptron is enough. Time and condition scale and shift every block, as in `vfbench.nets.unet`.
    """

    def __init__(self, size: int, condition: int, inner: int, depth: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(128, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.said = nn.Linear(condition, inner)
        self.stem = nn.Linear(size, inner)
        self.blocks = nn.ModuleList(PriorBlock(inner) for _ in range(depth))
        self.norm = nn.LayerNorm(inner)
        self.head = nn.Linear(inner, size)

    def forward(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """`z` (B, size) at times `t` (B,) for the `condition` (B, width): the clean vector, (B, size)."""
        embedding = F.silu(self.time(sinusoidal(t, 128)) + self.said(condition))
        h = self.stem(z)
        for block in self.blocks:
            h = block(h, embedding)
        clean: Tensor = self.head(self.norm(h))
        return clean


class PriorBlock(nn.Module):
    """A perceptron of one hidden layer with a residual path; it begins as the identity."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner, elementwise_affine=False)
        self.modulate = nn.Linear(inner, 2 * inner)
        self.first, self.second = nn.Linear(inner, inner), nn.Linear(inner, inner)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inner) with its embedding (B, inner)."""
        scale, shift = self.modulate(embedding).chunk(2, dim=1)
        out: Tensor = x + self.second(F.gelu(self.first(self.norm(x) * (1 + scale) + shift)))
        return out
