"""Frames to decode: the range, the choice of its frames from those of a decoder, and the error for missing ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.utils import text
from vfbench.video.header import header
from vfbench.video.properties import TooLarge
from vfbench.video.rotation import Pixels

Frames: TypeAlias = Iterator[tuple[int, Callable[[], Pixels]]]  # number of each frame, and a function of its pixels


class FrameRange(NamedTuple):
    """Frames `start`, `start + stride`, ...: `frames` of them, or all to the end for None."""

    start: int = 0
    frames: int | None = None
    stride: int = 1

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= self.start and (number - self.start) % self.stride == 0

    def __str__(self) -> str:
        count = "all frames" if self.frames is None else text.count(self.frames, "frame")
        return f"{count} from {self.start}" + f" at stride {self.stride}" * (self.stride > 1)

    @property
    def stop(self) -> int | None:
        """One past the last frame; None for a range to the end."""
        return None if self.frames is None else self.start + (self.frames - 1) * self.stride + 1


def select(path: str | os.PathLike[str], frame_range: FrameRange, frames: Frames) -> Iterator[Pixels]:
    """Pixels of the frames of a range, all of one size; raises `MissingData` unless the file has them all."""
    decoded, shape = 0, None
    for number, pixels in frames:
        if number in frame_range:
            image = pixels()
            shape = shape or image.shape
            if image.shape != shape:
                raise unreadable(path, frame_range, number, "the frame size changes within the video")
            yield image
        decoded = number + 1
        if decoded == frame_range.stop:
            return
    if frame_range.stop is not None or shape is None:
        raise unreadable(path, frame_range, decoded, "the video ends there")


def in_groups(
    path: str | os.PathLike[str], images: Iterator[Pixels], declared: int, size: int
) -> Iterator[UInt8[Tensor, "_ 3 height width"]]:
    """All `images` of a file, `size` at a time; the last group may be smaller.

    Raises `MissingData` before the last group where the number of images differs from `declared`.
    """
    for first in range(0, max(declared, 1), size):
        expected = min(size, declared - first)
        group = list(islice(images, expected))
        if len(group) < expected or first + expected == declared:
            decoded = first + len(group) + sum(1 for _ in images)
            if decoded != declared:
                raise unreadable(path, FrameRange(), decoded, "another number")
        yield torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2)


def unreadable(path: str | os.PathLike[str], frame_range: FrameRange, decoded: int, reason: str) -> MissingData:
    """Error for a file that ends or is damaged after `decoded` frames, or whose frames are too large."""
    try:
        counts = f"declared {header(path).frames}, decoded {decoded}"
    except TooLarge as error:
        return error
    except MissingData:  # no readable header
        counts = f"decoded {decoded}"
    return MissingData(
        f"{os.fspath(path)}: needs {frame_range}, {counts} ({reason}); get this file again or take it out"
    )
