"""Frames as they are shown: a file may store them lying, with a display matrix that turns them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from av import VideoFrame

Pixels: TypeAlias = UInt8[np.ndarray, "_ _ 3"]


def matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """The display matrix of a frame as its nine fixed-point numbers, or None where it is shown as stored."""
    side_data: Mapping[str, Any] = frame.side_data
    found = side_data.get("DISPLAYMATRIX") if len(side_data) else None  # most frames have none, and a search is slow
    return None if found is None else struct.unpack("=9i", bytes(found))


def upright(image: Pixels, turn: Sequence[int]) -> Pixels:
    """Apply a display matrix: x' = ax + cy, y' = bx + dy. Quarter turns and mirrors only; any other angle is left."""
    a, b, _, c, d, *_ = turn
    if (a or d) and (b or c):
        return image
    if b or c:
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def shown(frame: VideoFrame) -> tuple[int, int]:
    """Height and width of a frame as it is shown."""
    turn = matrix(frame)
    lying = turn is not None and not (turn[0] or turn[4]) and (turn[1] or turn[3])
    return (frame.width, frame.height) if lying else (frame.height, frame.width)
