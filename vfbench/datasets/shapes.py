"""Moving Shapes: the built-in dataset, rendered from clip indices without any download.

A clip shows one coloured shape over a textured background. A dark mark on the shape makes the spin of a circle visible.
An integer hash of the clip's index gives every attribute, and pixels use only correctly rounded arithmetic, so an index
gives the same bytes on every machine. The class is motion x shape. The caption names every attribute: "a small red
triangle moves left over blue stripes".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vfbench.datasets import _options
from vfbench.datasets._shapes_scene import CLASSES, COLOURS, MOTIONS, SHAPES, SIZES, TEXTURES, make_scene
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Split
from vfbench.protocol.protocol import CAPTION_MEASURES, JUDGE_MEASURES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vfbench.interfaces import Clips

# Train and test are disjoint ranges of one index space.
SPLIT_RANGES: dict[Split, range] = {"train": range(0, 1 << 20), "test": range(1 << 20, (1 << 20) + (1 << 17))}
# Metric values in float64, against 2,048 real clips of the train split.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "shapes": {
        "start": "zero",
        "geometry": "native",
        "filter": "none",
        "antialias": False,
        "n_real": 2048,
        "measures": {**JUDGE_MEASURES, **CAPTION_MEASURES},
    }
}
# Fields that override a preset made for real video: these clips are rendered at the size asked for.
SETTLED: Mapping[str, Any] = {
    "height": 32,
    "width": 32,
    "stride": 1,
    "start": "zero",
    "geometry": "native",
    "filter": "none",
    "antialias": False,
}
VERSION = 1  # part of the fingerprint; increase it whenever a pixel of any clip changes
RENDER_BATCH = 32  # clips rendered at once, so that the working set stays in a core's cache


def build(*, frames: _options.Frames = 16, height: _options.Height = 32, width: _options.Width = 32) -> Shapes:
    """Moving Shapes at any length and resolution, with 2^20 clips in `train` and 2^17 in `test`.

    Raises `UserError` for less than 1 frame or 8x8 pixels.
    """
    if frames < 1 or min(height, width) < 8:
        raise UserError(f"shapes: {frames}x{height}x{width} is too small: at least 1 frame of 8x8 pixels")
    return Shapes(ClipShape(frames, height, width))


class Shapes:
    """Moving Shapes at one length and resolution."""

    name = "shapes"
    classes = CLASSES
    words = tuple(
        sorted(
            {w for words in (MOTIONS, SHAPES, SIZES, TEXTURES, COLOURS, ("a over",)) for s in words for w in s.split()}
        )
    )

    def __init__(self, shape: ClipShape) -> None:
        self.shape = shape
        self.fingerprint = hashlib.sha256(f"shapes/{VERSION}/{shape}".encode()).hexdigest()

    def size(self, split: Split) -> int:
        """Number of clips in the split."""
        return len(SPLIT_RANGES[split])

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """Clips at `indices`, uint8 (B, T, 3, H, W), rendered on `device`."""
        import torch

        from vfbench.datasets._shapes_render import render
        from vfbench.utils.device import to_device

        index = self._global_index(split, indices)
        index = index if device is None else to_device(index, device)
        return torch.cat([render(make_scene(batch), self.shape) for batch in torch.split(index, RENDER_BATCH)])

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Class of each clip, an index into `classes`."""
        scene = make_scene(self._global_index(split, indices))
        return [int(label) for label in scene.motion * len(SHAPES) + scene.shape]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """Caption of each clip, with all its attributes."""
        scene = make_scene(self._global_index(split, indices))
        colours, sizes = list(COLOURS), list(SIZES)
        fields = (scene.size, scene.colour, scene.shape, scene.motion, scene.background, scene.texture)
        return [
            f"a {sizes[size]} {colours[colour]} {SHAPES[shape]} {MOTIONS[motion]} over {colours[background]} "
            f"{TEXTURES[texture]}"
            for size, colour, shape, motion, background, texture in zip(*fields, strict=True)
        ]

    def _global_index(self, split: Split, indices: Sequence[int]) -> Tensor:
        import torch

        return torch.tensor([SPLIT_RANGES[split][i] for i in indices], dtype=torch.int64)
