"""Range of frames to decode, and the error for a file that lacks some of them."""

from __future__ import annotations

import os
from typing import NamedTuple

from vfbench.errors import MissingData
from vfbench.utils import text
from vfbench.video.header import header


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


def unreadable(path: str | os.PathLike[str], frame_range: FrameRange, decoded: int, reason: str) -> MissingData:
    """Error for a file that ends or is damaged after `decoded` frames."""
    try:
        counts = f"declared {header(path).frames}, decoded {decoded}"
    except MissingData:  # no readable header
        counts = f"decoded {decoded}"
    return MissingData(
        f"{os.fspath(path)}: needs {frame_range}, {counts} ({reason}); get this file again or take it out"
    )
