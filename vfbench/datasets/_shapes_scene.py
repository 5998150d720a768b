"""Attributes of a Moving Shapes clip: what can be drawn, and what each index gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ("circle", "square", "triangle")
MOTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "spins clockwise",
    "spins counterclockwise",
    "grows",
    "shrinks",
    "bounces",
    "stays still",
)
SIZES = {"small": 0.14, "large": 0.22}  # radius as a fraction of the short side
TEXTURES = ("stripes", "checks", "dots", "gradient")
COLOURS = {
    "red": (230, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 225, 60),
    "green": (50, 190, 70),
    "cyan": (60, 210, 225),
    "blue": (60, 90, 235),
    "pink": (235, 90, 200),
    "white": (240, 240, 240),
}
CLASSES = tuple(f"{shape} {motion}" for motion in MOTIONS for shape in SHAPES)


@dataclass(frozen=True)
class Scene:
    """Attributes of a batch of clips: integer tensors (B,) that index the tables of this module."""

    motion: Tensor
    shape: Tensor
    colour: Tensor
    size: Tensor
    texture: Tensor
    background: Tensor  # colour
    jitter: Tensor  # (B, 3) in 0..255: x offset, y offset, phase of the texture


def make_scene(index: Tensor) -> Scene:
    """Scene of each global index, int64 (B,). Each block of 30 indices holds every class once, in hashed order."""
    import torch

    block = index // len(CLASSES)
    label = (index * 7 + _hash(block, 0)) % len(CLASSES)
    colour = _hash(index, 1) % len(COLOURS)
    background = (colour + 1 + _hash(index, 2) % (len(COLOURS) - 1)) % len(COLOURS)  # never the shape's colour
    return Scene(
        motion=label // len(SHAPES),
        shape=label % len(SHAPES),
        colour=colour,
        size=_hash(index, 3) % len(SIZES),
        texture=_hash(index, 4) % len(TEXTURES),
        background=background,
        jitter=torch.stack([_hash(index, salt) & 255 for salt in (5, 6, 7)], dim=1),
    )


def _hash(index: Tensor, salt: int) -> Tensor:
    """32-bit hash of (index, salt): the murmur3 finaliser in wrapping int64 arithmetic."""
    h = (index * 0x9E3779B1 + salt * 0x7F4A7C15 + 0x165667B1) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> shift)) * factor) & 0xFFFFFFFF
    return h ^ (h >> 16)
