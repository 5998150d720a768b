"""Conversion of float pixels to bytes, and a check of the value range."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Quantise


class NotFinitePixels(ValueError):
    """Pixels are NaN or infinite."""


def to_uint8(x: Float[Tensor, "*shape"], quantise: Quantise = "round") -> UInt8[Tensor, "*shape"]:
    """Floats in [0, 1] as bytes: round(255 x), clamped, halves to even; `truncate` drops the fraction instead.

    Rounding restores the byte that a float came from. Truncation makes 63 of the 256 levels one too dark; some
    published protocols use it. Raises TypeError for anything but floats, and `NotFinitePixels` for NaN or infinity.
    """
    if not x.is_floating_point():
        raise TypeError(f"to_uint8 takes floats in [0, 1], got {x.dtype}")
    if not torch.isfinite(x).all():
        raise NotFinitePixels(f"to_uint8 got NaN or infinity in a tensor of shape {tuple(x.shape)}")
    return to_bytes(x.float() * 255, quantise)


def to_bytes(levels: Float[Tensor, "*shape"], quantise: Quantise = "round") -> UInt8[Tensor, "*shape"]:
    """Finite floats in 0..255 as bytes, by the rules of `to_uint8`. Overwrites its argument."""
    levels = levels.clamp_(0, 255)
    return (levels.round_() if quantise == "round" else levels).to(torch.uint8)


def require_byte_range(
    clips: UInt8[Tensor, "batch frames 3 height width"],
) -> UInt8[Tensor, "batch frames 3 height width"]:
    """Return `clips` unchanged; raise for other types than uint8, and `UserError` for bytes that are only 0 and 1.

    Such bytes are floats in 0..1 cut to integers, and their score is meaningless (0.0149 instead of about 131 in one
    known case).
    """
    if clips.dtype != torch.uint8:
        raise TypeError(f"clips must be uint8 in 0..255, got {clips.dtype}: see vfbench.video.to_uint8")
    if clips.numel() and int(clips.max()) == 1:  # a black clip has no 1
        raise UserError("all bytes of these clips are 0 or 1: multiply floats in 0..1 by 255 (vfbench.video.to_uint8)")
    return clips
