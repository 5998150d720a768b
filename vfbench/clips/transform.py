"""Frame selection, crop and resize of clips: every rule that a protocol can name.

    start      `vfbench.clips.starts`
    geometry   centre-crop: crop the largest centred square, then resize it
               resize-crop: resize the short side to that of the clip, then crop the centre; see `resized_sides`
               squash: resize the full frame; native: the full frame, not resized
    filter     bilinear: half-pixel centres, float32; lanczos: Pillow's; none: not resampled

The rules of published protocols are in `vfbench/protocol`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vfbench.clips.starts import clip_starts, shortest
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, derive_seed
from vfbench.protocol.protocol import CHOICES, MULTI_CLIP_STARTS
from vfbench.video import to_bytes

DEFAULT_FIT = ("centre-crop", "bilinear", True)  # geometry, filter, antialias
FRAMES_AT_ONCE = 4  # frames resized together: their floats fit into a core's cache

RESIZE_FIRST = ("resize-crop", "resize-crop-floor", "resize-crop-4:3")

Box: TypeAlias = tuple[int, int, int, int]
Corner: TypeAlias = tuple[int, int]  # left and top of the crop of a resized frame


@dataclass(frozen=True)
class ClipTransform:
    """Rules that turn videos into clips of `shape`; raises `UserError` naming an invalid option.

    The frames of a clip are `stride` apart, after the first `drop_first` frames of the video. `antialias` widens the
    bilinear filter when shrinking; `lanczos` always does so.
    """

    dataset: str  # for messages
    shape: ClipShape
    stride: int = 1
    drop_first: int = 0
    start: str = "zero"
    geometry: str = "centre-crop"
    filter: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        sides = {"frames": self.shape.frames, "height": self.shape.height, "width": self.shape.width}
        for name, value in {**sides, "stride": self.stride, "drop_first": self.drop_first}.items():
            if value < (least := 0 if name == "drop_first" else 1):
                raise UserError(f"{self.dataset}({name}={value}): {name} must be at least {least}")
        for name, choices in CHOICES.items():
            if (choice := getattr(self, name)) not in choices:
                raise UserError(f"{self.dataset}({name}={choice!r}): {name} must be one of {', '.join(choices)}")
        if self.geometry in RESIZE_FIRST and self.shape.height != self.shape.width:
            raise UserError(
                f"{self.dataset}(geometry={self.geometry!r}): it makes squares, not {self.shape}; set height = width, "
                "or geometry='squash'"
            )
        if self.filter == "lanczos" and not self.antialias:
            raise UserError(
                f"{self.dataset}(filter='lanczos', antialias=False): Lanczos always antialiases; "
                "set antialias=True or filter='bilinear'"
            )

    @property
    def multi_clip(self) -> bool:
        """True where a video gives several clips, as many as fit."""
        return self.start in MULTI_CLIP_STARTS

    @property
    def span(self) -> int:
        """Frames that a video needs for one clip, the dropped ones included."""
        return shortest(self.start, self.shape.frames, self.stride, self.drop_first)

    def clip_starts(self, name: str, count: int, seed: int = 0) -> Sequence[int]:
        """First frames of the clips of the video `name` with `count` frames; see the function `clip_starts`."""
        length = {"frames": self.shape.frames, "stride": self.stride, "drop_first": self.drop_first}
        return clip_starts(self.start, name, count, **length, seed=seed)

    @property
    def fitting(self) -> str:
        """Size and resize rule, such as `64x64 centre-crop bilinear antialias=True`."""
        shape = f"{self.shape.height}x{self.shape.width}"
        return f"{shape} {self.geometry} {self.filter} antialias={self.antialias}"

    def box(self, height: int, width: int) -> Box:
        """Crop (left, top, width, height) of a frame of this size."""
        return centre_box(height, width) if self.geometry == "centre-crop" else (0, 0, width, height)

    def random_crop(self, height: int, width: int, seed: int) -> tuple[Box, Corner | None]:
        """Box and corner for `fit` that put the crop of a frame of this size anywhere in it, drawn by `seed`."""
        box = self.box(height, width)
        if self.geometry in RESIZE_FIRST:
            side = self.shape.height
            tall, wide, *_ = resized_sides(self.geometry, height, width, side)
            return box, (_drawn(seed, "left", wide - side), _drawn(seed, "top", tall - side))
        _, _, box_width, box_height = box
        left, top = _drawn(seed, "left", width - box_width), _drawn(seed, "top", height - box_height)
        return (left, top, box_width, box_height), None

    def fit(
        self, frames: UInt8[Tensor, "frames 3 _ _"], name: str, box: Box | None = None, corner: Corner | None = None
    ) -> UInt8[Tensor, "frames 3 height width"]:
        """Crop and resize frames (T, 3, H, W) on the CPU.

        `box` replaces the crop of the geometry; `corner` replaces the place of a crop made after resizing.

        Raises `MissingData` naming the video for a crop outside the frame, and where the frames have another size and
        must not be resampled.
        """
        height, width = self.shape.height, self.shape.width
        left, top, crop_width, crop_height = box or self.box(frames.shape[-2], frames.shape[-1])
        if left + crop_width > frames.shape[-1] or top + crop_height > frames.shape[-2]:
            size = f"{frames.shape[-1]}x{frames.shape[-2]}"
            raise MissingData(f"{name} has {size} pixels (width x height): the crop {box} reaches outside")
        cropped = frames[..., top : top + crop_height, left : left + crop_width]
        if self.geometry == "native" or self.filter == "none":
            if cropped.shape[-2:] != (height, width):
                raise self._other_size(name, frames)
            return cropped
        if self.geometry not in RESIZE_FIRST:
            return self._resize(cropped, height, width)
        tall, wide, top, left = resized_sides(self.geometry, crop_height, crop_width, height)
        left, top = corner or (left, top)
        return self._resize(cropped, tall, wide)[..., top : top + height, left : left + width].contiguous()

    def _resize(
        self, frames: UInt8[Tensor, "frames 3 _ _"], height: int, width: int
    ) -> UInt8[Tensor, "frames 3 height width"]:
        if self.filter == "lanczos":
            return lanczos(frames, height, width)
        return resize(frames, height, width, antialias=self.antialias)

    def fingerprint(self) -> str:
        """All options that change a clip. `DEFAULT_FIT` is left out, so that the ids of earlier results stay valid."""
        frames = f"{self.shape}/{self.stride}/{self.start}/{self.drop_first}"
        fitting = (self.geometry, self.filter, self.antialias)
        return frames if fitting == DEFAULT_FIT else "/".join(map(str, (frames, *fitting)))

    def _other_size(self, name: str, frames: Tensor) -> MissingData:
        size, clip_size = f"{frames.shape[-1]}x{frames.shape[-2]}", f"{self.shape.width}x{self.shape.height}"
        rules = f"geometry={self.geometry!r}, filter={self.filter!r}"
        return MissingData(
            f"{name} has {size} pixels (width x height), which {self.dataset}({rules}) does not resize to {clip_size}; "
            "set geometry='centre-crop', filter='bilinear', or give clips of that size"
        )


def _drawn(seed: int, name: str, largest: int) -> int:
    """A number from 0 to `largest`."""
    return derive_seed(seed, 0, name) % (largest + 1)


def centre_box(height: int, width: int) -> Box:
    """The largest centred square of a frame; an odd margin loses its extra pixel on the right or below."""
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side


def resized_sides(geometry: str, height: int, width: int, side: int) -> tuple[int, int, int, int]:
    """Height and width to which a frame is resized, then top and left of the square of `side` that is cropped.

    `resize-crop`: the short side becomes `side`, the other is rounded up, an odd margin loses its extra pixel at the
    end (VideoGPT, TATS, cd-fvd). `resize-crop-floor`: the other side is rounded down and half a margin to even, as in
    torchvision's `resize` and `center_crop` (StyleGAN-V, LVDM). `resize-crop-4:3`: a frame of any proportions becomes
    `side` high and 4/3 as wide, rounded down (MCVD).
    """
    if geometry == "resize-crop-4:3":
        wide = side / 240 * 320
        return side, int(wide), 0, int((wide - side) / 2)
    short = min(height, width)
    if geometry == "resize-crop":
        tall, wide = (math.ceil(length * side / short) for length in (height, width))
        return tall, wide, (tall - side) // 2, (wide - side) // 2
    tall, wide = (int(length * side / short) for length in (height, width))
    return tall, wide, round((tall - side) / 2), round((wide - side) / 2)


def resize(
    clips: UInt8[Tensor, "*batch 3 height width"], height: int, width: int, *, antialias: bool = True
) -> UInt8[Tensor, "*batch 3 new_height new_width"]:
    """Resize by bilinear interpolation on half-pixel centres in float32, without keeping the aspect: uint8 to uint8.

    `antialias` widens the filter when shrinking, as PIL does. Clips that already have the size are returned unchanged.
    """
    if clips.dtype != torch.uint8:
        raise TypeError(f"resize takes uint8 clips, got {clips.dtype}")
    if clips.shape[-2:] == (height, width):
        return clips
    images = clips.reshape(-1, *clips.shape[-3:])
    sized = torch.empty((len(images), images.shape[1], height, width), dtype=torch.uint8, device=clips.device)
    for part, place in zip(torch.split(images, FRAMES_AT_ONCE), torch.split(sized, FRAMES_AT_ONCE), strict=True):
        floats = part.to(torch.float32, memory_format=torch.contiguous_format)
        floats = F.interpolate(floats, (height, width), mode="bilinear", align_corners=False, antialias=antialias)
        place.copy_(to_bytes(floats))
    return sized.reshape(*clips.shape[:-2], height, width)


def lanczos(frames: UInt8[Tensor, "frames 3 _ _"], height: int, width: int) -> UInt8[Tensor, "frames 3 tall wide"]:
    """Resize each frame by Pillow's Lanczos filter with three lobes, without keeping the aspect: uint8 to uint8.

    Published scripts call this filter LANCZOS or ANTIALIAS. Pillow widens it when shrinking. Frames that already have
    the size are returned unchanged.
    """
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames.permute(0, 2, 3, 1).numpy()]
    # Pillow rounds to bytes after each axis, so the order of the axes matters. Pillow 13 starts with the cheaper axis;
    # earlier versions, which prepared the field's data, start with the width.
    wide = [image.resize((width, image.height), Image.Resampling.LANCZOS) for image in images]
    sized = [np.array(image.resize((width, height), Image.Resampling.LANCZOS)) for image in wide]
    return torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2).contiguous()
