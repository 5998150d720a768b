"""How frames reach the size that a feature network wants: the resize rules of published protocols.

Frames are float32 (N, 3, H, W) in 0..255 and stay so; scaling is the network's own business. The rules differ by less
than a source pixel, and an FVD by more than two good models do: a protocol names one of them, and sticks to it.

    tf1_bilinear      DeepMind's FVD, MAGVIT                the grid of TensorFlow 1
    bilinear          TATS, LVDM, StyleGAN-V, cd-fvd        half-pixel centres, the aspect is not kept
    short_side_crop   VideoGPT, DIGAN, PVDM, MCVD           half-pixel centres, short side, then the centre
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def tf1_bilinear(frames: Float[Tensor, "n 3 _ _"], height: int, width: int) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resize (N, 3, H, W) as `tf.image.resize_bilinear` of TensorFlow 1 did, without keeping the aspect.

    Pixel i of the result is read at i * in / out: no half pixel is added, so the picture moves by (1 - in / out) / 2
    pixels of the source against `bilinear`. The last pixels have no right neighbour and repeat. Never antialiased.
    """
    rows, below, down = _taps(frames, frames.shape[-2], height)
    columns, beside, right = _taps(frames, frames.shape[-1], width)
    tall = torch.lerp(frames[..., rows, :], frames[..., below, :], down[:, None])
    return torch.lerp(tall[..., columns], tall[..., beside], right)


def _taps(frames: Tensor, size: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each new pixel of one axis its two neighbours, and the weight of the second."""
    place = torch.arange(new, dtype=torch.float32, device=frames.device) * (size / new)
    first = place.floor().clamp(max=size - 1)
    return first.long(), (first.long() + 1).clamp(max=size - 1), place - first


def bilinear(
    frames: Float[Tensor, "n 3 _ _"], height: int, width: int, *, antialias: bool = False
) -> Float[Tensor, "n 3 {height} {width}"]:
    """Resize (N, 3, H, W) on half-pixel centres, without keeping the aspect; `antialias` averages what it shrinks."""
    return F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=antialias)


def short_side_crop(
    frames: Float[Tensor, "n 3 height width"], side: int, *, antialias: bool = False
) -> Float[Tensor, "n 3 {side} {side}"]:
    """Resize (N, 3, H, W) so that the short side becomes `side`, on half-pixel centres, then cut the centred square.

    The long side is rounded up; where the margin is odd, the extra pixel is cut right or below. As in VideoGPT's
    `preprocess` the factor is a float and a square counts as tall: of 100 x 100 pixels it makes 225 x 224, since
    100 * (224 / 100) is a little above 224.
    """
    height, width = frames.shape[-2:]
    scale = side / min(height, width)
    size = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return bilinear(frames, *size, antialias=antialias)[..., top : top + side, left : left + side]
