"""Clips as sprite sheets: all frames of a clip in one picture, of which a page shows one frame at a time.

Frames of a sheet can be stepped one by one in any browser. An animated WebP plays on its own, and a browser steps a
video to about the right frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from vfbench.utils.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

LOSSLESS_SIDE = 64  # pixels; larger frames are compressed
QUALITY = 80
LARGEST_SIDE = 16_383  # pixels of a WebP


@dataclass(frozen=True, slots=True)
class Sprite:
    """A sheet in a report: file below the report's folder, number and size of the frames, frames in a row."""

    file: str
    frames: int
    width: int
    height: int
    columns: int


def write_sprite(folder: Path, file: str, clip: Tensor) -> Sprite:
    """Write a clip, uint8 (T, 3, H, W), as a WebP: lossless where frames are small, else of quality 80.

    Frames beyond what a WebP can hold are left out. Raises `BadEnvironment` where the file cannot be written.
    """
    height, width = clip.shape[-2:]
    columns = max(1, min(math.ceil(math.sqrt(len(clip) * height / width)), LARGEST_SIDE // width))
    clip = clip[: columns * (LARGEST_SIDE // height)]
    rows = math.ceil(len(clip) / columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for number, frame in enumerate(clip.permute(0, 2, 3, 1).contiguous().numpy()):
        sheet.paste(Image.fromarray(frame), (number % columns * width, number // columns * height))
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / file) as path:
        sheet.save(path, "WEBP", lossless=max(height, width) <= LOSSLESS_SIDE, quality=QUALITY)
    return Sprite(file, len(clip), width, height, columns)
