"""Resize rules of published protocols, for the input of feature networks.

Frames are float32 (N, 3, H, W) in 0..255 before and after. The rules differ by less than a source pixel, but change FVD
by more than the difference of two good models: a protocol fixes one of them.

    tf1_bilinear      DeepMind's FVD, MAGVIT                grid of TensorFlow 1
    bilinear          TATS, LVDM, StyleGAN-V, cd-fvd        half-pixel centres, aspect ratio not kept
    short_side_crop   VideoGPT, DIGAN, PVDM, MCVD           half-pixel centres, short side, then centre crop
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def tf1_bilinear(frames: Float[Tensor, "n 3 _ _"], height: int, width: int) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resize (N, 3, H, W) as `tf.image.resize_bilinear` of TensorFlow 1, without keeping the aspect ratio.

    Output pixel i samples position i * in / out, without the half-pixel offset, so the image is shifted by
    (1 - in / out) / 2 source pixels relative to `bilinear`. The border pixel repeats. Never antialiased.
    """
    rows, below, down = _taps(frames, frames.shape[-2], height)
    columns, beside, right = _taps(frames, frames.shape[-1], width)
    tall = torch.lerp(frames[..., rows, :], frames[..., below, :], down[:, None])
    return torch.lerp(tall[..., columns], tall[..., beside], right)


def _taps(frames: Tensor, size: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the two source pixels of each new pixel along one axis, and the weight of the second."""
    position = torch.arange(new, dtype=torch.float32, device=frames.device) * (size / new)
    first = position.floor().clamp(max=size - 1)
    return first.long(), (first.long() + 1).clamp(max=size - 1), position - first


def bilinear(
    frames: Float[Tensor, "n 3 _ _"], height: int, width: int, *, antialias: bool = False
) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resize (N, 3, H, W) with half-pixel centres, not keeping the aspect ratio; `antialias` filters downscaling."""
    return F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=antialias)


def short_side_crop(
    frames: Float[Tensor, "n 3 height width"], side: int, *, antialias: bool = False
) -> Float[Tensor, "n 3 {side} {side}"]:
    """Resize (N, 3, H, W) so that the short side becomes `side`, with half-pixel centres, then crop the centre square.

    The long side is rounded up; an odd margin loses its extra pixel on the right or at the bottom. As in VideoGPT's
    `preprocess` the scale is a float and a square counts as tall: 100 x 100 pixels become 225 x 224, since
    100 * (224 / 100) is slightly above 224.
    """
    height, width = frames.shape[-2:]
    scale = side / min(height, width)
    size = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return bilinear(frames, *size, antialias=antialias)[..., top : top + side, left : left + side]
