"""Factorised space-time transformer: blocks attend over the patches of a frame and over frames in turn.

After Latte (Ma et al., arXiv 2401.03048, variant 1: one spatial block, then one temporal block, and so on) with the
adaLN-Zero blocks of DiT (Peebles and Xie, arXiv 2212.09748, section 3.2), on pixels instead of latents. Where Latte
adds the position of a frame before its first temporal block, all positions are added at the stem here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from vfbench.interfaces import ClipShape
from vfbench.nets.attention import attention
from vfbench.nets.embedding import sinusoidal
from vfbench.nets.recompute import Recomputing
from vfbench.utils.records import STRICT, Layers, Size


@dataclass(frozen=True, config=STRICT)
class TransformerConfig:
    """Sizes of a transformer.

    `patch` is the side of a patch in pixels, `width` that of a token, `hidden` the inner width of a block's perceptron,
    `depth` the number of blocks, half of them over space and half over time, and `embedding` the width of a
    conditioning vector. Raises `ValueError` for sizes that do not fit together.
    """

    width: Size = 128
    hidden: Size = 512
    heads: Size = 4
    depth: Layers = 6
    patch: Size = 4
    embedding: Size = 128

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 and of its {self.heads} heads")
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"depth {self.depth} must be even: every block over space has one over time")


class Transformer(Recomputing):
    """Network from (B, T, inputs, H, W), times and conditioning vectors to (B, T, 3, H, W).

    Raises `ValueError` for a clip shape that the patch size does not divide.
    """

    places: Tensor

    def __init__(self, config: TransformerConfig, *, shape: ClipShape, inputs: int = 3) -> None:
        super().__init__()
        if shape.height % config.patch or shape.width % config.patch:
            raise ValueError(f"clips of {shape} cannot be cut into patches of {config.patch}x{config.patch} pixels")
        self.config = config
        width, embedding, pixels = config.width, config.embedding, config.patch**2
        self.time = nn.Sequential(nn.Linear(128, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Linear(inputs * pixels, width)
        self.register_buffer("places", _position_codes(shape, config), persistent=False)  # computed, so not saved
        self.blocks = nn.ModuleList(
            Block(width, config.hidden, config.heads, config.embedding) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.head = nn.Linear(width, 3 * pixels)
        _zero_init(self.modulate, self.head)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map `x` (B, T, inputs, H, W) at integer times `t` (B,) with `cond` (B, embedding) to (B, T, 3, H, W)."""
        embedding = F.silu(self.time(sinusoidal(t, 128)) + cond)
        h = self.stem(_to_patches(x, self.config.patch)) + self.places
        for block in self.blocks:
            # (B, T, L, C) over space, (B, L, T, C) over time: one copy per block is cheaper than copying its q, k, v.
            h = self.block(block, h, embedding).transpose(1, 2).contiguous()
        shift, scale = self.modulate(embedding)[:, None, None].chunk(2, dim=-1)
        h = self.head(self.norm(h) * (1 + scale) + shift)
        return _to_pixels(h, self.config.patch, x.shape[-2])


class Block(nn.Module):
    """Attention and a perceptron, each shifted, scaled and gated by the embedding; initialised as the identity."""

    def __init__(self, width: int, hidden: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # without weights, so both branches share it
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.perceptron = nn.Sequential(first, nn.GELU("tanh"), second)
        self.modulate = nn.Linear(embedding, 6 * width)
        for layer in (self.qkv, self.out, first, second):  # as in DiT
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        _zero_init(self.modulate)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, G, L, C) to the same shape; each of G groups attends over its L tokens. `embedding` is (B, E)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(embedding)[:, None, None].chunk(6, dim=-1)
        x = x + gate1 * self._attend(self.norm(x) * (1 + scale1) + shift1)
        out: Tensor = x + gate2 * self.perceptron(self.norm(x) * (1 + scale2) + shift2)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, groups, length, width = x.shape
        qkv = self.qkv(x).view(batch * groups, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v).transpose(1, 2)
        out: Tensor = self.out(attended.reshape(batch, groups, length, width))
        return out


def _zero_init(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _position_codes(shape: ClipShape, config: TransformerConfig) -> Tensor:
    """Position codes (T, L, width): frame codes in all channels, row and column codes in one half each."""
    rows, columns = shape.height // config.patch, shape.width // config.patch
    frame = sinusoidal(torch.arange(shape.frames), config.width)
    row, column = (sinusoidal(torch.arange(count), config.width // 2) for count in (rows, columns))
    patch = torch.cat([row[:, None].expand(-1, columns, -1), column.expand(rows, -1, -1)], dim=-1)
    return frame[:, None] + patch.flatten(0, 1)


def _to_patches(x: Tensor, patch: int) -> Tensor:
    """Cut (B, T, C, H, W) into patches, row by row: (B, T, L, C * patch * patch)."""
    batch, frames, channels, height, width = x.shape
    patches = x.reshape(batch, frames, channels, height // patch, patch, width // patch, patch)
    return patches.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, frames, -1, channels * patch**2)


def _to_pixels(x: Tensor, patch: int, height: int) -> Tensor:
    """Inverse of `_to_patches` for clips of this height in pixels."""
    batch, frames, count, values = x.shape
    rows = height // patch
    patches = x.view(batch, frames, rows, count // rows, values // patch**2, patch, patch)
    return patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, values // patch**2, height, -1)
