"""Declared properties of a video file, and the limit of its frame size."""

from __future__ import annotations

import os
from typing import NamedTuple

from vfbench.errors import MissingData

MAX_PIXELS = 1 << 26  # of a frame, as many as 8192 x 8192: a small file can claim more than the memory holds


class Header(NamedTuple):
    """Declared frame count, height and width as displayed, frames per second, codec and pixel format."""

    frames: int
    height: int
    width: int
    rate: float | None
    codec: str
    pixels: str


class TooLarge(MissingData):
    """A file whose frames are declared to have more than `MAX_PIXELS` pixels."""


def require_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    """Raise `TooLarge` for frames of more than `MAX_PIXELS` pixels, before memory is taken for them."""
    if width * height > MAX_PIXELS:
        size = f"its frames are {width}x{height}, the limit is {MAX_PIXELS:,} pixels"
        raise TooLarge(f"{os.fspath(path)}: {size}; make them smaller or take the file out")
