"""The embedding prior: a network that denoises the embedding of a frame, given class, caption or nothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vfbench.nets.embedding import sinusoidal


class EmbeddingPrior(nn.Module):
    """Denoiser of vectors that predicts the clean one, like the diffusion prior of DALL-E 2 (arXiv 2204.06125).

    DALL-E 2 uses a transformer over the words of a caption. Here a caption is already one vector
    (`vfbench.nets.embedding.ConditioningEmbedding`), so a residual perceptron is enough. Time and conditioning scale
    and shift every block, as in `vfbench.nets.unet`.
    """

    def __init__(self, size: int, cond_width: int, inner: int, depth: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(128, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.said = nn.Linear(cond_width, inner)
        self.stem = nn.Linear(size, inner)
        self.blocks = nn.ModuleList(PriorBlock(inner) for _ in range(depth))
        self.norm = nn.LayerNorm(inner)
        self.head = nn.Linear(inner, size)

    def forward(self, z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The clean vectors (B, size) for `z` (B, size) at times `t` (B,) with conditioning `cond` (B, cond_width)."""
        embedding = F.silu(self.time(sinusoidal(t, 128)) + self.said(cond))
        h = self.stem(z)
        for block in self.blocks:
            h = block(h, embedding)
        clean: Tensor = self.head(self.norm(h))
        return clean


class PriorBlock(nn.Module):
    """Residual perceptron of one hidden layer, initialised as the identity."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner, elementwise_affine=False)
        self.modulate = nn.Linear(inner, 2 * inner)
        self.first, self.second = nn.Linear(inner, inner), nn.Linear(inner, inner)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `x` (B, inner) to (B, inner), modulated by `embedding` (B, inner)."""
        scale, shift = self.modulate(embedding).chunk(2, dim=1)
        out: Tensor = x + self.second(F.gelu(self.first(self.norm(x) * (1 + scale) + shift)))
        return out
