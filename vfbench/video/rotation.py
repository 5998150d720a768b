"""Display rotation: a file may store frames on their side, with a display matrix that turns them upright."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from av import VideoFrame

Pixels: TypeAlias = UInt8[np.ndarray, "_ _ 3"]


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Display matrix of a frame as nine fixed-point numbers; None where the frame is shown as stored."""
    try:
        side_data: Mapping[str, Any] = frame.side_data
    except ValueError:  # of a type that FFmpeg knows and PyAV cannot name
        _accept_unnamed_types()
        side_data = frame.side_data
    data = side_data.get("DISPLAYMATRIX") if len(side_data) else None  # most frames have none, and a lookup is slow
    return None if data is None else struct.unpack("=9i", bytes(data))


def _accept_unnamed_types() -> None:
    """Let PyAV list side data of types that it has no name for, such as EXIF: it refuses all data of such a frame."""
    from av.sidedata.sidedata import Type

    def unnamed(cls: type[Type], value: Any) -> Type:
        member = object.__new__(cls)
        member._name_, member._value_ = f"UNNAMED_{value}", value
        return member

    Type._missing_ = classmethod(unnamed)  # type: ignore[assignment,method-assign]


def apply_matrix(image: Pixels, matrix: Sequence[int]) -> Pixels:
    """Apply a display matrix: x' = ax + cy, y' = bx + dy. Quarter turns and mirrors only; other angles are ignored."""
    a, b, _, c, d, *_ = matrix
    if (a or d) and (b or c):
        return image
    if b or c:
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def displayed_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width of a frame as displayed."""
    matrix = display_matrix(frame)
    swapped = matrix is not None and not (matrix[0] or matrix[4]) and (matrix[1] or matrix[3])
    return (frame.width, frame.height) if swapped else (frame.height, frame.width)
