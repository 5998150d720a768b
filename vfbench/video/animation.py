"""Animated WebP and PNG files (`.webp`, `.apng`), decoded by Pillow: FFmpeg reads no animated WebP.

As in every video, frames are counted and their durations ignored. The default image of an animated PNG is skipped where
it is no part of the animation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import PIL
from PIL import ImageFile, features

from vfbench.video.images import open_image, to_pixels
from vfbench.video.properties import Header
from vfbench.video.riff import chunks

if TYPE_CHECKING:
    from vfbench.video.frame_range import Frames

SUFFIXES = (".webp", ".apng")
HEAD_BYTES = 1 << 15  # read of a WebP to tell how its first frame is compressed
FRAME_HEADER_BYTES = 16  # of a WebP frame, before its chunks


def is_animation(path: str | os.PathLike[str]) -> bool:
    """True for a file that Pillow decodes, by its suffix."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def version() -> str:
    """Versions of Pillow and of the library that determine the pixels."""
    return f"pillow {PIL.__version__} (libwebp {features.version('webp')})"


def header(path: str | os.PathLike[str]) -> Header:
    """Declared properties of an animation; the frame rate is that of the first frame."""
    with open_image(path) as image:
        first, total = _frame_numbers(image)
        duration = next(_durations(image, range(first, first + 1)), 0)
        rate = 1000 / duration if duration else None
        lossless = image.format != "WEBP" or _is_lossless(Path(path))
        codec = str(image.format).lower()
        return Header(total, image.height, image.width, rate, codec, "rgb24" if lossless else "yuv420p")


def frames(image: ImageFile.ImageFile, name: str) -> Frames:
    """Numbered frames of an open animation; `name` is for messages. Raises as `vfbench.video.images.to_pixels`."""
    first, total = _frame_numbers(image)
    for number in range(total):
        image.seek(first + number)
        yield number, partial(to_pixels, image, name)


def times(path: str | os.PathLike[str]) -> list[float]:
    """Time in milliseconds at which each frame is shown."""
    with open_image(path) as image:
        first, total = _frame_numbers(image)
        return [0.0, *accumulate(_durations(image, range(first, first + total - 1)))]


def _frame_numbers(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Pillow's number of the first frame, and the number of frames."""
    first = int(getattr(image, "default_image", False))
    return first, getattr(image, "n_frames", 1) - first


def _durations(image: ImageFile.ImageFile, numbers: range) -> Iterator[float]:
    """Duration of each frame in milliseconds."""
    for number in numbers:
        image.seek(number)
        image.load()
        yield float(image.info.get("duration") or 0)


def _is_lossless(path: Path) -> bool:
    """True for a WebP whose first frame is compressed without loss (chunk VP8L)."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for name, content in chunks(head):
        if name in (b"VP8L", b"VP8 ", b"ANMF"):
            return b"VP8L" in (name, content[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + 4])
    return False
