"""Factorised space-time U-Net of the built-in U-Net models (after VDM, arXiv 2204.03458).

Every block convolves over pixels, then over neighbouring frames. At the coarse levels, blocks also attend over all
frames, pixel by pixel. With `frames=1` the same blocks make an image U-Net. Frames are folded into the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from vfbench.nets.attention import attention
from vfbench.nets.embedding import sinusoidal
from vfbench.nets.recompute import Recomputing
from vfbench.utils.records import STRICT, Layers, Size

# Parts of tensors' names. The first two kinds are zero at first, so that a network without them can be loaded.
FRAME_CONDITIONS = (".frame_condition.",)
FRAME_MIXERS = (".mix.", ".temporal.")  # an image model has none
FRAME_EMBEDDING = "network.frame"  # an image model has one row

# Memory layout by type of device. Channels last is about twice as fast on a CPU. On CUDA torch's group normalisation
# gives its output channels first, so that each convolution would change the layout again.
LAYOUTS = {"cuda": torch.contiguous_format}
DEFAULT_LAYOUT = torch.channels_last


def layout(device: torch.device) -> torch.memory_format:
    """Memory layout of a U-Net on a device."""
    return LAYOUTS.get(device.type, DEFAULT_LAYOUT)


@dataclass(frozen=True, config=STRICT)
class UNetConfig:
    """Sizes of a U-Net.

    `patch` is the space-to-depth factor of the stem. `channels` are the widths of the levels, each at half the
    resolution of the one before. `blocks` is the number of residual blocks per level on the way down (one more on the
    way up). `attention` are the levels that attend over frames; the coarsest level always attends over pixels.
    `embedding` is the width of a conditioning vector. `frame_condition` multiplies it with the frame index, see
    `FrameCondition`.
    """

    channels: Annotated[Sequence[Size], Field(min_length=1, max_length=12)] = (32, 64, 96)
    blocks: Layers = 1
    patch: Size = 2
    attention: Sequence[int] = (1, 2)
    embedding: Size = 128
    frame_condition: bool = False

    @property
    def multiple(self) -> int:
        """Number that height and width must be a multiple of, so that every level can halve the resolution."""
        return self.patch << (len(self.channels) - 1)


class UNet(Recomputing):
    """Network from (B, T, inputs, H, W), times and conditioning vectors to (B, T, 3, H, W); it knows the frame index.

    Raises `ValueError` for frames whose height or width is no multiple of `UNetConfig.multiple`.
    """

    def __init__(self, config: UNetConfig, *, frames: int, inputs: int = 3) -> None:
        super().__init__()
        self.config, self.frames = config, frames
        width, pixels = config.embedding, config.patch**2
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.frame = nn.Parameter(torch.randn(frames, width) * 0.02)  # embedding of the frame index
        self.frame_condition = FrameCondition(width, frames) if config.frame_condition and frames > 1 else None
        self.stem = nn.Conv2d(inputs * pixels, config.channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink = nn.ModuleList()
        skips = [config.channels[0]]
        channels = config.channels[0]
        for level, level_channels in enumerate(config.channels):
            if level:
                self.shrink.append(nn.Conv2d(channels, level_channels, 3, stride=2, padding=1))
                channels = level_channels
                skips.append(channels)
            for _ in range(config.blocks):
                self.down.append(self._layer(channels, channels, level))
                skips.append(channels)
        self.middle = self._layer(channels, channels, len(config.channels) - 1)
        for level, level_channels in reversed(list(enumerate(config.channels))):
            for _ in range(config.blocks + 1):
                self.up.append(self._layer(channels + skips.pop(), level_channels, level))
                channels = level_channels
        self.norm = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels, 3 * pixels, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=DEFAULT_LAYOUT)

    def _layer(self, inputs: int, outputs: int, level: int) -> Layer:
        coarsest = level == len(self.config.channels) - 1
        return Layer(
            inputs,
            outputs,
            self.config.embedding,
            frames=self.frames,
            spatial=coarsest,
            temporal=level in self.config.attention,
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map `x` (B, T, inputs, H, W) at integer times `t` (B,) with `cond` (B, embedding) to (B, T, 3, H, W)."""
        batch, frames, _, height, width = x.shape
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(f"{height}x{width} pixels: both sides must be multiples of {self.config.multiple}")
        embedding = self.time(sinusoidal(t, 128)) + cond
        by_frame = embedding[:, None] + self.frame
        if self.frame_condition is not None:
            by_frame = by_frame + self.frame_condition(cond)
        embedding = F.silu(by_frame).flatten(0, 1)  # (B*T, embedding)
        h = F.pixel_unshuffle(x.flatten(0, 1), self.config.patch).contiguous(memory_format=layout(x.device))
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


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, its U-Nets in the layout of that device."""
    model.to(device)
    for network in model.modules():
        if isinstance(network, UNet):
            network.to(memory_format=layout(device))


class FrameCondition(nn.Module):
    """Product of linear maps of the conditioning vector and of the frame index; zero at first.

    What a caption asks for depends on the frame, such as the place of a shape that moves left. From a sum of the two,
    networks learn this late.
    """

    code: Tensor

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.of_condition, self.of_frame = nn.Linear(width, width), nn.Linear(width, width)
        for parameter in self.of_condition.parameters():
            nn.init.zeros_(parameter)
        code = sinusoidal(torch.arange(frames) * (1000 / frames), width)
        self.register_buffer("code", code, persistent=False)  # computed, so not saved

    def forward(self, cond: Tensor) -> Tensor:
        """Map conditioning vectors (B, width) to (B, T, width)."""
        code = self.code.expand(len(cond), -1, -1)  # for each clip, so that costs grow with the number of clips
        product: Tensor = self.of_condition(cond)[:, None] * self.of_frame(code)
        return product


class Layer(nn.Module):
    """Residual block with optional attention over pixels (`spatial`) and over frames (`temporal`)."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, frames: int, spatial: bool, temporal: bool
    ) -> None:
        super().__init__()
        self.frames = frames
        self.residual = ResidualBlock(inputs, outputs, embedding, frames)
        self.spatial = Attention(outputs) if spatial else None
        self.temporal = Attention(outputs) if temporal and frames > 1 else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B*T, C, h, w) to (B*T, outputs, h, w), modulated by `embedding` (B*T, E)."""
        x = self.residual(x, embedding)
        if self.spatial is None and self.temporal is None:
            return x
        n, c, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n, h * w, c)  # a view where channels are last
        if self.spatial is not None:
            tokens = self.spatial(tokens)
        if self.temporal is not None:
            over_time = tokens.view(-1, self.frames, h * w, c).transpose(1, 2).reshape(-1, self.frames, c)
            over_time = self.temporal(over_time).view(-1, h * w, self.frames, c)
            tokens = over_time.transpose(1, 2).reshape(n, h * w, c)
        return tokens.view(n, h, w, c).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, with a convolution over frames after the first; the embedding scales and shifts in between.

    The modulation is AdaGN (arXiv 2105.05233). The convolution split into space and time is R(2+1)D
    (arXiv 1711.11248).
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
        """Map (N, C, h, w) to (N, outputs, h, w), modulated by `embedding` (N, E)."""
        scale, shift = self.modulate(embedding)[..., None, None].chunk(2, dim=1)
        h = self.mix(self.conv1(F.silu(self.norm1(x))))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.skip(x) + h
        return out


class FrameConvolution(nn.Module):
    """Convolution over three neighbouring frames, pixel by pixel, with a residual path."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, h, w) to (B*T, C, h, w)."""
        n, c, h, w = x.shape
        # Where channels are last, (B, C, T, h*w) is a view. A plain 2D convolution runs along T.
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
        """Map (N, L, C) to (N, L, C)."""
        n, length, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(n, length, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v)
        out: Tensor = x + self.out(attended.transpose(1, 2).flatten(2))
        return out
