"""The factorised space-time U-Net that every built-in model is made of (after VDM, arXiv 2204.03458).

Every block convolves over pixels, then over neighbouring frames; attention over all frames, pixel by pixel, ties the
clip together at the coarse levels. With `frames=1` the same blocks make an image U-Net. Inside, frames are folded into
the batch and laid out channels-last, which is about twice as fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfbench.nets.embedding import sinusoidal
from vfbench.nets.recompute import Recomputing


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net.

    `patch` is the space-to-depth factor of the stem, `channels` the width of each level (each half as large as the one
    before), `blocks` the residual blocks a level on the way down (and one more on the way up), `attention` the levels
    that attend over frames (the coarsest also over pixels).
    """

    channels: Sequence[int] = (32, 64, 96)
    blocks: int = 1
    patch: int = 2
    attention: Sequence[int] = (1, 2)
    embedding: int = 128

    @property
    def multiple(self) -> int:
        """What both sides of a frame must be a multiple of, so that each level is half as large as the one before."""
        return self.patch << (len(self.channels) - 1)


class UNet(Recomputing):
    """(B, T, in, H, W) and a time, a condition vector and the frame index to (B, T, 3, H, W).

    Raises `ValueError` for frames whose sides are no multiples of `UNetConfig.multiple`.
    """

    def __init__(self, config: UNetConfig, *, frames: int, inputs: int = 3) -> None:
        super().__init__()
        self.config, self.frames = config, frames
        width, pixels = config.embedding, config.patch**2
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.frame = nn.Parameter(torch.randn(frames, width) * 0.02)  # the frame index as a condition
        self.stem = nn.Conv2d(inputs * pixels, config.channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink = nn.ModuleList()
        skips = [config.channels[0]]
        channels = config.channels[0]
        for level, wanted in enumerate(config.channels):
            if level:
                self.shrink.append(nn.Conv2d(channels, wanted, 3, stride=2, padding=1))
                channels = wanted
                skips.append(channels)
            for _ in range(config.blocks):
                self.down.append(self._layer(channels, channels, level))
                skips.append(channels)
        self.middle = self._layer(channels, channels, len(config.channels) - 1)
        for level, wanted in reversed(list(enumerate(config.channels))):
            for _ in range(config.blocks + 1):
                self.up.append(self._layer(channels + skips.pop(), wanted, level))
                channels = wanted
        self.norm = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels, 3 * pixels, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)

    def _layer(self, inputs: int, outputs: int, level: int) -> Layer:
        last = level == len(self.config.channels) - 1
        return Layer(
            inputs,
            outputs,
            self.config.embedding,
            frames=self.frames,
            spatial=last,
            temporal=level in self.config.attention,
        )

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """`x` (B, T, in, H, W), `t` (B,) integer times, `condition` (B, embedding)."""
        batch, frames, _, height, width = x.shape
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(f"{height}x{width} pixels: both sides must be multiples of {self.config.multiple}")
        embedding = self.time(sinusoidal(t, 128)) + condition
        embedding = F.silu(embedding[:, None] + self.frame).flatten(0, 1)  # (B*T, embedding)
        h = F.pixel_unshuffle(x.flatten(0, 1), self.config.patch).contiguous(memory_format=torch.channels_last)
        h = self.stem(h)
        skips, per_level = [h], self.config.blocks
        for i, layer in enumerate(self.down):
            if i and i % per_level == 0:
                h = self.shrink[i // per_level - 1](h)
                skips.append(h)
            h = self.block(layer, h, embedding)
            skips.append(h)
        h = self.block(self.middle, h, embedding)
        for i, layer in enumerate(self.up):
            if i and i % (per_level + 1) == 0:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.block(layer, torch.cat([h, skips.pop()], dim=1), embedding)
        h = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.config.patch)
        return h.view(batch, frames, *h.shape[1:])


class Layer(nn.Module):
    """A residual block and, where asked, attention over pixels and over frames."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, frames: int, spatial: bool, temporal: bool
    ) -> None:
        super().__init__()
        self.frames = frames
        self.residual = ResidualBlock(inputs, outputs, embedding, frames)
        self.spatial = Attention(outputs) if spatial else None
        self.temporal = Attention(outputs) if temporal and frames > 1 else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B*T, C, h, w) with its embedding (B*T, E)."""
        x = self.residual(x, embedding)
        if self.spatial is None and self.temporal is None:
            return x
        n, c, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n, h * w, c)  # a view: the layout is channels-last
        if self.spatial is not None:
            tokens = self.spatial(tokens)
        if self.temporal is not None:
            over_time = tokens.view(-1, self.frames, h * w, c).transpose(1, 2).reshape(-1, self.frames, c)
            over_time = self.temporal(over_time).view(-1, h * w, self.frames, c)
            tokens = over_time.transpose(1, 2).reshape(n, h * w, c)
        return tokens.view(n, h, w, c).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, one over frames behind the first; the embedding scales and shifts between them.

    The modulation is AdaGN (arXiv 2105.05233), the split of a convolution into space and time R(2+1)D (1711.11248).
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, frames: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.mix = FrameConvolution(outputs, frames) if frames > 1 else nn.Identity()
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, C, h, w) to (N, outputs, h, w)."""
        scale, shift = self.modulate(embedding)[..., None, None].chunk(2, dim=1)
        h = self.mix(self.conv1(F.silu(self.norm1(x))))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.skip(x) + h
        return out


class FrameConvolution(nn.Module):
    """A convolution over three neighbouring frames, pixel by pixel, with a residual path."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B*T, C, h, w) to (B*T, C, h, w)."""
        n, c, h, w = x.shape
        # Channels-last, so (B, C, T, h*w) is a view of the same memory, and a plain 2D convolution runs along T.
        frames_by_pixels = x.permute(0, 2, 3, 1).reshape(-1, self.frames, h * w, c).permute(0, 3, 1, 2)
        mixed: Tensor = self.conv(frames_by_pixels)
        return x + mixed.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over the middle axis of (N, L, C), with a residual path."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(channels // head, 1), 0, -1) if channels % h == 0)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, L, C)."""
        n, length, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(n, length, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(attended.transpose(1, 2).flatten(2))
        return out
